"""One contract for every sink, on real servers: acknowledged is there, again does no harm, no is a clear word."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg2
import pytest

from actors.sinks import KafkaTarget, MqttTarget, SinkRefused, SinkUnavailable, Target, TimescaleTarget
from tests.integration.witness import MqttWitness, Received, from_database, from_kafka
from tests.services import Kafka, Mosquitto, Postgres, Service
from tests.support import make_batch

pytestmark = pytest.mark.services


@dataclass
class Peer:
    """A sink's settings, the server behind them, and a witness of what arrived there."""

    target: Target
    server: Service
    received: Callable[[str, int], Received]
    watching: Callable[[], None] = lambda: None
    exactly_once: bool = False


@pytest.fixture(params=["kafka", "mqtt", "timescale"])
def peer(request: pytest.FixtureRequest) -> Iterator[Peer]:
    if request.param == "kafka":
        kafka: Kafka = request.getfixturevalue("kafka")
        servers = kafka.bootstrap_servers
        yield Peer(KafkaTarget.parse(servers), kafka, lambda run, n: from_kafka(servers, "ev-telemetry", run, n))
    elif request.param == "mqtt":
        mosquitto: Mosquitto = request.getfixturevalue("mosquitto")
        witness = MqttWitness(mosquitto.port, "ev/battery/telemetry/+")
        target = MqttTarget.parse(f"mqtt://127.0.0.1:{mosquitto.port}")
        yield Peer(target, mosquitto, lambda _, n: witness.wait_for(n), witness.wait_subscribed)
        witness.close()
    else:
        postgres: Postgres = request.getfixturevalue("postgres")
        url: str = request.getfixturevalue("postgres_database")
        yield Peer(TimescaleTarget.parse(url), postgres, lambda run, _: from_database(url, run), exactly_once=True)


@pytest.fixture
def run_id(unique_name: Callable[[str], str]) -> str:
    return unique_name("run")


def test_what_is_acknowledged_is_there_in_order(peer: Peer, run_id: str):
    sink = peer.target.sink("log")
    sink.open()
    for start in (0, 20, 40):
        batch = make_batch(10, range(start, start + 20), run_id=run_id)
        assert sink.deliver("telemetry", 0, batch, (start + 20) * 10) == 0
    sink.close()
    received = peer.received(run_id, 600)
    assert len(received.ids) == 600
    assert set(received.ids.values()) == {1}
    assert received.in_order()


def test_a_batch_delivered_twice_does_no_harm(peer: Peer, run_id: str):
    sink = peer.target.sink("log")
    sink.open()
    batch = make_batch(5, range(10), run_id=run_id)
    first, again = (sink.deliver("telemetry", 0, batch, 50) for _ in range(2))
    sink.close()
    received = peer.received(run_id, 50)
    assert first == 0
    assert len(received.ids) == 50
    assert received.in_order()
    if peer.exactly_once:
        assert again == 50
        assert set(received.ids.values()) == {1}


def test_a_cursor_kept_by_the_peer_moves_with_the_rows(peer: Peer, run_id: str):
    sink = peer.target.sink("log-a")
    sink.open()
    before = sink.position("telemetry", 3)
    sink.deliver("telemetry", 3, make_batch(5, range(10), run_id=run_id), 50)
    after, other = sink.position("telemetry", 3), sink.position("telemetry", 4)
    sink.close()
    elsewhere = peer.target.sink("log-b")
    elsewhere.open()
    assert elsewhere.position("telemetry", 3) in (None, 0)
    elsewhere.close()
    assert (before, after, other) == ((0, 50, 0) if peer.exactly_once else (None, None, None))


def test_both_streams_have_their_place(peer: Peer, run_id: str):
    sink = peer.target.sink("log")
    sink.open()
    assert sink.deliver("predictions", 0, make_batch(4, range(5), stream="predictions", run_id=run_id), 20) == 0
    sink.close()


def test_a_peer_that_dies_is_unavailable_and_comes_back(peer: Peer, run_id: str):
    sink = peer.target.sink("log")
    sink.open()
    sink.deliver("telemetry", 0, make_batch(2, range(3), run_id=run_id), 6)
    peer.server.kill()
    try:
        with pytest.raises(SinkUnavailable, match="does not answer") as error:
            peer.target.check()
        assert "\n" not in str(error.value)
        sink.close()
        with pytest.raises(SinkUnavailable):
            peer.target.sink("log").open()
    finally:
        peer.server.restart().wait_ready()
    peer.watching()
    again = peer.target.sink("log")
    again.open()
    again.deliver("telemetry", 0, make_batch(2, range(3, 6), run_id=run_id), 12)
    again.close()
    assert len(peer.received(run_id, 12).ids) == 12


def test_check_tells_what_answers(peer: Peer):
    assert "\n" not in peer.target.check()
    assert str(peer.server.port) in peer.target.check()


def test_nothing_listens(free_port: int):
    for target in (
        KafkaTarget.parse(f"127.0.0.1:{free_port}"),
        MqttTarget.parse(f"mqtt://127.0.0.1:{free_port}"),
        TimescaleTarget.parse(f"postgresql://twin@127.0.0.1:{free_port}/twin_data"),
    ):
        with pytest.raises(SinkUnavailable, match="does not answer") as error:
            target.check()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("user", "password", "database", "says"),
    [
        ("twin", "wrong", "twin_data", "password authentication failed"),
        ("nobody", "x", "twin_data", "authentication failed"),
        ("twin", None, "nowhere", "does not exist"),
    ],
)
def test_a_database_that_refuses(postgres: Postgres, user: str, password: str | None, database: str, says: str):
    secret = password or postgres.password
    target = TimescaleTarget.parse(f"postgresql://{user}:{secret}@127.0.0.1:{postgres.port}/{database}")
    with pytest.raises(SinkRefused, match=says) as error:
        target.check()
    with pytest.raises(SinkRefused, match=says):
        target.sink("log").open()
    assert secret not in str(error.value) + repr(target)
    assert "\n" not in str(error.value)


def test_timescaledb_gets_hypertables_and_keeps_exactly_once(timescaledb_database: str, run_id: str):
    """The whole sink on TimescaleDB itself: migrations, COPY, conflict, cursor."""
    target = TimescaleTarget.parse(timescaledb_database)
    from actors.sinks.timescale import migrate

    assert migrate(target)
    connection = psycopg2.connect(target.dsn())
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT hypertable_name FROM timescaledb_information.hypertables ORDER BY 1")
            assert {row[0] for row in cursor.fetchall()} >= {"telemetry", "predictions"}
    finally:
        connection.close()
