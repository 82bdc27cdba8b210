"""Windows in the database: table `fleet_minute`, one row per run, minute, topic and partition.

A row is replaced only by one that has counted as far or further. So a member of the group that has lost a partition,
and does not know it yet, cannot set a row back.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable

import orjson
import psycopg2
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import execute_values

from actors.aggregates.windows import Key, Window
from actors.delivery.sinks import SinkUnavailable
from actors.delivery.sinks.timescale import TimescaleTarget, migrate

SUMS = (
    "records", "soc_sum", "soc_min", "soc_max", "soh_sum", "soh_min",
    "battery_temperature_sum", "battery_temperature_min", "battery_temperature_max", "power_sum",
    "parked", "driving", "charging", "fast_charging", "flagged", "last_offset",
)  # fmt: skip
_KEY = ("run_id", "minute", "topic", "partition")
_COLUMNS = (*_KEY, "vehicles", *SUMS, "identities")
_STATEMENT_TIMEOUT_MS = 30_000


class WindowStore:
    """One connection, made anew after a failure. Raises SinkError if the database does not do what it is asked."""

    def __init__(self, target: TimescaleTarget, topic: str) -> None:
        self._target = target
        self._topic = topic
        self._connection: Connection | None = None

    def open(self) -> None:
        """Bring the tables up to date."""
        migrate(self._target)

    def load(self, keys: Iterable[Key]) -> dict[Key, Window]:
        """The windows among `keys` that were written before."""
        wanted = tuple(keys)
        return self._transaction(lambda cursor: self._select(cursor, wanted)) if wanted else {}

    def save(self, windows: list[Window]) -> list[Window]:
        """Write windows. Returns them as they are stored now: a row of somebody who has counted further is kept."""
        return self._transaction(lambda cursor: self._upsert(cursor, windows)) if windows else []

    def _transaction[T](self, work: Callable[[Cursor], T]) -> T:
        try:
            if self._connection is None:
                self._connection = self._target.connect()
            with self._connection, self._connection.cursor() as cursor:
                # UTC: in a zone west of it the first minutes of year 1 would come back as years BC.
                cursor.execute(f"SET LOCAL statement_timeout = {_STATEMENT_TIMEOUT_MS}; SET LOCAL timezone = 'UTC'")
                return work(cursor)
        except psycopg2.Error as error:
            self.close()
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise SinkUnavailable(f"{self._target.where} does not answer: {said}") from error

    def _select(self, cursor: Cursor, keys: tuple[Key, ...]) -> dict[Key, Window]:
        cursor.execute(
            f"SELECT run_id, minute, partition, identities, {', '.join(SUMS)} FROM fleet_minute"
            " WHERE topic = %s AND (run_id, minute, partition) IN %s",
            (self._topic, keys),
        )
        found = {}
        for run, minute, partition, identities, *sums in cursor.fetchall():
            window = Window(run, minute, partition, *sums)
            window.seen = orjson.loads(zlib.decompress(identities))
            found[window.key] = window
        return found

    def _upsert(self, cursor: Cursor, windows: list[Window]) -> list[Window]:
        rows = [
            (
                window.run_id, window.minute, self._topic, window.partition, window.vehicles,
                *(getattr(window, name) for name in SUMS),
                zlib.compress(orjson.dumps(window.seen)),
            )
            for window in sorted(windows, key=lambda window: window.key)  # one order, so that no two members deadlock
        ]  # fmt: skip
        changes = ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[len(_KEY) :])
        written = execute_values(
            cursor,
            f"INSERT INTO fleet_minute ({', '.join(_COLUMNS)}) VALUES %s"
            f" ON CONFLICT ({', '.join(_KEY)}) DO UPDATE SET {changes}, updated_at = now()"
            " WHERE fleet_minute.last_offset <= excluded.last_offset RETURNING run_id, minute, partition",
            rows,
            fetch=True,
        )
        mine = set(written)
        newer = tuple(window.key for window in windows if window.key not in mine)
        current = self._select(cursor, newer) if newer else {}
        return [current.get(window.key, window) for window in windows]

    def close(self) -> None:
        """Close the connection. Never raises."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
