"""Through a PgBouncer that gives each transaction any of its connections: all that talks to the database."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import psycopg2
import pytest

from actors.delivery.sinks import SinkOptions
from actors.delivery.sinks.timescale import TimescaleTarget, migrate
from tests.command import Twin
from tests.services import Kafka, Postgres
from tests.services.fixtures import needed
from tests.services.pgbouncer import PgBouncer
from tests.support import make_batch

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]


@pytest.fixture(params=["", "extra_float_digits,options"], ids=["refuses", "ignores"])
def bouncer(request: pytest.FixtureRequest, postgres: Postgres, postgres_database: str) -> Iterator[PgBouncer]:
    server = PgBouncer(postgres, postgres_database.rpartition("/")[2], request.param)
    try:
        with needed():
            server.start()
        yield server.wait_ready()
    finally:
        server.remove()


def locks(url: str) -> int:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
        [(found,)] = cursor.fetchall()
        return int(found)


def test_several_migrate_at_once_and_no_lock_is_left(bouncer: PgBouncer, postgres_database: str) -> None:
    """A lock of a session would stay with one of the pooler's connections, and stop whoever comes next."""
    target = TimescaleTarget.parse(bouncer.url, SinkOptions())
    failed: list[BaseException] = []

    def migrating() -> None:
        try:
            migrate(target)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=migrating) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert locks(postgres_database) == 0
    migrate(TimescaleTarget.parse(postgres_database, SinkOptions()))  # nothing is left to do


def test_what_was_delivered_before_is_known(bouncer: PgBouncer) -> None:
    """The staging table of one transaction is not there in the next."""
    target = TimescaleTarget.parse(bouncer.url, SinkOptions())
    for _ in range(3):
        sinks = [target.sink("log", "telemetry") for _ in range(3)]
        for sink in sinks:
            sink.open()
        receipts = [sink.deliver(0, make_batch(2, range(5)), 10) for sink in sinks for _ in range(2)]
        for sink in sinks:
            sink.close()
        assert all(not receipt.dead for receipt in receipts)
    assert all(receipt.duplicates == 10 for receipt in receipts)


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
def test_a_run_its_ledger_and_its_minutes(bouncer: PgBouncer, kafka: Kafka, twin: Twin, tmp_path: object) -> None:
    kafka.empty()
    servers = ("--kafka", kafka.bootstrap_servers, "--timescale", bouncer.url)
    options = ("--vehicles", 20, "--duration", "2min", "--metrics-port", 0, "--no-report", "--no-predict")
    made = twin("run", "--out", f"{tmp_path}/run", *options, *servers)
    assert made.code == 0, made.err
    counted = twin("ledger", f"{tmp_path}/run", "--verify", *servers)
    assert counted.code == 0, counted.out + counted.err
    doctor = twin("doctor", *servers, "--metrics-port", 0)
    assert "ok    timescale" in doctor.out
    assert "ok    clock" in doctor.out
    aggregated = twin("consume", *servers, "--until-idle", "3s", "--metrics-port", 0, "--group", bouncer.url[-9:])
    assert aggregated.code == 0, aggregated.err
    with closing(psycopg2.connect(bouncer.url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*), (SELECT sum(records) FROM fleet_minute) FROM telemetry")
        assert cursor.fetchone() == (1200, 1200)
