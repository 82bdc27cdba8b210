"""One contract for every sink, on real servers: acknowledged is there, again does no harm, no is a clear word."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import paho.mqtt.client as paho
import psycopg2
import pyarrow as pa
import pytest
from confluent_kafka import KafkaError
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType
from paho.mqtt.enums import CallbackAPIVersion
from psycopg2.extras import execute_values

from actors.delivery.shipper import Shipper
from actors.delivery.sinks import Receipt, Sink, SinkError, SinkOptions, SinkRefused, SinkUnavailable, Target, reader_of
from actors.delivery.sinks.kafka import KafkaTarget
from actors.delivery.sinks.kafka import _translate as translate_kafka
from actors.delivery.sinks.mqtt import MqttTarget
from actors.delivery.sinks.timescale import SQL_FOLDER, TimescaleSink, TimescaleTarget, migrate
from datasets.log import LogWriter, log_directory
from datasets.log.cursor import Cursor, CursorFile
from datasets.schema import STREAMS, Stream
from tests.integration.witness import MqttWitness, Received, from_database, from_kafka
from tests.services import Kafka, Mosquitto, Postgres, Service
from tests.services.proxy import Proxy
from tests.support import HANG_S, make_batch, wait_until

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]


@dataclass
class Peer:
    """A sink's settings, the server behind them, and a witness of what arrived there.

    `at` is the same target at another port. `poison` makes one value of `mode` that the peer cannot take. `predicted`
    is what arrived of the other stream. `reconnects`: its client does so by itself, and a cut is no error.
    """

    target: Target
    server: Service
    received: Callable[[str, int], Received]
    at: Callable[[int], Target]
    predicted: Callable[[str, int], Received]
    poison: str
    reason: str
    watching: Callable[[], None] = lambda: None
    saved: Callable[[], None] = lambda: None
    exactly_once: bool = False
    reconnects: bool = False


@pytest.fixture(params=["kafka", "mqtt", "timescale"])
def peer(request: pytest.FixtureRequest) -> Iterator[Peer]:
    if request.param == "kafka":
        kafka: Kafka = request.getfixturevalue("kafka")
        servers = kafka.bootstrap_servers
        yield Peer(
            KafkaTarget.parse(servers, SinkOptions()),
            kafka,
            lambda run, n: from_kafka(servers, "ev-telemetry", run, n),
            lambda port: KafkaTarget.parse(f"127.0.0.1:{port}", SinkOptions()),
            lambda run, n: from_kafka(servers, "ev-predictions", run, n),
            "x" * 2_000_000,
            "too large",
            reconnects=True,
        )
    elif request.param == "mqtt":
        mosquitto: Mosquitto = request.getfixturevalue("small_mosquitto")
        witness = MqttWitness(mosquitto.port, "ev/battery/telemetry/+")
        oracle = MqttWitness(mosquitto.port, "ev/battery/prediction/+")
        yield Peer(
            MqttTarget.parse(f"mqtt://127.0.0.1:{mosquitto.port}", SinkOptions()),
            mosquitto,
            lambda _, n: witness.wait_for(n),
            lambda port: MqttTarget.parse(f"mqtt://127.0.0.1:{port}", SinkOptions()),
            lambda _, n: oracle.wait_for(n),
            "x" * 200_000,
            "too large",
            witness.wait_subscribed,
            mosquitto.wait_saved,
        )
        witness.close()
        oracle.close()
    else:
        postgres: Postgres = request.getfixturevalue("postgres")
        url: str = request.getfixturevalue("postgres_database")
        yield Peer(
            TimescaleTarget.parse(url, SinkOptions()),
            postgres,
            lambda run, _: from_database(url, run),
            lambda port: TimescaleTarget.parse(url.replace(f":{postgres.port}/", f":{port}/"), SinkOptions()),
            lambda run, _: from_database(url, run, "predictions"),
            "\0",
            "invalid byte sequence",
            exactly_once=True,
        )


class ConfiguredMosquitto(Mosquitto):
    """A broker of one's own, with more lines of configuration."""

    def __init__(self, *lines: str) -> None:
        super().__init__()
        self._lines = lines

    def _prepare(self) -> None:
        fresh = not self._config.exists()
        super()._prepare()
        if fresh:
            with open(self._config, "a") as file:
                file.writelines(f"{line}\n" for line in self._lines)


@pytest.fixture(scope="module")
def small_mosquitto(mosquitto: Mosquitto) -> Iterator[Mosquitto]:
    """It takes no packet over 100 kB, and says so to whoever connects."""
    with own_mosquitto("max_packet_size 100000") as broker:
        yield broker


@contextmanager
def own_mosquitto(*lines: str) -> Iterator[Mosquitto]:
    broker = ConfiguredMosquitto(*lines)
    try:
        yield broker.start().wait_ready()
    finally:
        broker.remove()


@pytest.fixture
def proxy(peer: Peer) -> Iterator[Proxy]:
    with Proxy(peer.server.port) as proxy:
        yield proxy


def patient(target: Target, seconds: float) -> Target:
    assert isinstance(target, KafkaTarget | MqttTarget | TimescaleTarget)
    return replace(target, patience_s=seconds)


@contextmanager
def opened(target: Target, log: str = "log", stream: Stream = "telemetry") -> Iterator[Sink]:
    sink = target.sink(log, stream)
    sink.open()
    try:
        yield sink
    finally:
        sink.close()


def poisoned(batch: pa.RecordBatch, rows: set[int], value: str) -> pa.RecordBatch:
    column = batch.schema.get_field_index("mode")
    modes = [value if row in rows else mode for row, mode in enumerate(batch.column(column).to_pylist())]
    poison = pa.array(modes).dictionary_encode().cast(batch.schema.field(column).type)
    return batch.set_column(column, batch.schema.field(column), poison)


@pytest.fixture
def run_id(unique_name: Callable[[str], str]) -> str:
    return unique_name("run")


def test_what_is_acknowledged_is_there_in_order(peer: Peer, run_id: str) -> None:
    sink = peer.target.sink("log", "telemetry")
    sink.open()
    for start in (0, 20, 40):
        batch = make_batch(10, range(start, start + 20), run_id=run_id)
        receipt = sink.deliver(0, batch, (start + 20) * 10)
        assert (receipt.duplicates, receipt.dead) == (0, ())
    sink.close()
    received = peer.received(run_id, 600)
    assert len(received.ids) == 600
    assert set(received.ids.values()) == {1}
    assert received.in_order()


def test_a_batch_delivered_twice_does_no_harm(peer: Peer, run_id: str) -> None:
    sink = peer.target.sink("log", "telemetry")
    sink.open()
    batch = make_batch(5, range(10), run_id=run_id)
    first, again = (sink.deliver(0, batch, 50) for _ in range(2))
    sink.close()
    received = peer.received(run_id, 50)
    assert (first.duplicates, first.dead) == (0, ())
    assert len(received.ids) == 50
    assert received.in_order()
    if peer.exactly_once:
        assert again == Receipt(50)
        assert set(received.ids.values()) == {1}


def test_a_cursor_kept_by_the_peer_moves_with_the_rows(peer: Peer, run_id: str) -> None:
    sink = peer.target.sink("log-a", "telemetry")
    sink.open()
    before = sink.position(3)
    sink.deliver(3, make_batch(5, range(10), run_id=run_id), 50)
    after, other = sink.position(3), sink.position(4)
    sink.close()
    elsewhere = peer.target.sink("log-b", "telemetry")
    elsewhere.open()
    assert elsewhere.position(3) in (None, 0)
    elsewhere.close()
    assert (before, after, other) == ((0, 50, 0) if peer.exactly_once else (None, None, None))


def test_both_streams_have_their_place(peer: Peer, run_id: str) -> None:
    batches: dict[Stream, pa.RecordBatch] = {
        "predictions": make_batch(4, range(5), stream="predictions", run_id=run_id),
        "telemetry": make_batch(3, range(5), run_id=run_id),
    }
    for stream, batch in batches.items():
        with opened(peer.target, stream=stream) as sink:
            receipt = sink.deliver(0, batch, batch.num_rows)
            assert (receipt.duplicates, receipt.dead) == (0, ())
    for received, vehicles in ((peer.predicted(run_id, 20), 4), (peer.received(run_id, 15), 3)):
        assert {vehicle: len(seqs) for vehicle, seqs in received.order.items()} == {
            f"EV-00000{number}": 5 for number in range(vehicles)
        }


@contextmanager
def soon_given_up() -> Iterator[None]:
    """Where nobody answers, half a second is enough to know it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("actors.delivery.sinks.kafka._CONNECT_TIMEOUT_S", 0.5)
        yield


def test_a_peer_that_dies_is_unavailable_and_comes_back(peer: Peer, run_id: str) -> None:
    sink = peer.target.sink("log", "telemetry")
    sink.open()
    sink.deliver(0, make_batch(2, range(3), run_id=run_id), 6)
    assert len(peer.received(run_id, 6).ids) == 6  # Mosquitto acknowledges before it has saved or passed on
    peer.saved()
    peer.server.kill()
    try:
        with soon_given_up():
            with pytest.raises(SinkUnavailable, match="does not answer") as error:
                peer.target.check()
            assert "\n" not in str(error.value)
            sink.close()
            with pytest.raises(SinkUnavailable):
                peer.target.sink("log", "telemetry").open()
    finally:
        peer.server.restart()
    peer.watching()
    again = peer.target.sink("log", "telemetry")
    again.open()
    again.deliver(0, make_batch(2, range(3, 6), run_id=run_id), 12)
    again.close()
    assert len(peer.received(run_id, 12).ids) == 12


def ship(target: Target, batches: list[pa.RecordBatch], disturb: Callable[[int], None]) -> list[str]:
    """What the shipper does, in one thread: on any error a new sink, and the whole batch again. The errors."""
    errors: list[str] = []
    sink: Sink | None = None
    index = 0
    while index < len(batches):
        try:
            if sink is None:
                sink = target.sink("log", "telemetry")
                sink.open()
            disturb(index)
            sink.deliver(0, batches[index], (index + 1) * batches[0].num_rows)
            index += 1
        except SinkUnavailable as error:
            errors.append(str(error))
            assert len(errors) < 30, errors
            if sink is not None:
                sink.close()
            sink = None
    assert sink is not None
    sink.close()
    return errors


def test_a_connection_cut_at_any_point_loses_nothing(peer: Peer, proxy: Proxy, run_id: str) -> None:
    batches = [make_batch(10, range(10 * n, 10 * n + 10), run_id=run_id) for n in range(12)]
    shares = [0.0, 0.02, 0.1, 0.25, 0.5, 0.75]  # of the bytes of a batch
    tried: dict[int, int] = {}  # by batch: bytes sent before it, when it was first tried

    def disturb(index: int) -> None:
        if index not in tried:
            tried[index] = proxy.sent
            if index % 2:
                size = proxy.sent - tried[index - 1]
                proxy.cut_after(1 + int(shares[index // 2] * size))

    errors = ship(patient(peer.at(proxy.port), 5), batches, disturb)
    assert proxy.cuts == len(shares), "every cut came in the midst of its batch"
    assert peer.reconnects or len(errors) >= len(shares), errors
    assert all("\n" not in error for error in errors)
    received = peer.received(run_id, 1200)
    assert len(received.ids) == 1200
    assert received.in_order()
    if peer.exactly_once:
        assert set(received.ids.values()) == {1}


def test_a_sink_dropped_between_any_two_batches(peer: Peer, run_id: str) -> None:
    for number in range(5):
        with opened(peer.target) as sink:
            batch = make_batch(4, range(number * 5, number * 5 + 5), run_id=run_id)
            assert sink.deliver(0, batch, (number + 1) * 20).duplicates == 0
    received = peer.received(run_id, 100)
    assert len(received.ids) == 100
    assert received.in_order()


def test_a_slow_peer_is_waited_for(peer: Peer, proxy: Proxy, run_id: str) -> None:
    with opened(patient(peer.at(proxy.port), 10)) as sink:
        sink.deliver(0, make_batch(10, range(1), run_id=run_id), 10)
        proxy.throttle(60_000)
        begun = time.monotonic()
        sink.deliver(0, make_batch(10, range(1, 31), run_id=run_id), 310)
        assert time.monotonic() - begun > 0.4
        proxy.resume()
    received = peer.received(run_id, 310)
    assert len(received.ids) == 310
    assert received.in_order()


def test_a_stalled_peer_is_unavailable_in_time(peer: Peer, proxy: Proxy, run_id: str) -> None:
    target = patient(peer.at(proxy.port), 1.5)
    with opened(target) as sink:
        sink.deliver(0, make_batch(10, range(1), run_id=run_id), 10)
        proxy.stall()
        begun = time.monotonic()
        with pytest.raises(SinkUnavailable, match=r"for 1\.5 s") as error:
            sink.deliver(0, make_batch(10, range(1, 11), run_id=run_id), 110)
        assert 1 < time.monotonic() - begun < HANG_S
        assert "\n" not in str(error.value)
    proxy.resume()
    with opened(target) as sink:
        sink.deliver(0, make_batch(10, range(1, 11), run_id=run_id), 110)
    received = peer.received(run_id, 110)
    assert len(received.ids) == 110
    assert received.in_order()


def test_close_ends_a_delivery_that_waits(peer: Peer, proxy: Proxy, run_id: str) -> None:
    sink = patient(peer.at(proxy.port), 10 * HANG_S).sink("log", "telemetry")
    sink.open()
    sink.deliver(0, make_batch(10, range(1), run_id=run_id), 10)
    proxy.stall()
    ended: list[BaseException | None] = []

    def deliver() -> None:
        try:
            sink.deliver(0, make_batch(10, range(1, 11), run_id=run_id), 110)
            ended.append(None)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=deliver)
    thread.start()
    time.sleep(0.5)
    begun = time.monotonic()
    sink.close()
    assert time.monotonic() - begun < HANG_S
    thread.join(timeout=HANG_S)
    assert not thread.is_alive()
    assert isinstance(ended[0], SinkUnavailable)
    sink.close()  # once more does no harm


def test_a_record_refused_for_itself_does_not_hold_up_the_rest(peer: Peer, run_id: str) -> None:
    rows = {0, 37, 38, 99}
    with opened(peer.target) as sink:
        sink.deliver(0, make_batch(10, range(1), run_id=run_id), 10)
        batch = poisoned(make_batch(10, range(1, 11), run_id=run_id), rows, peer.poison)
        receipt = sink.deliver(0, batch, 110)
        sink.deliver(0, make_batch(10, range(11, 12), run_id=run_id), 120)
    assert {letter.row for letter in receipt.dead} == rows
    assert all(peer.reason in letter.reason.lower() for letter in receipt.dead)
    assert all("\n" not in letter.reason for letter in receipt.dead)
    assert receipt.duplicates == 0
    received = peer.received(run_id, 116)
    assert len(received.ids) == 116
    assert received.in_order()


def test_the_shipper_keeps_dead_letters_and_counts_each_once(peer: Peer, run_id: str, tmp_path: Path) -> None:
    writer = LogWriter(log_directory(tmp_path, "telemetry", 0))
    writer.append(poisoned(make_batch(10, range(10), run_id=run_id), {3, 50}, peer.poison), 0)
    file = CursorFile(tmp_path, reader_of(peer.target), "telemetry", 0)
    for repetition in range(2):
        if repetition:
            writer.append(make_batch(10, range(10, 11), run_id=run_id), 1)
            file.save(Cursor(0, 0, 0))  # as if we had died before the cursor was saved
        shipper = Shipper(peer.target, tmp_path, "log", {0: (0, 0)})
        shipper.start()
        wait_until(lambda: file.load().position == 100 + 10 * repetition, lambda: shipper.status())  # noqa: B023
        status = shipper.stop()
        assert (status.dead, status.duplicates, status.delivered("telemetry")) == (2, 0, 100 + 10 * repetition)
        assert replace(file.load(), unsettled=0) == Cursor(100 + 10 * repetition, 0, 2)
    writer.close()
    letters = tmp_path / "dead-letters" / reader_of(peer.target) / "telemetry-shard-0000.jsonl"
    lines = [json.loads(line) for line in letters.read_text().splitlines()]
    assert [line["position"] for line in lines] == [3, 50]
    assert lines[0]["id"] == f"{run_id}/EV-000003/0"
    assert lines[0]["payload"]["mode"] == peer.poison
    assert peer.reason in lines[0]["reason"].lower()
    assert len(peer.received(run_id, 108).ids) == 108


def test_bursts_are_acknowledged_and_their_latency_is_counted(peer: Peer, run_id: str, tmp_path: Path) -> None:
    """A thousand vehicles at one instant, six times. How soon is for benchmarks/sinks.py to say."""
    writer = LogWriter(log_directory(tmp_path, "telemetry", 0))
    shipper = Shipper(peer.target, tmp_path, "log", {0: (0, 0)})
    shipper.start()
    for burst in range(6):
        writer.append(make_batch(1000, range(burst, burst + 1), run_id=run_id), burst)
        wait_until(lambda: shipper.status().delivered("telemetry") == 1000 * (burst + 1), lambda: shipper.status())  # noqa: B023
    status = shipper.stop()
    writer.close()
    assert sum(status.latencies.counts) == 6000
    assert status.latencies.sum_s > 0


def test_check_tells_what_answers(peer: Peer) -> None:
    assert "\n" not in peer.target.check()
    assert str(peer.server.port) in peer.target.check()


def test_nothing_listens(free_port: int) -> None:
    targets = (
        KafkaTarget.parse(f"127.0.0.1:{free_port}", SinkOptions()),
        MqttTarget.parse(f"mqtt://127.0.0.1:{free_port}", SinkOptions()),
        TimescaleTarget.parse(f"postgresql://twin@127.0.0.1:{free_port}/twin_data", SinkOptions()),
    )
    for target in targets:
        with soon_given_up(), pytest.raises(SinkUnavailable, match="does not answer") as error:
            target.check()
        assert "\n" not in str(error.value)


def test_an_mqtt_broker_that_says_nothing(mosquitto: Mosquitto) -> None:
    """It takes the connection and is silent: overloaded, or no broker at all."""
    with Proxy(mosquitto.port) as proxy:
        proxy.stall()
        with pytest.raises(SinkUnavailable, match=r"accepts no MQTT session \(no answer in 5 s\)"):
            MqttTarget.parse(f"mqtt://127.0.0.1:{proxy.port}", SinkOptions()).check()


@pytest.mark.parametrize(
    ("user", "password", "database", "says"),
    [
        ("twin", "wrong", "twin_data", "password authentication failed"),
        ("nobody", "x", "twin_data", "authentication failed"),
        ("twin", None, "nowhere", "does not exist"),
    ],
)
def test_a_database_that_refuses(postgres: Postgres, user: str, password: str | None, database: str, says: str) -> None:
    secret = password or postgres.password
    target = TimescaleTarget.parse(f"postgresql://{user}:{secret}@127.0.0.1:{postgres.port}/{database}", SinkOptions())
    with pytest.raises(SinkRefused, match=says) as error:
        target.check()
    with pytest.raises(SinkRefused, match=says):
        target.sink("log", "telemetry").open()
    assert secret not in str(error.value) + repr(target)
    assert "\n" not in str(error.value)


@pytest.fixture
def writer(postgres: Postgres, postgres_database: str) -> Iterator[str]:
    """The database for a user who may connect, and no more."""
    name = f"writer_{uuid.uuid4().hex[:8]}"
    with closing(postgres._admin()) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'hush'")
        yield postgres_database.replace(f"//twin:{postgres.password}@", f"//{name}:hush@")
        with closing(psycopg2.connect(postgres_database)) as owner, owner, owner.cursor() as of_owner:
            of_owner.execute(f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {name}")
        cursor.execute(f"DROP ROLE {name}")


def test_tables_that_somebody_else_has_made(postgres_database: str, writer: str, run_id: str) -> None:
    """The rights of cluster/sql/README.md are enough to deliver, and none to create."""
    target = TimescaleTarget.parse(writer, SinkOptions())
    with pytest.raises(SinkRefused, match="have them made by somebody who may"):
        target.check()
    with pytest.raises(SinkRefused, match="have them made by somebody who may"):
        target.sink("log", "telemetry").open()
    migrate(TimescaleTarget.parse(postgres_database, SinkOptions()))
    [rights] = re.findall(r"```sql\n(GRANT .*?)```", (SQL_FOLDER / "README.md").read_text(), re.DOTALL)
    with closing(psycopg2.connect(postgres_database)) as owner, owner, owner.cursor() as cursor:
        cursor.execute(rights.replace("writer", target.user))
    assert target.check()
    for stream in STREAMS:
        with opened(target, stream=stream) as sink:
            for first in (0, 5):
                batch = make_batch(2, range(first, first + 5), run_id=run_id, stream=stream)
                assert sink.deliver(0, batch, 2 * first + 10) == Receipt()
            assert sink.deliver(0, batch, 20) == Receipt(10)


def insert_instead_of_copy(cursor: psycopg2.extensions.cursor, table: str, rows: pa.RecordBatch) -> None:
    """For TimescaleDB in WebAssembly, which ends the connection at a COPY and takes no long messages."""
    values = [tuple(row.values()) for row in rows.to_pylist()]
    sql = f"INSERT INTO {table} ({', '.join(rows.schema.names)}) VALUES %s"
    execute_values(cursor, sql, values, page_size=100)


def test_timescaledb_keeps_each_record_once(
    timescaledb_database: str, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sink on hypertables, all but the COPY itself: new rows, rows again by both ways in, some of each, the cursor;
    then on a chunk that has become columns."""
    monkeypatch.setattr(TimescaleSink, "_copy", lambda _sink, *copied: insert_instead_of_copy(*copied))
    target = TimescaleTarget.parse(timescaledb_database, SinkOptions())
    assert migrate(target), "it is TimescaleDB"
    batches = [make_batch(5, range(10 * n, 10 * n + 10), run_id=run_id) for n in range(4)]
    with opened(target) as sink:
        assert sink.deliver(0, batches[0], 50) == Receipt()
        assert sink.deliver(0, batches[1], 100) == Receipt()  # straight into the table
        assert sink.deliver(0, batches[1], 100) == Receipt(50)  # refused there, so by way of staging
        assert sink.deliver(0, batches[1], 100) == Receipt(50)
        assert sink.deliver(0, make_batch(5, range(15, 25), run_id=run_id), 125) == Receipt(25)
        assert sink.position(0) == 125
    stored = from_database(timescaledb_database, run_id)
    assert (len(stored.ids), set(stored.ids.values())) == (125, {1})
    into_columns(timescaledb_database)
    with opened(target) as sink:
        assert sink.position(0) == 125
        assert sink.deliver(0, batches[1], 100) == Receipt(50)
        assert sink.position(0) == 125, "a cursor never goes back"
        assert sink.deliver(0, batches[2], 150) == Receipt(25)
        assert sink.deliver(0, batches[3], 200) == Receipt()
    stored = from_database(timescaledb_database, run_id)
    assert (len(stored.ids), set(stored.ids.values())) == (200, {1})


def into_columns(url: str) -> None:
    """Compress every chunk of telemetry, now."""
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute("SELECT count(compress_chunk(chunk)) FROM show_chunks('telemetry') AS chunk")
        [(chunks,)] = cursor.fetchall()
        assert chunks > 0


@contextmanager
def topic_configured(kafka: Kafka, acts: Callable[[], bool], **values: str) -> Iterator[None]:
    """`acts` tells whether the broker acts on it, which it does a little after it has taken the setting."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})

    def alter(operation: AlterConfigOpType) -> None:
        entries = [
            ConfigEntry(name.replace("_", "."), value, incremental_operation=operation)
            for name, value in values.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, "ev-telemetry", incremental_configs=entries)
        for future in admin.incremental_alter_configs([resource]).values():
            future.result(HANG_S)

    with opened(KafkaTarget.parse(kafka.bootstrap_servers, SinkOptions())) as sink:
        sink.deliver(0, make_batch(1, range(1), run_id="makes-the-topic"), 1)
    alter(AlterConfigOpType.SET)
    try:
        wait_until(acts)
        yield
    finally:
        alter(AlterConfigOpType.DELETE)
        wait_until(lambda: not acts())


def test_kafka_topic_that_refuses_what_we_send(kafka: Kafka, run_id: str) -> None:
    """Its limit on the age of a record makes the broker refuse all: no dead letters, a person has to look."""
    target, batch = KafkaTarget.parse(kafka.bootstrap_servers, SinkOptions()), make_batch(500, range(2), run_id=run_id)

    def refuses() -> bool:
        with opened(target) as probe:
            try:
                probe.deliver(0, make_batch(1, range(1), run_id="probe"), 1)
            except SinkRefused:
                return True
        return False

    with (
        topic_configured(kafka, refuses, message_timestamp_before_max_ms="0"),
        opened(target) as sink,
        pytest.raises(SinkRefused, match=r"INVALID_(RECORD|TIMESTAMP)") as error,
    ):
        sink.deliver(0, batch, 1000)
    assert "\n" not in str(error.value)
    with opened(target) as sink:
        sink.deliver(0, batch, 1000)
    assert len(from_kafka(kafka.bootstrap_servers, "ev-telemetry", run_id, 1000).ids) == 1000


def test_kafka_topic_with_a_smaller_limit_than_ours(kafka: Kafka, run_id: str) -> None:
    """The broker then refuses whole requests; what fits is delivered singly, what does not is a dead letter."""
    target = KafkaTarget.parse(kafka.bootstrap_servers, SinkOptions())

    def refuses() -> bool:
        with opened(target) as probe:
            large = poisoned(make_batch(1, range(1), run_id="probe"), {0}, "x" * 3000)
            return bool(probe.deliver(0, large, 1).dead)

    with topic_configured(kafka, refuses, max_message_bytes="2000"), opened(target) as sink:
        batch = poisoned(make_batch(4, range(5), run_id=run_id), {7}, "x" * 3000)
        receipt = sink.deliver(0, batch, 20)
    assert [letter.row for letter in receipt.dead] == [7]
    assert "too large" in receipt.dead[0].reason.lower()
    assert len(from_kafka(kafka.bootstrap_servers, "ev-telemetry", run_id, 19).ids) == 19


def test_topics_of_ones_own(kafka: Kafka, mosquitto: Mosquitto, run_id: str, unique_name: Callable[[str], str]) -> None:
    """Named, divided and rooted as somebody's servers want them; a topic that is there stays as it is."""
    prefix, root = unique_name("fleet") + ".", f"plant/{unique_name('hall')}"
    options = SinkOptions(partitions=3, replication=1)
    target = KafkaTarget.parse(f"{kafka.bootstrap_servers}/{prefix}", options)
    with opened(target) as sink:
        sink.deliver(0, make_batch(5, range(4), run_id=run_id), 20)
    with opened(replace(target, partitions=7)) as sink:
        sink.deliver(0, make_batch(5, range(4, 5), run_id=run_id), 25)
    found = AdminClient({"bootstrap.servers": kafka.bootstrap_servers}).list_topics(timeout=30).topics
    assert len(found[f"{prefix}ev-telemetry"].partitions) == 3
    assert len(from_kafka(kafka.bootstrap_servers, f"{prefix}ev-telemetry", run_id, 25).ids) == 25
    assert f"{prefix}ev-telemetry" in target.check()
    with pytest.raises(SinkRefused, match="REPLICATION_FACTOR"):
        replace(target, prefix=f"{prefix}more.", replication=3).sink("log", "telemetry").open()
    broker = MqttTarget.parse(f"mqtt://127.0.0.1:{mosquitto.port}/{root}", SinkOptions())
    with closing(MqttWitness(mosquitto.port, f"{root}/telemetry/+")) as witness, opened(broker) as rooted:
        rooted.deliver(0, make_batch(5, range(4), run_id=run_id), 20)
        assert len(witness.wait_for(20).ids) == 20
    assert {target.peer, broker.peer} == {f"{kafka.bootstrap_servers}/{prefix}", f"127.0.0.1:{mosquitto.port}/{root}"}


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        (KafkaError._ALL_BROKERS_DOWN, SinkUnavailable, "does not answer"),
        (KafkaError.SASL_AUTHENTICATION_FAILED, SinkRefused, "refused us"),
        (KafkaError._AUTHENTICATION, SinkRefused, "refused us"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, SinkRefused, "refused us"),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, SinkRefused, "refused us"),
        (KafkaError.NOT_ENOUGH_REPLICAS, SinkUnavailable, "takes no records now"),
    ],
)
def test_kafka_errors(code: int, kind: type[SinkError], says: str) -> None:
    error = translate_kafka(KafkaError(code), KafkaTarget.parse("127.0.0.1:9092", SinkOptions()))
    assert type(error) is kind
    assert says in str(error)


def test_a_database_that_is_read_only(postgres: Postgres, postgres_database: str, run_id: str) -> None:
    target = TimescaleTarget.parse(postgres_database, SinkOptions())
    with opened(target) as sink:
        sink.deliver(0, make_batch(2, range(3), run_id=run_id), 6)
    set_read_only(postgres_database, "on")
    try:
        with pytest.raises(SinkUnavailable, match="is read-only") as error:
            target.sink("log", "telemetry").open()
        assert "\n" not in str(error.value)
    finally:
        set_read_only(postgres_database, "off")
    with opened(target) as sink:
        assert sink.deliver(0, make_batch(2, range(3, 6), run_id=run_id), 12) == Receipt()


def set_read_only(url: str, value: str) -> None:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute("SET default_transaction_read_only = off")
        cursor.execute(f"ALTER DATABASE {connection.info.dbname} SET default_transaction_read_only = {value}")


def test_a_table_that_takes_no_row_is_no_heap_of_dead_letters(postgres_database: str, run_id: str) -> None:
    target = TimescaleTarget.parse(postgres_database, SinkOptions())
    with opened(target) as sink:
        with closing(psycopg2.connect(postgres_database)) as connection, connection, connection.cursor() as cursor:
            cursor.execute("ALTER TABLE telemetry ADD COLUMN theirs text NOT NULL")
        with pytest.raises(SinkRefused, match="takes no row"):
            sink.deliver(0, make_batch(20, range(10), run_id=run_id), 200)
        assert sink.position(0) == 0


def test_mqtt_broker_that_denies_our_topics(mosquitto: Mosquitto, tmp_path: Path, run_id: str) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic read #\ntopic write ev/battery/status/#\n")
    with own_mosquitto(f"acl_file {acl}") as broker:
        target = MqttTarget.parse(f"mqtt://127.0.0.1:{broker.port}", SinkOptions())

        def deliver() -> None:
            """Until it is told. One in fifty times Mosquitto 2.0.11 hangs up on a client with two denied messages ("Bad
            socket read/write: Unknown error" in its log) instead of answering; a shipper connects again."""
            while True:
                with opened(target) as sink, suppress(SinkUnavailable):
                    sink.deliver(0, make_batch(2, range(2), run_id=run_id), 4)

        with pytest.raises(SinkRefused, match="refused a record"):
            deliver()


class Subscriber:
    """What a late or a web client sees: (topic, payload, retained)."""

    def __init__(
        self,
        port: int,
        topic: str,
        transport: Literal["tcp", "websockets"] = "tcp",
        login: tuple[str, str] | None = None,
    ) -> None:
        self.seen: list[tuple[str, dict[str, object], bool]] = []
        ready = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, transport=transport)
        if login is not None:
            self._client.username_pw_set(*login)
        self._client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        self._client.on_subscribe = lambda *_: ready.set()
        self._mark = f"ev/battery/telemetry/mark-{uuid.uuid4().hex}"
        self._marked = threading.Event()
        self._client.on_message = lambda _client, _data, message: self._take(message)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert ready.wait(HANG_S)

    def _take(self, message: paho.MQTTMessage) -> None:
        if message.topic == self._mark:
            self._marked.set()
        else:
            self.seen.append((message.topic, json.loads(message.payload), message.retain))

    def all_so_far(self) -> None:
        """Until what the broker had for us by now is here."""
        self._client.publish(self._mark, b"", qos=1)
        assert self._marked.wait(HANG_S)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def test_mqtt_reaches_web_clients(mosquitto: Mosquitto, run_id: str) -> None:
    with closing(Subscriber(mosquitto.websocket_port, "ev/battery/telemetry/+", "websockets")) as web:
        with opened(MqttTarget.parse(f"mqtt://127.0.0.1:{mosquitto.port}", SinkOptions())) as sink:
            sink.deliver(0, make_batch(3, range(4), run_id=run_id), 12)
        wait_until(lambda: len(web.seen) == 12, lambda: web.seen)


@pytest.mark.parametrize("retain", [False, True])
def test_mqtt_last_state_of_each_vehicle(mosquitto: Mosquitto, run_id: str, retain: bool) -> None:
    with own_mosquitto() as broker:
        with opened(replace(MqttTarget.parse(f"mqtt://127.0.0.1:{broker.port}", SinkOptions()), retain=retain)) as sink:
            sink.deliver(0, make_batch(3, range(4), run_id=run_id), 12)
        with closing(Subscriber(broker.port, "ev/battery/telemetry/+")) as late:
            if retain:
                wait_until(lambda: len(late.seen) == 3, lambda: late.seen)
            late.all_so_far()
            assert sorted((topic[-9:], record["seq"], kept) for topic, record, kept in late.seen) == (
                [(f"EV-00000{n}", 3, True) for n in range(3)] if retain else []
            )


CLUSTER = Path(__file__).resolve().parents[2] / "cluster" / "mosquitto"


class ProductionMosquitto(Mosquitto):
    """With the configuration of cluster/mosquitto, at other places and ports."""

    passwords = {"twin": "fleet-secret", "grafana": "reader-secret"}  # noqa: RUF012

    def _prepare(self) -> None:
        text = (CLUSTER / "mosquitto.conf").read_text()
        text = text.replace("listener 1883", f"listener {self.port} 127.0.0.1")
        text = text.replace("listener 9002", f"listener {self.websocket_port} 127.0.0.1")
        text = text.replace("/mosquitto/config", str(self.directory)).replace("/mosquitto/data", str(self.directory))
        self._config.write_text(text + ("user root\n" if os.geteuid() == 0 else ""))
        (self.directory / "acl").write_text((CLUSTER / "acl").read_text())
        (self.directory / "passwords").touch(mode=0o600)
        for user, password in self.passwords.items():
            subprocess.run(["mosquitto_passwd", "-b", str(self.directory / "passwords"), user, password], check=True)

    def _check(self) -> None:
        MqttTarget("127.0.0.1", self.port, "twin", self.passwords["twin"]).check()


def test_the_brokers_production_settings(mosquitto: Mosquitto, run_id: str) -> None:
    broker = ProductionMosquitto()
    try:
        broker.start().wait_ready()
        url = f"127.0.0.1:{broker.port}"
        for login in ("", "twin:wrong@"):
            with pytest.raises(SinkRefused, match="Not authorized"):
                MqttTarget.parse(f"mqtt://{login}{url}", SinkOptions()).check()
        reader = MqttTarget.parse(f"mqtt://grafana:{broker.passwords['grafana']}@{url}", SinkOptions())
        with pytest.raises(SinkRefused, match="refused a record"), opened(reader) as sink:
            sink.deliver(0, make_batch(1, range(1), run_id=run_id), 1)
        web = Subscriber(broker.websocket_port, "ev/battery/#", "websockets", ("grafana", broker.passwords["grafana"]))
        with (
            closing(web),
            opened(MqttTarget.parse(f"mqtt://twin:{broker.passwords['twin']}@{url}", SinkOptions()), run_id) as sink,
        ):
            batch = poisoned(make_batch(3, range(4), run_id=run_id), {5}, "x" * 200_000)
            assert [letter.row for letter in sink.deliver(0, batch, 12).dead] == [5]
            wait_until(lambda: len(web.seen) == 12, lambda: web.seen)  # 11 records and the status
    finally:
        broker.remove()


class OldBroker:
    """A real broker that knows only MQTT 3.1.1: an MQTT 5 CONNECT is answered as the standard of 3.1.1 says."""

    def __init__(self, port: int) -> None:
        self._real = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.levels: list[int] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with closing(self._listener):
            for _ in range(2):
                client, _address = self._listener.accept()
                hello = client.recv(4096)
                self.levels.append(hello[hello.index(b"MQTT") + 4])
                if self.levels[-1] == 5:
                    client.sendall(b"\x20\x02\x00\x01")
                    client.close()
                    continue
                with socket.create_connection(("127.0.0.1", self._real)) as server, client:
                    server.sendall(hello)
                    back = threading.Thread(target=self._copy, args=(server, client), daemon=True)
                    back.start()
                    self._copy(client, server)
                    back.join(5)

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._thread.join(5)


def test_mqtt_3_is_spoken_where_nothing_newer_is_known(mosquitto: Mosquitto, run_id: str) -> None:
    witness = MqttWitness(mosquitto.port, "ev/battery/telemetry/+")
    with closing(witness), closing(OldBroker(mosquitto.port)) as old:
        with opened(MqttTarget.parse(f"mqtt://127.0.0.1:{old.port}", SinkOptions())) as sink:
            sink.deliver(0, make_batch(3, range(4), run_id=run_id), 12)
        assert old.levels == [5, 4]
        assert len([identity for identity in witness.wait_for(12).ids if identity[0] == run_id]) == 12


def test_retain_is_a_setting() -> None:
    from twin.servers import targets_of
    from twin.settings import load_settings

    for value, expected in (("true", True), (None, False)):
        settings = load_settings({"mqtt": "mqtt://127.0.0.1", "kafka": "a:1", "mqtt_retain": value}, None, {})
        assert [getattr(target, "retain", None) for target in targets_of(settings.servers)] == [None, expected]


_SHIPPING = """
import sys, time
from pathlib import Path
from actors.delivery.shipper import Shipper
from actors.delivery.sinks import SinkOptions
from actors.delivery.sinks.mqtt import MqttTarget
shipper = Shipper(MqttTarget.parse(sys.argv[1], SinkOptions()), Path(sys.argv[2]), sys.argv[3], {0: (0, 0)})
shipper.start()
time.sleep(60)
"""


def test_mqtt_tells_when_the_shipper_dies(mosquitto: Mosquitto, run_id: str, tmp_path: Path) -> None:
    topic = f"ev/battery/status/{run_id}/0"
    with closing(Subscriber(mosquitto.port, "ev/battery/status/#")) as watcher:

        def state() -> object:
            return next((said["state"] for where, said, _ in reversed(watcher.seen) if where == topic), None)

        url = f"mqtt://127.0.0.1:{mosquitto.port}"
        process = subprocess.Popen([sys.executable, "-c", _SHIPPING, url, str(tmp_path), run_id])
        try:
            wait_until(lambda: state() == "online", lambda: watcher.seen)
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        wait_until(lambda: state() == "offline", lambda: watcher.seen)
        with opened(MqttTarget.parse(url, SinkOptions()), run_id):
            wait_until(lambda: state() == "online", lambda: watcher.seen)
        wait_until(lambda: state() == "offline", lambda: watcher.seen)
    with closing(Subscriber(mosquitto.port, topic)) as late:
        wait_until(lambda: len(late.seen) == 1, lambda: late.seen)
        assert late.seen[0] == (topic, {"log_id": run_id, "part": 0, "state": "offline"}, True)


def test_a_node_may_have_one_database_connection(postgres: Postgres, postgres_database: str, tmp_path: Path) -> None:
    """Its streams take turns; while they deliver, start and end there is never a second one."""
    target = TimescaleTarget.parse(postgres_database, SinkOptions(connections=1)).for_nodes(1)
    for stream in STREAMS:
        writer = LogWriter(log_directory(tmp_path, stream, 0))
        for first in range(0, 400, 20):
            writer.append(make_batch(50, range(first, first + 20), stream=stream), first)
        writer.close()
    name, most = postgres_database.rpartition("/")[2], 0
    shipper = Shipper(replace(target, batch_rows=500), tmp_path, "log", {0: (0, 0)})
    with closing(postgres._admin()) as connection, connection.cursor() as cursor:

        def complete() -> bool:
            nonlocal most
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = %s", (name,))
            row = cursor.fetchone()
            assert row is not None
            most = max(most, int(row[0]))
            return set(shipper.status().positions.values()) == {20_000}

        shipper.start()
        wait_until(complete, shipper.status)
        shipper.stop()
    assert most == 1
    assert shipper.status().retries == 0


def test_more_nodes_than_database_connections() -> None:
    target = TimescaleTarget.parse("postgresql://twin@127.0.0.1/twin", SinkOptions(connections=90))
    assert [target.for_nodes(nodes).shared for nodes in (45, 46, 90)] == [False, True, True]
    with pytest.raises(ValueError, match="--timescale-connections allows 90"):
        target.for_nodes(91)
