"""The SQL migrations: plain tables on PostgreSQL; hypertables, columnstore, retention, hourly view on TimescaleDB."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2.extras import execute_values
from yoyo import get_backend, read_migrations

from datasets.schema import FIELDS, STREAMS, Stream
from tests.services import TimescaleDB

SQL = Path(__file__).resolve().parents[2] / "cluster" / "sql"
PLAIN = (SQL,)
TIMESCALE = (SQL, SQL / "timescaledb")
TYPES = {"string": "text", "int64": "bigint", "int32": "integer", "float": "double precision"}
LOCK = 0x45567477

pytestmark = pytest.mark.services


# The recipe of cluster/sql/README.md


@contextmanager
def migrator(url: str, folders: tuple[Path, ...]) -> Iterator[tuple[Any, Any]]:
    """yoyo on one connection, locked against other processes for as long as that connection lives."""
    backend = get_backend(url)
    try:
        # yoyo opens a second connection for each migration; ours is in autocommit, so it can serve for all.
        backend.copy = lambda: nullcontext(backend)
        # yoyo's own lock is a row, which a killed process leaves behind for good.
        backend.execute("SELECT pg_advisory_lock(:key)", {"key": LOCK})
        backend.break_lock()
        yield backend, read_migrations(*map(str, folders))
    finally:
        backend.connection.close()


def migrate(url: str, folders: tuple[Path, ...]) -> list[str]:
    with migrator(url, folders) as (backend, migrations):
        todo = backend.to_apply(migrations)
        backend.apply_migrations(todo)
        return [migration.id for migration in todo]


def roll_back(url: str, folders: tuple[Path, ...]) -> None:
    with migrator(url, folders) as (backend, migrations):
        backend.rollback_migrations(backend.to_rollback(migrations))


# Both databases


@pytest.fixture(params=["postgres_database", "timescaledb_database"])
def database(request: pytest.FixtureRequest) -> tuple[str, tuple[Path, ...]]:
    """An empty database and the folders that are meant for it."""
    url: str = request.getfixturevalue(request.param)
    return url, TIMESCALE if request.param == "timescaledb_database" else PLAIN


def test_applies_once_and_silently(database: tuple[str, tuple[Path, ...]], capsys: pytest.CaptureFixture[str]) -> None:
    url, folders = database
    first = migrate(url, folders)
    assert first == sorted(first)
    assert len(first) == sum(len(migration_files(folder)) for folder in folders)
    assert migrate(url, folders) == []
    assert capsys.readouterr().out == ""


def migration_files(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*.sql") if not path.name.endswith(".rollback.sql")]


def test_columns_are_those_of_the_schema(database: tuple[str, tuple[Path, ...]]) -> None:
    url, folders = database
    migrate(url, folders)
    for stream in STREAMS:
        found = query(
            url,
            "SELECT column_name::text, data_type::text, is_nullable::text FROM information_schema.columns"
            " WHERE table_name = %s ORDER BY ordinal_position",
            stream,
        )
        assert found == [(field.name, sql_type(str(field.type)), "NO") for field in FIELDS[stream]]


def sql_type(arrow: str) -> str:
    if arrow.startswith("timestamp"):
        return "timestamp with time zone"
    if arrow.startswith("dictionary"):
        return "text"
    return TYPES.get(arrow, "double precision")


def test_what_is_delivered_twice_is_stored_once(database: tuple[str, tuple[Path, ...]]) -> None:
    url, folders = database
    migrate(url, folders)
    for stream in STREAMS:
        assert insert(url, stream, rows(stream, range(100))) == 100
        assert insert(url, stream, rows(stream, range(50, 150))) == 50
        assert query(url, f"SELECT count(*), count(DISTINCT seq) FROM {stream}") == [(150, 150)]


def test_rolls_back_to_nothing_and_applies_again(database: tuple[str, tuple[Path, ...]]) -> None:
    url, folders = database
    first = migrate(url, folders)
    insert(url, "telemetry", rows("telemetry", range(10)))
    roll_back(url, folders)
    assert tables(url) == set()
    assert migrate(url, folders) == first


def tables(url: str) -> set[str]:
    """Ours, without those of yoyo and of the extension."""
    found = query(url, "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'")
    return {name for (name,) in found if "yoyo" not in name}


# PostgreSQL


def test_plain_tables(postgres_database: str) -> None:
    migrate(postgres_database, PLAIN)
    minutes = {"telemetry_minute", "predictions_minute", "fleet_minute"}
    assert tables(postgres_database) == {"telemetry", "predictions", "sink_cursors", "rejected_records", *minutes}
    query(postgres_database, "INSERT INTO sink_cursors VALUES ('log', 'telemetry', 0, 7) RETURNING updated_at")
    query(
        postgres_database,
        "INSERT INTO rejected_records (reason, payload) VALUES ('not JSON', %s) RETURNING received_at",
        psycopg2.Binary(b"\x00\xff{"),
    )
    [(payload,)] = query(postgres_database, "SELECT payload FROM rejected_records")
    assert bytes(payload) == b"\x00\xff{"


def test_many_processes_may_migrate_at_once(postgres_database: str) -> None:
    applied: list[list[str]] = []
    threads = [threading.Thread(target=lambda: applied.append(migrate(postgres_database, PLAIN))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(len, applied)) == [0, 0, 0, len(migration_files(SQL))]


def test_a_lock_left_by_a_killed_process_does_not_matter(postgres_database: str) -> None:
    get_backend(postgres_database).connection.close()
    query(postgres_database, "INSERT INTO yoyo_lock (locked, ctime, pid) VALUES (1, now(), 999999) RETURNING pid")
    assert len(migrate(postgres_database, PLAIN)) == len(migration_files(SQL))


def test_a_migration_that_fails_leaves_nothing(postgres_database: str, tmp_path: Path) -> None:
    (tmp_path / "0001.bad.sql").write_text("CREATE TABLE half (n int);\nSELECT no_such_function();\n")
    with pytest.raises(psycopg2.Error, match="no_such_function"):
        migrate(postgres_database, (tmp_path,))
    assert tables(postgres_database) == set()


# TimescaleDB


@pytest.fixture
def timescale(timescaledb: TimescaleDB, timescaledb_database: str) -> str:
    migrate(timescaledb_database, TIMESCALE)
    return timescaledb_database


def test_hypertables_with_columnstore(timescale: str) -> None:
    found = query(
        timescale,
        "SELECT hypertable_name::text, compression_enabled FROM timescaledb_information.hypertables ORDER BY 1",
    )
    assert found == [("predictions", True), ("telemetry", True)]
    settings = query(
        timescale,
        "SELECT hypertable::text, segmentby, orderby FROM timescaledb_information.hypertable_columnstore_settings"
        " WHERE segmentby IS NOT NULL ORDER BY 1",
    )
    assert settings == [
        ("predictions", "run_id,vehicle_id", "ts,seq"),
        ("telemetry", "run_id,vehicle_id", "ts,seq"),
    ]
    intervals = query(timescale, "SELECT DISTINCT time_interval FROM timescaledb_information.dimensions"
                      " WHERE hypertable_name IN ('telemetry', 'predictions')")  # fmt: skip
    assert intervals == [(timedelta(days=1),)]


def test_policies(timescale: str) -> None:
    found = query(
        timescale,
        "SELECT proc_name::text, hypertable_name::text, config FROM timescaledb_information.jobs"
        " WHERE hypertable_name IS NOT NULL ORDER BY 1, 2",
    )
    ages = [next((age for key, age in config.items() if key.endswith("created_before")), None) for *_, config in found]
    assert [(policy, table, age) for (policy, table, _), age in zip(found, ages, strict=True)] == [
        ("policy_compression", "predictions", "1 day"),
        ("policy_compression", "telemetry", "1 day"),
        ("policy_refresh_continuous_aggregate", "telemetry_daily", None),
        ("policy_refresh_continuous_aggregate", "telemetry_hourly", None),
    ]
    assert query(timescale, "SELECT config ->> 'table', config ->> 'period'" + RETENTION_JOBS + " ORDER BY 1") == [
        ("predictions", "10 years"),
        ("telemetry", "10 years"),
    ]


RETENTION_JOBS = " FROM timescaledb_information.jobs WHERE proc_name = 'twin_retention'"


@pytest.mark.parametrize(("setting", "expected"), [("90 days", {"90 days"}), ("none", set())])
def test_retention_can_be_set(timescaledb_database: str, setting: str, expected: set[str]) -> None:
    with migrator(timescaledb_database, TIMESCALE) as (backend, migrations):
        backend.execute("SELECT set_config('twin.retention', :period, false)", {"period": setting})
        backend.apply_migrations(backend.to_apply(migrations))
    found = query(timescaledb_database, "SELECT config ->> 'period'" + RETENTION_JOBS)
    assert {period for (period,) in found} == expected


COLUMNSTORE_JOBS = " FROM timescaledb_information.jobs WHERE proc_name = 'policy_compression'"


@pytest.mark.parametrize(("setting", "expected"), [("7 days", {"7 days"}), ("none", set())])
def test_columnstore_can_be_set(timescaledb_database: str, setting: str, expected: set[str]) -> None:
    with migrator(timescaledb_database, TIMESCALE) as (backend, migrations):
        backend.execute("SELECT set_config('twin.columnstore_after', :period, false)", {"period": setting})
        backend.apply_migrations(backend.to_apply(migrations))
    found = query(timescaledb_database, "SELECT config ->> 'compress_created_before'" + COLUMNSTORE_JOBS)
    assert {period for (period,) in found} == expected
    assert len(found) == 2 * len(expected)
    roll_back(timescaledb_database, TIMESCALE)
    assert tables(timescaledb_database) == set()


def test_periods_can_be_set_later(timescale: str) -> None:
    def periods() -> list[set[str]]:
        return [
            {period for (period,) in query(timescale, f"SELECT config ->> '{key}'{jobs}")}
            for key, jobs in (("compress_created_before", COLUMNSTORE_JOBS), ("period", RETENTION_JOBS))
        ]

    def apply(**settings: str) -> None:
        with closing(psycopg2.connect(timescale)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            for name, value in settings.items():
                cursor.execute("SELECT set_config(%s, %s, false)", (f"twin.{name}", value))
            cursor.execute("CALL twin_apply_periods()")

    apply()
    assert periods() == [{"1 day"}, {"10 years"}]
    apply(columnstore_after="3 days", retention="90 days")
    assert periods() == [{"3 days"}, {"90 days"}]
    apply(retention="none")
    assert periods() == [{"3 days"}, set()]


def test_late_and_repeated_rows_in_compressed_chunks(timescale: str) -> None:
    """Exactly once in the store, and right in the aggregates after the next refresh."""
    insert(timescale, "telemetry", rows("telemetry", range(0, 3600, 2)))
    refresh(timescale)
    age_chunks(timescale, "2 days")
    run_policy(timescale, "policy_compression")
    assert compressed_chunks(timescale) == [True]
    assert insert(timescale, "telemetry", rows("telemetry", range(1800, 3600))) == 900  # every second one was there
    assert insert(timescale, "telemetry", rows("telemetry", range(1800, 3600))) == 0
    assert query(timescale, "SELECT count(*), count(DISTINCT seq) FROM telemetry") == [(2700, 2700)]
    refresh(timescale)
    assert query(timescale, "SELECT records FROM telemetry_hourly ORDER BY hour") == [(900,), (1800,)]
    assert query(timescale, "SELECT records, charge_cycles_last FROM telemetry_daily") == [(2700, 3599)]
    run_policy(timescale, "policy_compression")  # what came late becomes columns, too
    assert query(timescale, "SELECT count(*), count(DISTINCT seq) FROM telemetry") == [(2700, 2700)]


def test_copy_into_a_compressed_chunk_refuses_what_is_there(timescale: str) -> None:
    """The sink's short way is COPY into the table itself: it must fail on a duplicate, also among columns.

    Through a file of the server: this one cannot COPY from a client.
    """
    insert(timescale, "telemetry", rows("telemetry", range(100)))
    query(timescale, "COPY (SELECT * FROM telemetry WHERE seq >= 90) TO '/tmp/there.csv' (FORMAT csv)")
    query(timescale, "COPY (SELECT * FROM telemetry WHERE seq < 10) TO '/tmp/gone.csv' (FORMAT csv)")
    query(timescale, "DELETE FROM telemetry WHERE seq < 10")
    age_chunks(timescale, "2 days")
    run_policy(timescale, "policy_compression")
    assert compressed_chunks(timescale) == [True]
    with pytest.raises(psycopg2.errors.UniqueViolation):
        query(timescale, "COPY telemetry FROM '/tmp/there.csv' (FORMAT csv)")
    query(timescale, "COPY telemetry FROM '/tmp/gone.csv' (FORMAT csv)")
    assert query(timescale, "SELECT count(*), count(DISTINCT seq) FROM telemetry") == [(100, 100)]


def test_a_day_is_made_of_its_records(timescale: str) -> None:
    """Averages of the day are those of the records, though hours hold different numbers of them."""
    start = datetime(2031, 3, 1, 22, tzinfo=UTC)
    insert(timescale, "telemetry", rows("telemetry", [*range(0, 1800, 3), *range(1800, 9000, 30)], start))
    query(timescale, "UPDATE telemetry SET soc = 0.1 + seq / 10000.0, flags = seq % 4 RETURNING seq")
    columns = "records, soc_avg, soc_min, soc_max, soh_last, charge_cycles_last, flags"
    exact = query(
        timescale,
        "SELECT count(*), avg(soc), min(soc), max(soc), last(soh, ts), last(charge_cycles, ts), bit_or(flags)"
        " FROM telemetry GROUP BY date_trunc('day', ts AT TIME ZONE 'UTC') ORDER BY 5, min(ts)",
    )
    for _ in range(2):  # computed when asked for, then from what the refresh has stored
        found = query(timescale, f"SELECT {columns} FROM telemetry_daily ORDER BY day")
        assert len(found) == 2
        for ours, theirs in zip(found, exact, strict=True):
            assert [float(value) for value in ours] == pytest.approx([float(value) for value in theirs], rel=1e-12)
        refresh(timescale)


def refresh(url: str) -> None:
    """Both views as the policies do it, hours before days."""
    for view in ("telemetry_hourly", "telemetry_daily"):
        query(url, f"CALL refresh_continuous_aggregate('{view}', NULL, NULL)")


def test_old_chunks_become_columns_and_still_take_no_row_twice(timescale: str) -> None:
    insert(timescale, "telemetry", rows("telemetry", range(100)))
    run_policy(timescale, "policy_compression")
    assert compressed_chunks(timescale) == [False]  # simulated in the past, but written just now
    age_chunks(timescale, "2 days")
    run_policy(timescale, "policy_compression")
    assert compressed_chunks(timescale) == [True]
    assert insert(timescale, "telemetry", rows("telemetry", range(50, 150))) == 50
    assert query(timescale, "SELECT count(*), count(DISTINCT seq) FROM telemetry") == [(150, 150)]


def test_retention_goes_by_the_age_of_the_chunk(timescale: str) -> None:
    insert(timescale, "telemetry", rows("telemetry", range(10)))
    run_policy(timescale, "twin_retention")
    assert query(timescale, "SELECT count(*) FROM telemetry") == [(10,)]
    age_chunks(timescale, "11 years")
    run_policy(timescale, "twin_retention")
    assert query(timescale, "SELECT count(*) FROM telemetry") == [(0,)]


@pytest.mark.parametrize("refreshed", [False, True])
@pytest.mark.parametrize("start", [datetime(2019, 1, 1, tzinfo=UTC), datetime(2041, 1, 1, tzinfo=UTC)])
def test_hourly_view_in_simulated_past_and_future(timescale: str, start: datetime, refreshed: bool) -> None:
    insert(timescale, "telemetry", rows("telemetry", range(0, 7200, 20), start))
    if refreshed:
        run_policy(timescale, "policy_refresh_continuous_aggregate")
    found = query(
        timescale,
        "SELECT vehicle_id, hour, records, round(soc_avg::numeric, 6), distance_driven, charge_cycles_last"
        " FROM telemetry_hourly ORDER BY hour",
    )
    assert [(row[1], row[2]) for row in found] == [(start + timedelta(hours=hour), 90) for hour in range(4)]
    assert {row[0] for row in found} == {"EV-000001"}
    assert float(found[0][3]) == pytest.approx(0.5)
    assert found[0][4] == pytest.approx(1780)
    assert found[0][5] == 1780


def run_policy(url: str, name: str) -> None:
    """What the background worker would do."""
    for (job,) in query(url, "SELECT job_id FROM timescaledb_information.jobs WHERE proc_name = %s", name):
        query(url, f"CALL run_job({job})")


def age_chunks(url: str, by: str) -> None:
    query(url, f"UPDATE _timescaledb_catalog.chunk SET creation_time = creation_time - INTERVAL '{by}' RETURNING id")


def compressed_chunks(url: str) -> list[bool]:
    found = query(
        url, "SELECT is_compressed FROM timescaledb_information.chunks WHERE hypertable_name = 'telemetry' ORDER BY 1"
    )
    return [compressed for (compressed,) in found]


# Rows and queries


def rows(
    stream: Stream, seqs: Iterable[int], start: datetime = datetime(2025, 6, 1, tzinfo=UTC)
) -> list[tuple[object, ...]]:
    """One vehicle, a record every two seconds; the numbers are 0.5, accumulators count up with seq."""
    counting = {"charge_cycles", "distance_traveled"}

    def value(name: str, arrow: str, seq: int) -> object:
        if name == "vehicle_id":
            return "EV-000001"
        if name == "seq":
            return seq
        if name == "ts":
            return start + timedelta(seconds=2 * seq)
        if sql_type(arrow) == "text":
            return "x"
        return float(seq) if name in counting else 0 if arrow == "int32" else 0.5

    return [tuple(value(field.name, str(field.type), seq) for field in FIELDS[stream]) for seq in seqs]


def insert(url: str, stream: Stream, records: list[tuple[object, ...]]) -> int:
    """How many of them were new."""
    names = ", ".join(field.name for field in FIELDS[stream])
    sql = f"INSERT INTO {stream} ({names}) VALUES %s ON CONFLICT DO NOTHING"
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        before = _count(cursor, stream)
        execute_values(cursor, sql, records, page_size=100)  # TimescaleDB in WebAssembly takes no long messages
        return _count(cursor, stream) - before


def _count(cursor: psycopg2.extensions.cursor, stream: Stream) -> int:
    cursor.execute(f"SELECT count(*) FROM {stream}")
    [(count,)] = cursor.fetchall()
    return int(count)


def query(url: str, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(sql, parameters or None)
        return cursor.fetchall() if cursor.description else []
