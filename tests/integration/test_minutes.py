"""The sums by the minute are those of the records, whichever way they came, on PostgreSQL and on TimescaleDB."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import psycopg2
import pyarrow as pa
import pytest
from yoyo import get_backend, read_migrations

from actors.delivery.sinks import SinkOptions
from actors.delivery.sinks.minutes import sums_in_sql
from actors.delivery.sinks.timescale import SQL_FOLDER, TimescaleSink, TimescaleTarget
from datasets.schema import STREAMS, Stream
from tests.integration.test_sinks import insert_instead_of_copy, opened, poisoned
from tests.support import make_batch

pytestmark = pytest.mark.services


@dataclass
class Database:
    url: str

    @property
    def target(self) -> TimescaleTarget:
        return TimescaleTarget.parse(self.url, SinkOptions())

    def query(self, sql: str, *values: object) -> list[Any]:
        with closing(psycopg2.connect(self.url)) as connection, connection.cursor() as cursor:
            cursor.execute(sql, values)
            return cursor.fetchall()

    def minutes_are_those_of_the_records(self, stream: Stream) -> int:
        """How many rows there are, each compared with the records themselves."""
        stored = self.query(f"SELECT * FROM {stream}_minute ORDER BY 1, 2, 3")
        exact = self.query(f"{sums_in_sql(stream, stream)} ORDER BY 1, 2, 3")
        assert [row[:4] for row in stored] == [row[:4] for row in exact]
        for ours, theirs in zip(stored, exact, strict=True):
            assert ours[4:] == pytest.approx(theirs[4:], rel=1e-6, abs=1e-4)
        return len(stored)


@pytest.fixture(params=["postgres_database", "timescaledb_database"])
def database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Database:
    if request.param == "timescaledb_database":
        monkeypatch.setattr(TimescaleSink, "_copy", lambda _sink, *copied: insert_instead_of_copy(*copied))
    return Database(request.getfixturevalue(request.param))


def test_minutes_are_the_sums_of_their_records(database: Database) -> None:
    for stream in STREAMS:
        with opened(database.target, stream=stream) as sink:

            def deliver(first: int, last: int, at: int, sink: Any = sink, stream: Stream = stream) -> int:
                batch = make_batch(6, range(first, last), stream=stream)
                return int(sink.deliver(0, batch, at).duplicates)

            assert deliver(0, 20, 120) == 0  # by way of staging: it may be there already
            assert deliver(20, 40, 240) == 0  # straight into the table
            assert deliver(20, 40, 240) == 120  # again
            assert deliver(30, 50, 300) == 60  # half of it again
        assert database.minutes_are_those_of_the_records(stream) > 2 * (3 if stream == "telemetry" else 1) - 1
        [(records,)] = database.query(f"SELECT sum(records)::int FROM {stream}_minute")
        assert records == 300


def test_two_shards_add_to_the_same_minute(database: Database) -> None:
    for shard in (0, 1):
        with opened(database.target) as sink:
            for first in (0, 5):
                sink.deliver(shard, make_batch(4, range(first, first + 5), first_vehicle=4 * shard), 4 * (first + 5))
    assert database.minutes_are_those_of_the_records("telemetry") > 0


def test_a_record_that_the_table_refuses_is_in_no_minute(postgres_database: str) -> None:
    database = Database(postgres_database)
    with opened(database.target) as sink:
        receipt = sink.deliver(0, poisoned(make_batch(10, range(10)), {3, 60}, "\0"), 100)
    assert len(receipt.dead) == 2
    assert database.minutes_are_those_of_the_records("telemetry") > 0
    assert database.query("SELECT sum(records)::int FROM telemetry_minute") == [(98,)]


def test_a_batch_of_several_repetitions_counts_each_record_once(postgres_database: str) -> None:
    database = Database(postgres_database)
    batch = make_batch(10, range(10))
    twice = pa.Table.from_batches([batch, batch]).combine_chunks().to_batches()[0]
    with opened(database.target) as sink:
        assert sink.deliver(0, make_batch(10, range(10, 11)), 10).duplicates == 0
        assert sink.deliver(0, twice, 210).duplicates == 100
    assert database.minutes_are_those_of_the_records("telemetry") > 0


def test_records_of_an_older_database_are_summed(postgres_database: str, unique_name: Callable[[str], str]) -> None:
    """What the migration finds, it sums up."""
    database = Database(postgres_database)
    with opened(database.target) as sink:
        sink.deliver(0, make_batch(6, range(50)), 300)
    backend = get_backend(postgres_database)
    migrations = read_migrations(str(SQL_FOLDER)).filter(lambda migration: migration.id == "0007.minutes")
    backend.rollback_migrations(migrations)
    backend.apply_migrations(migrations)
    backend.connection.close()
    assert database.minutes_are_those_of_the_records("telemetry") > 0


def test_the_newest_record_of_each_vehicle(database: Database) -> None:
    for stream in STREAMS:
        with opened(database.target, stream=stream) as sink:
            sink.deliver(0, make_batch(6, range(20), stream=stream), 120)
            sink.deliver(0, make_batch(3, range(20, 25), stream=stream), 135)
            sink.deliver(1, make_batch(2, range(5), stream=stream, run_id="another"), 10)
        found = database.query(f"SELECT vehicle_id, seq, ts FROM newest_{stream}('run-test') ORDER BY 1")
        assert found == database.query(
            f"SELECT DISTINCT ON (vehicle_id) vehicle_id, seq, ts FROM {stream} WHERE run_id = 'run-test'"
            " ORDER BY vehicle_id, seq DESC"
        )
        assert [seq for _, seq, _ in found] == [24] * 3 + [19] * 3
        assert database.query(f"SELECT count(*) FROM newest_{stream}('no such run')") == [(0,)]
