"""MQTT on a real broker: its death is noticed late or while nothing is sent, its limits hold for each connection."""

from __future__ import annotations

import json
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from actors.delivery.shipper import Shipper
from actors.delivery.sinks import SinkOptions, SinkUnavailable, reader_of
from actors.delivery.sinks.mqtt import MqttTarget
from datasets.log import CursorFile, LogWriter, log_directory
from datasets.schema import STREAMS, vehicle_id
from tests.integration.test_sinks import own_mosquitto
from tests.integration.witness import MqttWitness
from tests.services import Mosquitto
from tests.support import HANG_S, make_batch, wait_until

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]

VEHICLES = 4


@pytest.fixture
def broker() -> Iterator[Mosquitto]:
    """One that saves nothing before it ends: it acknowledges what it has in memory, and forgets it when killed."""
    with own_mosquitto("autosave_interval 3600") as broker:
        yield broker


@pytest.fixture
def run_id(unique_name: Callable[[str], str]) -> str:
    return unique_name("run")


def target_of(broker: Mosquitto, clients: int = 1) -> MqttTarget:
    return MqttTarget.parse(f"mqtt://127.0.0.1:{broker.port}", SinkOptions(clients=clients))


class Shipping:
    """A shipper of one shard's telemetry, and the log before it."""

    def __init__(self, run: Path, target: MqttTarget, run_id: str) -> None:
        self.run, self.target, self.run_id = run, target, run_id
        self.writer = LogWriter(log_directory(run, "telemetry", 0))
        self.shipper = Shipper(target, run, "log", {0: (0, 0)})
        self.shipper.start()

    def append(self, records: range) -> None:
        for seq in records:
            self.writer.append(make_batch(VEHICLES, range(seq, seq + 1), run_id=self.run_id), seq)

    def delivered(self, records: int) -> None:
        def complete() -> bool:
            return self.shipper.status().delivered("telemetry") >= records * VEHICLES

        wait_until(complete, self.shipper.status)

    @property
    def unsettled(self) -> int:
        return CursorFile(self.run, reader_of(self.target), "telemetry", 0).load().unsettled

    def close(self) -> None:
        self.shipper.stop()
        self.writer.close()


@pytest.fixture
def shipping(tmp_path: Path, broker: Mosquitto, unique_name: Callable[[str], str]) -> Iterator[Shipping]:
    with closing(Shipping(tmp_path, target_of(broker), unique_name("run"))) as shipping:
        yield shipping


def all_are_there(shipping: Shipping, witness: MqttWitness, records: int) -> None:
    received = witness.wait_for(records * VEHICLES)
    assert {(vehicle, seq) for _, vehicle, seq in received.ids} == {
        (vehicle_id(n), seq) for n in range(VEHICLES) for seq in range(records)
    }


def test_a_broker_killed_while_nothing_was_sent(broker: Mosquitto, shipping: Shipping) -> None:
    """Nobody subscribes, so what it acknowledged is only in its memory. The next record comes long after its death."""
    shipping.append(range(5))
    shipping.delivered(5)
    broker.kill()
    time.sleep(6.0)  # longer than a peer may forget
    broker.restart()
    with closing(MqttWitness(broker.port, "ev/battery/telemetry/+")) as witness:
        shipping.append(range(5, 6))
        shipping.delivered(6)
        all_are_there(shipping, witness, 6)


def test_a_broker_that_freezes_is_noticed_late(broker: Mosquitto, shipping: Shipping) -> None:
    """It neither answers nor hangs up: only keepalive finds it dead, long after its last acknowledgement."""
    shipping.append(range(21))
    shipping.delivered(21)
    pid = broker.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    time.sleep(6.0)
    broker.kill()
    broker.restart()
    with closing(MqttWitness(broker.port, "ev/battery/telemetry/+")) as witness:
        shipping.append(range(21, 22))
        shipping.delivered(22)
        all_are_there(shipping, witness, 22)


def test_a_broker_that_lives_settles_what_it_has(shipping: Shipping) -> None:
    """Then nothing is sent again, however often the shipper is started anew."""
    shipping.append(range(5))
    shipping.delivered(5)
    assert shipping.unsettled == 5 * VEHICLES
    wait_until(lambda: shipping.unsettled == 0, shipping.shipper.status)


def test_a_shipper_that_dies_with_its_broker(
    tmp_path: Path, broker: Mosquitto, unique_name: Callable[[str], str]
) -> None:
    run_id = unique_name("run")
    with closing(Shipping(tmp_path, target_of(broker), run_id)) as first:
        first.append(range(5))
        first.delivered(5)
        broker.kill()
    broker.restart()
    with (
        closing(MqttWitness(broker.port, "ev/battery/telemetry/+")) as witness,
        closing(Shipping(tmp_path, target_of(broker), run_id)) as second,
    ):
        all_are_there(second, witness, 5)


def test_streams_fail_apart_on_a_real_broker(tmp_path: Path, unique_name: Callable[[str], str]) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic read #\ntopic write ev/battery/status/#\ntopic write ev/battery/telemetry/#\n")
    run, run_id = tmp_path / "run", unique_name("run")
    with own_mosquitto(f"acl_file {acl}") as broker, closing(Shipping(run, target_of(broker), run_id)) as shipping:
        predictions = LogWriter(log_directory(run, "predictions", 0))
        predictions.append(make_batch(VEHICLES, range(5), stream="predictions", run_id=run_id), 5)
        wait_until(lambda: "refused a record" in shipping.shipper.status().waiting_for, shipping.shipper.status)
        for records in range(10, 40, 10):
            shipping.append(range(records - 10, records))
            shipping.delivered(records)
        assert shipping.shipper.status().delivered("predictions") == 0
        predictions.close()


class InFlight:
    """Counts PUBLISH packets that passed without their PUBACK, in each connection through a proxy of our own."""

    def __init__(self, port: int) -> None:
        import socket

        self._port, self._socket = port, socket
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.most: list[int] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = self._socket.create_connection(("127.0.0.1", self._port))
            number, flying, lock = len(self.most), [0], threading.Lock()
            self.most.append(0)
            for source, sink, change in ((client, server, 1), (server, client, -1)):
                threading.Thread(
                    target=self._copy, args=(source, sink, change, number, flying, lock), daemon=True
                ).start()

    def _copy(self, source, sink, change, number, flying, lock) -> None:  # type: ignore[no-untyped-def]
        data = b""
        try:
            while more := source.recv(1 << 16):
                data += more
                while (end := _packet_end(data)) is not None:
                    kind = data[0] >> 4
                    if kind == (3 if change > 0 else 4):
                        with lock:
                            flying[0] += change
                            self.most[number] = max(self.most[number], flying[0])
                    sink.sendall(data[:end])
                    data = data[end:]
        except OSError:
            pass
        finally:
            for end in (source, sink):
                end.close()

    def close(self) -> None:
        self._listener.close()


def _packet_end(data: bytes) -> int | None:
    """The end of the first MQTT packet; None if it is not whole."""
    length, shift = 0, 0
    for place in range(1, min(5, len(data))):
        length |= (data[place] & 0x7F) << shift
        shift += 7
        if data[place] < 0x80:
            end = place + 1 + length
            return end if end <= len(data) else None
    return None


@pytest.mark.parametrize("clients", [1, 3])
def test_the_receive_maximum_holds_for_each_connection(
    tmp_path: Path, clients: int, unique_name: Callable[[str], str]
) -> None:
    """Also while both streams are busy."""
    run_id = unique_name("run")
    with own_mosquitto("max_inflight_messages 20") as broker, closing(InFlight(broker.port)) as between:
        target = MqttTarget.parse(f"mqtt://127.0.0.1:{between.port}", SinkOptions(clients=clients))
        for stream in STREAMS:
            writer = LogWriter(log_directory(tmp_path, stream, 0))
            writer.append(make_batch(50, range(40), stream=stream, run_id=run_id), 40)
            writer.close()
        shipper = Shipper(target, tmp_path, "log", {0: (0, 0)})
        shipper.start()
        wait_until(lambda: set(shipper.status().positions.values()) == {2000}, shipper.status)
        shipper.stop()
    assert len(between.most) == 2 * clients
    assert max(between.most) <= 20
    assert max(between.most) > 10, "the window was used"


def test_each_vehicle_has_its_own_connection_and_last_will(
    tmp_path: Path, broker: Mosquitto, unique_name: Callable[[str], str]
) -> None:
    states: dict[str, str] = {}
    watcher = paho.Client(CallbackAPIVersion.VERSION2)
    ready = threading.Event()
    watcher.on_connect = lambda client, *_: client.subscribe("ev/battery/status/+")
    watcher.on_subscribe = lambda *_: ready.set()

    def take(_client: object, _data: object, message: paho.MQTTMessage) -> None:
        states[message.topic.rpartition("/")[2]] = json.loads(message.payload)["state"]

    watcher.on_message = take
    watcher.connect("127.0.0.1", broker.port)
    watcher.loop_start()
    assert ready.wait(HANG_S)
    run_id = unique_name("run")
    with closing(MqttWitness(broker.port, "ev/battery/telemetry/+")) as witness:
        with closing(Shipping(tmp_path, target_of(broker, clients=0), run_id)) as shipping:
            shipping.append(range(10))
            shipping.delivered(10)
            all_are_there(shipping, witness, 10)
            assert witness.wait_for(10 * VEHICLES).in_order()
            wait_until(lambda: states == {vehicle_id(n): "online" for n in range(VEHICLES)}, lambda: states)
        wait_until(lambda: states == {vehicle_id(n): "offline" for n in range(VEHICLES)}, lambda: states)
    watcher.disconnect()
    watcher.loop_stop()


def test_two_thousand_vehicles_with_their_own_connections(broker: Mosquitto, run_id: str) -> None:
    """From one process, without threads; and one line where the process may not open so many."""
    batch = make_batch(2000, range(2), run_id=run_id)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    threads = threading.active_count()
    with closing(target_of(broker, clients=0).sink(run_id, "telemetry")) as sink:
        sink.open()
        assert sum(code >= 0 for code in sink.deliver(0, batch, 4000).acked_ns) == 4000
        assert threading.active_count() == threads
        assert len(sink._connections) == 2001
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, before[1]))
    try:
        with closing(target_of(broker, clients=0).sink(run_id, "telemetry")) as sink:
            sink.open()
            resource.setrlimit(resource.RLIMIT_NOFILE, (200, before[1]))  # opening had raised it
            with pytest.raises(SinkUnavailable, match="raise `ulimit -n`"):
                sink.deliver(0, batch, 4000)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
