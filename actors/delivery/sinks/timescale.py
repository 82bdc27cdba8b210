"""TimescaleDB (or plain PostgreSQL): exactly once in the store.

A batch goes into the table by COPY, in one transaction with this log's cursor and with what it adds to the sums by the
minute (`minutes.py`). So after any crash the database itself says where to continue. If a row may be there already, the
batch goes by COPY into a temporary staging table and from there by INSERT ... ON CONFLICT DO NOTHING. A row that the
table cannot hold (a value error, a broken constraint) is found by halving the batch, and becomes a dead letter. Key:
(run_id, vehicle_id, seq). Order does not matter in a table.
"""

from __future__ import annotations

import io
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote, unquote

import psycopg2
import psycopg2.errors
import pyarrow as pa
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor
from yoyo import get_backend, read_migrations
from yoyo.migrations import MigrationList

from actors.delivery.sinks.base import (
    BATCH_ROWS,
    DeadLetter,
    Receipt,
    SinkOptions,
    SinkRefused,
    SinkUnavailable,
    split_url,
)
from actors.delivery.sinks.minutes import RECORDS, Row, adding, sums_in_sql, sums_of
from datasets.codec import encode_csv
from datasets.schema import FIELDS, Stream

_log = logging.getLogger(__name__)

SQL_FOLDER = Path(__file__).resolve().parents[3] / "cluster" / "sql"
_CONNECT_TIMEOUT_S = 5
# Errors of a row, not of us or the server.
_ROW_ERRORS = (psycopg2.DataError, psycopg2.IntegrityError, psycopg2.errors.ProgramLimitExceeded)
_warned: set[str] = set()
_SURELY_THE_TABLE = 20  # this many rows refused and none taken: the table is wrong, not the records
# Any number will do, but all processes that migrate one database must use the same.
_POOLER = "unsupported startup parameter"
_MIGRATION_LOCK = 0x45567477


@dataclass(frozen=True)
class TimescaleTarget:
    """One database. The password is not in repr. `connections`: the most of a whole run. `shared`: a node has one."""

    servers: tuple[str, ...]  # host:port each; libpq takes the first that does what the options ask for
    user: str
    database: str
    password: str | None = field(default=None, repr=False)
    options: str = field(default="", repr=False)  # libpq's parameters; a password may be one
    patience_s: float = 120.0
    name: str = "timescale"
    rewind_s: float = 0.0
    batch_rows: int = BATCH_ROWS
    keeps_position: bool = False
    connections: int = 90
    shared: bool = False

    @classmethod
    def parse(cls, address: str, options: SinkOptions) -> TimescaleTarget:
        """From `postgresql://user[:password]@host[:port][,host:port]/database`; anything else raises a one-line
        ValueError."""
        scheme, slashes, rest = address.partition("://")
        place, slash, path = rest.partition("/")
        user, at, servers = place.rpartition("@")
        urls = [
            split_url(
                f"{scheme}{slashes}{user}{at}{server}{slash}{path}",
                ("postgresql", "postgres", "timescaledb"),
                "a database URL like postgresql://twin@127.0.0.1/twin_data",
            )
            for server in servers.split(",")
        ]
        url = urls[0]
        database = url.path.strip("/")
        if not database or not url.username:
            missing = "database" if url.username else "user"
            raise ValueError(f"expected a {missing} in the database URL postgresql://user@host/database, got none")
        password = unquote(url.password) if url.password else None
        return cls(
            tuple(f"{url.hostname}:{url.port or 5432}" for url in urls),
            unquote(url.username),
            unquote(database),
            password,
            url.query,
            connections=options.connections,
        )

    @property
    def where(self) -> str:
        """The address as messages show it, without secrets."""
        return f"database {self.database} at {','.join(self.servers)}"

    @property
    def url(self) -> str:
        """The libpq URL, with the password if there is one."""
        secret = f":{quote(self.password, safe='')}" if self.password else ""
        hosts, ports = zip(*(server.rsplit(":", 1) for server in self.servers), strict=True)
        # As parameters, since not every client takes several servers in front of the path.
        named = [f"host={','.join(hosts)}", f"port={','.join(ports)}", f"connect_timeout={_CONNECT_TIMEOUT_S}"]
        return (
            f"postgresql://{quote(self.user, safe='')}{secret}@/{quote(self.database, safe='')}?"
            f"{'&'.join(filter(None, [self.options, *named]))}"
        )

    def connect(self) -> Connection:
        """A new connection. A failure raises a one-line SinkUnavailable or SinkRefused."""
        limit = f"-c statement_timeout={round(self.patience_s * 1000)}"
        try:
            try:
                return psycopg2.connect(self.url, application_name="ev-twin", options=limit)
            except psycopg2.OperationalError as error:
                if _POOLER not in str(error):
                    raise
            # The pooler ends a statement whose client has gone.
            return psycopg2.connect(self.url, application_name="ev-twin")
        except psycopg2.Error as error:
            raise _translate(error, self) from error

    def for_nodes(self, nodes: int) -> TimescaleTarget:
        if nodes > self.connections:
            raise ValueError(
                f"{nodes} nodes need a database connection each; --timescale-connections allows {self.connections}"
            )
        return replace(self, shared=2 * nodes > self.connections)

    @property
    def peer(self) -> str:
        """The servers in one order, however they were given, and the database."""
        return f"{','.join(sorted(self.servers))}/{self.database}"

    def sink(self, log_id: str, stream: Stream, part: int = 0) -> TimescaleSink:
        return TimescaleSink(self, log_id, stream)

    def check(self) -> str:
        connection = self.connect()
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute("SHOW server_version")
                server = cursor.fetchone()
                cursor.execute("SELECT default_version FROM pg_available_extensions WHERE name = 'timescaledb'")
                extension = cursor.fetchone()
                _missing(cursor, bool(extension), self)
        except psycopg2.Error as error:
            raise _translate(error, self) from error
        finally:
            connection.close()
        assert server is not None
        kind = f"TimescaleDB {extension[0]}" if extension else "no TimescaleDB extension, plain tables are used"
        return f"{self.where}: PostgreSQL {server[0]}, {kind}"


def _translate(error: psycopg2.Error, target: TimescaleTarget) -> SinkRefused | SinkUnavailable:
    """The first line of the server's words, without the connection string."""
    words = str(error).strip().splitlines() or [type(error).__name__]
    said = words[0].rpartition("FATAL:")[2].strip() or words[0]
    code = error.pgcode or ""
    # A failed login has no code in psycopg2, so we go by the words.
    refused = code[:2] in ("28", "3D", "42") or any(
        sign in said for sign in ("authentication failed", "no password supplied", "does not exist", "pg_hba.conf")
    )
    if refused:
        return SinkRefused(f"{target.where} refused us: {said}; check user, password (PG_PASSWORD) and database")
    if code == "25006":
        return SinkUnavailable(f"{target.where} is read-only ({said}); is it a standby, or set to read-only?")
    # 08: connection, 57P0x: shutting down or starting. Anything else comes from a server that works.
    if not code or code[:2] == "08" or code.startswith("57P"):
        return SinkUnavailable(f"{target.where} does not answer: {said}")
    return SinkUnavailable(f"{target.where} takes no records now ({code}): {said}")


def _migrations(timescale: bool) -> MigrationList:
    folders = [SQL_FOLDER, SQL_FOLDER / "timescaledb"] if timescale else [SQL_FOLDER]
    return read_migrations(*map(str, folders))


def _missing(cursor: Cursor, timescale: bool, target: TimescaleTarget) -> bool:
    """Whether a migration is not applied yet; SinkRefused where we may not apply it, SinkUnavailable where nobody may
    write. To find that none is missing takes no right but to read yoyo's table."""
    cursor.execute("SHOW transaction_read_only")
    if cursor.fetchone() == ("on",):
        raise SinkUnavailable(f"{target.where} is read-only; is it a standby, or set to read-only?")
    applied: set[str] = set()
    cursor.execute(
        "SELECT to_regclass('_yoyo_migration') IS NOT NULL, has_schema_privilege(current_schema(), 'CREATE')"
    )
    there, may_create = cursor.fetchone() or (False, False)
    if there:
        cursor.execute("SELECT migration_hash FROM _yoyo_migration")
        applied = {found for (found,) in cursor.fetchall()}
    missing = any(migration.hash not in applied for migration in _migrations(timescale))
    if missing and not may_create:
        raise SinkRefused(
            f"{target.where}: tables are missing and user {target.user} may not create them; GRANT CREATE ON SCHEMA "
            "public to it, or have them made by somebody who may (cluster/sql/README.md)"
        )
    return missing


def migrate(target: TimescaleTarget) -> bool:
    """Bring the tables up to date. Returns whether TimescaleDB is there (hypertables, compression, retention,
    aggregates). Where they are, a user who may not make any is enough."""
    try:
        with closing(target.connect()) as connection, connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_available_extensions WHERE name = 'timescaledb'")
            timescale = cursor.fetchone() != (0,)
            missing = _missing(cursor, timescale, target)
            cursor.execute("SELECT pg_backend_pid()")
            pooled = cursor.fetchone() != (connection.info.backend_pid,)  # a pooler tells its clients another
    except psycopg2.Error as error:
        raise _translate(error, target) from error
    if missing:
        _apply(target, timescale, pooled)
    if not timescale and target.where not in _warned:
        _warned.add(target.where)
        _log.warning("%s has no TimescaleDB extension: plain tables, no compression, no retention", target.where)
    return timescale


def _apply(target: TimescaleTarget, timescale: bool, pooled: bool) -> None:
    """`pooled`: what a session is told does not last, since a pooler (PgBouncer) gives each transaction any of its
    connections."""
    try:
        backend = get_backend(target.url)
    except psycopg2.Error as error:
        raise _translate(error, target) from error
    try:
        # yoyo opens a second connection for each migration. Ours is in autocommit, so one can serve for all.
        backend.copy = lambda: nullcontext(backend)
        with _alone(target) if pooled else nullcontext():
            # yoyo's own lock is a row, which a killed process leaves behind forever. This one ends with the connection.
            if not pooled:
                backend.execute("SELECT pg_advisory_lock(:key)", {"key": _MIGRATION_LOCK})
            backend.break_lock()
            backend.apply_migrations(backend.to_apply(_migrations(timescale)))
    except psycopg2.Error as error:
        raise _translate(error, target) from error
    finally:
        backend.connection.close()


@contextmanager
def _alone(target: TimescaleTarget) -> Iterator[None]:
    """The lock of migrations, held by a transaction of its own."""
    with closing(target.connect()) as connection, connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_MIGRATION_LOCK,))
        yield


class _Line:
    """A connection, and whose turn it is to use it."""

    def __init__(self) -> None:
        self.turn = threading.RLock()
        self.connection: Connection | None = None


_shared_lines: dict[str, _Line] = {}


class TimescaleSink:
    """See the module's docstring. One connection, which a process's streams share if the target says so. The queue is
    one batch; `deliver` waits for its commit."""

    def __init__(self, target: TimescaleTarget, log_id: str, stream: Stream) -> None:
        self._target = target
        self._log_id = log_id
        self._stream = stream
        self._line = _shared_lines.setdefault(target.url, _Line()) if target.shared else _Line()
        self._lock = threading.Lock()
        self._closed = False
        self._busy = False
        # Shards whose last batch was entirely new. The first batch after a start may be a repetition.
        self._fresh: set[int] = set()

    def open(self) -> None:
        with self._line.turn:
            if self._target.shared:
                self._forget()  # a connection of its own, while ours waits, would be one too many
            migrate(self._target)

    def heard(self) -> float:
        return time.monotonic()  # what it acknowledged it keeps, so nobody needs to know

    def position(self, shard: int) -> int | None:
        with self._transaction() as cursor:
            cursor.execute(
                "SELECT position FROM sink_cursors WHERE log_id = %s AND stream = %s AND shard = %s",
                (self._log_id, self._stream, shard),
            )
            row = cursor.fetchone()
        return int(row[0]) if row else 0

    def deliver(self, shard: int, batch: pa.RecordBatch, position: int) -> Receipt:
        if shard in self._fresh:
            try:
                with self._transaction() as cursor:
                    self._copy(cursor, self._stream, batch)
                    self._add(cursor, sums_of(batch, self._stream))
                    self._move_cursor(cursor, shard, position)
                return Receipt()
            except _ROW_ERRORS:
                self._fresh.discard(shard)
        with self._transaction() as cursor:
            receipt = self._insert(cursor, batch)
            self._move_cursor(cursor, shard, position)
        if not receipt.duplicates and not receipt.dead:
            self._fresh.add(shard)
        return receipt

    def _insert(self, cursor: Cursor, batch: pa.RecordBatch) -> Receipt:
        """Insert all rows that the table accepts and does not have yet; halve the batch where a row is refused."""
        stream, names = self._stream, _names(self._stream)
        cursor.execute(f"CREATE TEMPORARY TABLE staging_{stream} (LIKE {stream}) ON COMMIT DROP")
        accepted, seen = 0, 0
        sums: list[list[Row]] = []
        dead: list[DeadLetter] = []
        parts = [(0, batch.num_rows)]
        while parts:
            first, rows = parts.pop()
            cursor.execute("SAVEPOINT part")
            try:
                if seen:
                    cursor.execute(f"TRUNCATE staging_{stream}")
                self._copy(cursor, f"staging_{stream}", batch.slice(first, rows))
                cursor.execute(
                    f"WITH new AS (INSERT INTO {stream} ({names}) SELECT {names} FROM staging_{stream}"
                    f" ON CONFLICT DO NOTHING RETURNING *) {sums_in_sql(stream, 'new')}"
                )
                sums.append(cursor.fetchall())
                accepted += sum(row[RECORDS] for row in sums[-1])
                seen += rows
            except _ROW_ERRORS as error:
                cursor.execute("ROLLBACK TO SAVEPOINT part")
                if rows > 1:
                    parts += [(first + rows // 2, rows - rows // 2), (first, rows // 2)]
                else:
                    dead.append(DeadLetter(first, _first_line(error)))
            cursor.execute("RELEASE SAVEPOINT part")
            if not seen and len(dead) > 1 and len(dead) >= min(_SURELY_THE_TABLE, batch.num_rows):
                raise SinkRefused(
                    f"{self._target.where}: table {stream} takes no row ({dead[0].reason}); compare it with cluster/sql"
                )
        for part in sums:
            self._add(cursor, part)
        return Receipt(seen - accepted, tuple(dead))

    def _add(self, cursor: Cursor, sums: list[Row]) -> None:
        """Last of what a transaction does to rows that other shards write, too: they wait for its commit."""
        if sums:
            cursor.execute(*adding(self._stream, sums))

    def _copy(self, cursor: Cursor, table: str, rows: pa.RecordBatch) -> None:
        lines = io.BytesIO(encode_csv(rows, self._stream))
        cursor.copy_expert(f"COPY {table} ({_names(self._stream)}) FROM STDIN (FORMAT csv)", lines)

    def _move_cursor(self, cursor: Cursor, shard: int, position: int) -> None:
        # A reader whose cursor file is behind may deliver again what this cursor has passed. So it never moves back.
        cursor.execute(
            "INSERT INTO sink_cursors AS old (log_id, stream, shard, position) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT (log_id, stream, shard)"
            " DO UPDATE SET position = greatest(old.position, excluded.position), updated_at = now()",
            (self._log_id, self._stream, shard, position),
        )

    @contextmanager
    def _transaction(self) -> Iterator[Cursor]:
        """A cursor whose work is committed at the end."""
        with self._line.turn, self._committed() as cursor:
            yield cursor

    @contextmanager
    def _committed(self) -> Iterator[Cursor]:
        """A cursor whose work is committed at the end. A connection that fails, or stays silent, is thrown away.

        Errors of `_ROW_ERRORS` are raised unchanged, and the connection remains usable for the next transaction.
        """
        connection = self._connected()
        silent = threading.Event()

        def cut() -> None:
            silent.set()
            _cut(connection)

        watchdog = threading.Timer(self._target.patience_s, cut)
        watchdog.daemon = True
        watchdog.start()
        try:
            with connection, connection.cursor() as cursor:
                yield cursor
        except _ROW_ERRORS:
            raise
        except psycopg2.Error as error:
            self._forget()
            if self._closed:
                raise SinkUnavailable(f"{self._target.where} was closed while it delivered") from error
            if silent.is_set():
                raise SinkUnavailable(
                    f"{self._target.where} has not answered for {self._target.patience_s:g} s"
                ) from error
            raise _translate(error, self._target) from error
        except BaseException:
            self._forget()
            raise
        finally:
            watchdog.cancel()
            self._busy = False

    def _connected(self) -> Connection:
        connection = self._line.connection or self._target.connect()
        with self._lock:
            if self._closed:
                connection.close()
                raise SinkUnavailable(f"{self._target.where} was closed")
            self._line.connection, self._busy = connection, True
        return connection

    def _forget(self) -> None:
        with self._lock:
            connection, self._line.connection = self._line.connection, None
        if connection is not None:
            with suppress(psycopg2.Error):
                connection.close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            connection = self._line.connection
            if connection is not None and self._busy:
                _cut(connection)
            elif connection is not None and not self._target.shared:
                self._line.connection = None
                with suppress(psycopg2.Error):
                    connection.close()


def _cut(connection: Connection) -> None:
    """End a connection that another thread waits on. `close` would wait for that thread; libpq has no time limit."""
    with suppress(psycopg2.Error, OSError), closing(socket.socket(fileno=os.dup(connection.fileno()))) as twin:
        twin.shutdown(socket.SHUT_RDWR)


def _first_line(error: psycopg2.Error) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _names(stream: Stream) -> str:
    return ", ".join(f.name for f in FIELDS[stream])
