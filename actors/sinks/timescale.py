"""TimescaleDB (or plain PostgreSQL): exactly once in the store.

A batch goes by COPY into a temporary staging table, then by INSERT ... ON CONFLICT DO NOTHING into the real one, in one
transaction with this log's cursor: after any crash the database itself says where to go on.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote

import psycopg2
import psycopg2.pool
import pyarrow as pa
import pyarrow.csv as pa_csv
from psycopg2.extensions import connection as Connection
from yoyo import get_backend, read_migrations

from actors.sinks.base import SinkRefused, SinkUnavailable, split_url
from datasets.schema import FIELDS, Stream

_log = logging.getLogger(__name__)

SQL_FOLDER = Path(__file__).resolve().parents[2] / "cluster" / "sql"
_CONNECT_TIMEOUT_S = 5
_STATEMENT_TIMEOUT_MS = 120_000
_CONNECTIONS = 4
# Any number will do; all processes that migrate one database must use the same.
_MIGRATION_LOCK = 0x45567477


@dataclass(frozen=True)
class TimescaleTarget:
    """One database. The password is not in repr."""

    host: str
    port: int
    user: str
    database: str
    password: str | None = field(default=None, repr=False)
    options: str = ""
    name: str = "timescale"

    @classmethod
    def parse(cls, text: str) -> TimescaleTarget:
        """From `postgresql://user[:password]@host[:port]/database`; ValueError in one line otherwise."""
        url = split_url(
            text, ("postgresql", "postgres", "timescaledb"), "a database URL like postgresql://twin@127.0.0.1/twin_data"
        )
        database = url.path.strip("/")
        if not database or not url.username:
            missing = "database" if url.username else "user"
            raise ValueError(f"expected a {missing} in the database URL postgresql://user@host/database, got none")
        assert url.hostname is not None
        password = unquote(url.password) if url.password else None
        return cls(url.hostname, url.port or 5432, unquote(url.username), unquote(database), password, url.query)

    @property
    def where(self) -> str:
        """For messages: no secret in it."""
        return f"database {self.database} at {self.host}:{self.port}"

    def dsn(self) -> str:
        """The libpq URL, with the password where there is one."""
        secret = f":{quote(self.password, safe='')}" if self.password else ""
        parameters = "&".join(filter(None, [self.options, f"connect_timeout={_CONNECT_TIMEOUT_S}"]))
        return (
            f"postgresql://{quote(self.user, safe='')}{secret}@{self.host}:{self.port}"
            f"/{quote(self.database, safe='')}?{parameters}"
        )

    def connect(self) -> Connection:
        """A new connection; SinkUnavailable or SinkRefused in one line where there is none."""
        try:
            return psycopg2.connect(self.dsn(), application_name="ev-twin")
        except psycopg2.Error as error:
            raise _translate(error, self) from error

    def sink(self, log_id: str) -> TimescaleSink:
        return TimescaleSink(self, log_id)

    def check(self) -> str:
        connection = self.connect()
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute("SHOW server_version")
                server = cursor.fetchone()
                cursor.execute("SELECT default_version FROM pg_available_extensions WHERE name = 'timescaledb'")
                extension = cursor.fetchone()
                cursor.execute("SELECT has_database_privilege(current_database(), 'CREATE')")
                allowed = cursor.fetchone()
        except psycopg2.Error as error:
            raise _translate(error, self) from error
        finally:
            connection.close()
        assert server is not None
        assert allowed is not None
        if not allowed[0]:
            raise SinkRefused(f"{self.where}: user {self.user} may not create tables; GRANT CREATE ON DATABASE to it")
        kind = f"TimescaleDB {extension[0]}" if extension else "no TimescaleDB extension, plain tables are used"
        return f"{self.where}: PostgreSQL {server[0]}, {kind}"


def _translate(error: psycopg2.Error, target: TimescaleTarget) -> SinkRefused | SinkUnavailable:
    """The first line of the server's words, without the connection string."""
    words = str(error).strip().splitlines() or [type(error).__name__]
    said = words[0].rpartition("FATAL:")[2].strip() or words[0]
    code = error.pgcode or ""
    # A failed login has no code in psycopg2: the words are all there is.
    refused = code[:2] in ("28", "3D", "42") or any(
        sign in said for sign in ("authentication failed", "no password supplied", "does not exist", "pg_hba.conf")
    )
    if refused:
        return SinkRefused(f"{target.where} refused us: {said}; check user, password (PG_PASSWORD) and database")
    return SinkUnavailable(f"{target.where} does not answer: {said}")


def migrate(target: TimescaleTarget) -> bool:
    """Bring the tables up to date; whether TimescaleDB is there (hypertables, compression, retention, aggregates)."""
    target.connect().close()  # yoyo says less well why it cannot
    backend = get_backend(target.dsn())
    try:
        # yoyo opens a second connection for each migration; ours is in autocommit, so one can serve for all.
        backend.copy = lambda: nullcontext(backend)
        # yoyo's own lock is a row, which a killed process leaves behind for good; this one goes with the connection.
        backend.execute("SELECT pg_advisory_lock(:key)", {"key": _MIGRATION_LOCK})
        backend.break_lock()
        answer = backend.execute("SELECT count(*) FROM pg_available_extensions WHERE name = 'timescaledb'")
        timescale = bool(answer.fetchone()[0])
        folders = [SQL_FOLDER, SQL_FOLDER / "timescaledb"] if timescale else [SQL_FOLDER]
        backend.apply_migrations(backend.to_apply(read_migrations(*map(str, folders))))
    except psycopg2.Error as error:
        raise _translate(error, target) from error
    finally:
        backend.connection.close()
    if not timescale:
        _log.warning("%s has no TimescaleDB extension: plain tables, no compression, no retention", target.where)
    return timescale


class TimescaleSink:
    """See the module's docstring. One connection per delivering thread, out of a pool of `_CONNECTIONS`."""

    def __init__(self, target: TimescaleTarget, log_id: str) -> None:
        self._target = target
        self._log_id = log_id
        self._pool: psycopg2.pool.ThreadedConnectionPool | None = None

    def open(self) -> None:
        migrate(self._target)
        try:
            self._pool = psycopg2.pool.ThreadedConnectionPool(
                1,
                _CONNECTIONS,
                self._target.dsn(),
                application_name="ev-twin",
                options=f"-c statement_timeout={_STATEMENT_TIMEOUT_MS}",
            )
        except psycopg2.Error as error:
            raise _translate(error, self._target) from error

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """A connection whose work is committed at the end; one that failed is thrown away."""
        assert self._pool is not None
        connection = None
        try:
            connection = self._pool.getconn()
            with connection:
                yield connection
        except psycopg2.Error as error:
            if connection is not None:
                self._pool.putconn(connection, close=True)
            raise _translate(error, self._target) from error
        self._pool.putconn(connection)

    def position(self, stream: Stream, shard: int) -> int | None:
        with self._transaction() as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT position FROM sink_cursors WHERE log_id = %s AND stream = %s AND shard = %s",
                (self._log_id, stream, shard),
            )
            row = cursor.fetchone()
        return int(row[0]) if row else 0

    def deliver(self, stream: Stream, shard: int, batch: pa.RecordBatch, position: int) -> int:
        names = ", ".join(f.name for f in FIELDS[stream])
        with self._transaction() as connection, connection.cursor() as cursor:
            cursor.execute(
                f"CREATE TEMPORARY TABLE IF NOT EXISTS staging_{stream} (LIKE {stream}) ON COMMIT DELETE ROWS"
            )
            cursor.copy_expert(f"COPY staging_{stream} ({names}) FROM STDIN (FORMAT csv)", _csv(batch))
            cursor.execute(
                f"INSERT INTO {stream} ({names}) SELECT {names} FROM staging_{stream} ON CONFLICT DO NOTHING"
            )
            refused = batch.num_rows - cursor.rowcount
            cursor.execute(
                "INSERT INTO sink_cursors (log_id, stream, shard, position) VALUES (%s, %s, %s, %s)"
                " ON CONFLICT (log_id, stream, shard) DO UPDATE SET position = excluded.position, updated_at = now()",
                (self._log_id, stream, shard, position),
            )
        return refused

    def close(self) -> None:
        if self._pool is not None:
            self._pool.closeall()
            self._pool = None


def _csv(batch: pa.RecordBatch) -> io.BytesIO:
    """COPY's CSV, written by Arrow: the shortest text that reads back as the same number."""
    columns = [column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column for column in batch.columns]
    sink = io.BytesIO()
    plain = pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
    pa_csv.write_csv(plain, sink, pa_csv.WriteOptions(include_header=False))
    sink.seek(0)
    return sink
