"""From a real broker into the page's arrays: both payloads, brokers that go and come back, packets in pieces."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.delivery.sinks import SinkOptions
from actors.delivery.sinks.mqtt import MqttTarget
from datasets.schema import PAYLOADS, Payload
from tests.page import Sender
from tests.services import Mosquitto
from tests.support import wait_until
from twin.page.fleet_view import FleetView
from twin.page.reader import Reader, packet_at

Read = Callable[[int], contextlib.AbstractContextManager[tuple[Reader, FleetView]]]


@pytest.fixture
def read() -> Read:
    """`with read(port) as (reader, view)`: a reader of the broker there."""

    @contextlib.contextmanager
    def reading(port: int) -> Iterator[tuple[Reader, FleetView]]:
        view = FleetView(1000)
        reader = Reader(MqttTarget.parse(f"mqtt://127.0.0.1:{port}", SinkOptions()), view)
        reader.start()
        try:
            yield reader, view
        finally:
            reader.stop()

    return reading


@pytest.mark.parametrize("payload", PAYLOADS)
def test_records_and_predictions_arrive(payload: Payload, mosquitto: Mosquitto, read: Read) -> None:
    with read(mosquitto.port) as (reader, view), Sender(mosquitto.port, 700, period_s=0.2, payload=payload) as sender:
        wait_until(lambda: view.facts()["telemetry"] > 3000 and len(view.vehicles()) == 700, view.facts)
        wait_until(lambda: len((view.past("EV-000699") or {"predictions": {"t": []}})["predictions"]["t"]) > 1)
        facts = view.facts()
        assert reader.facts() | {"since_s": 0} == {
            "connected": True, "where": f"MQTT at 127.0.0.1:{mosquitto.port}", "says": "", "since_s": 0
        }  # fmt: skip
    assert facts["malformed"] == facts["unkept"] == 0
    assert facts["run"] == "run-page"
    assert facts["telemetry"] <= sender.sent


def test_a_broker_that_goes_is_told_and_one_that_comes_back_is_read(mosquitto: Mosquitto, read: Read) -> None:
    with read(mosquitto.port) as (reader, view), Sender(mosquitto.port, 20, period_s=0.2):
        wait_until(lambda: view.facts()["telemetry"] > 50)
        mosquitto.kill()
        wait_until(lambda: not reader.connected and "does not answer" in reader.facts()["says"], reader.facts)
        before = view.facts()["telemetry"]
        mosquitto.restart()
        wait_until(lambda: view.facts()["telemetry"] > before + 50, reader.facts)
        assert reader.connected
        assert view.facts()["malformed"] == 0


def test_a_broker_that_is_not_there_yet_is_read_when_it_comes(free_port: int, read: Read) -> None:
    broker = Mosquitto(port=free_port)
    with read(free_port) as (reader, view):
        wait_until(lambda: "does not answer (Connection refused)" in reader.facts()["says"], reader.facts)
        try:
            broker.start().wait_ready()
            wait_until(lambda: reader.connected, reader.facts)
            with Sender(free_port, 5, period_s=0.2):
                wait_until(lambda: len(view.vehicles()) == 5)
        finally:
            broker.remove()


class Guarded(Mosquitto):
    """Knows one user."""

    def _prepare(self) -> None:
        super()._prepare()
        passwords = self.directory / "passwords"
        subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), "twin", "hush/:@"], check=True)
        config = self._config.read_text()
        assert "allow_anonymous true" in config
        known = f"allow_anonymous false\npassword_file {passwords}"
        self._config.write_text(config.replace("allow_anonymous true", known))

    def _check(self) -> None:
        """That it listens is enough: it lets no stranger in."""


@pytest.mark.usefixtures("mosquitto")
def test_a_broker_that_wants_a_password_gets_it_or_says_no() -> None:
    broker = Guarded()
    said: list[str] = []
    try:
        broker.start().wait_ready()
        for login, let_in in (("twin:hush%2F%3A%40@", True), ("twin:wrong@", False), ("", False)):
            target = MqttTarget.parse(f"mqtt://{login}127.0.0.1:{broker.port}", SinkOptions())
            reader = Reader(target, FleetView(10), said.append)
            reader.start()
            wait_until(lambda: reader.connected or "Not authorized" in reader.says, reader.facts)  # noqa: B023
            assert reader.connected == let_in
            reader.stop()
    finally:
        broker.remove()
    assert len(said) == 2
    assert all("check user, password" in line and "wrong" not in line for line in said)


def published(topic: bytes, payload: bytes) -> bytes:
    body, length, head = len(topic).to_bytes(2) + topic + payload, [], b"\x30"
    left = len(body)
    while True:
        left, digit = left >> 7, left & 0x7F
        length.append(digit | (0x80 if left else 0))
        if not left:
            return head + bytes(length) + body


@settings(max_examples=200)
@given(st.lists(st.integers(0, 40_000), min_size=1, max_size=5), st.data())
def test_packets_are_cut_where_they_end(sizes: list[int], data: st.DataObject) -> None:
    packets = [published(b"ev/battery/telemetry/EV-000001", bytes(size)) for size in sizes]
    stream = b"".join(packets)
    have = data.draw(st.integers(0, len(stream)))
    at, whole = 0, 0
    while (found := packet_at(stream[:have], at)) is not None:
        body, end = found
        assert stream[at:end] == packets[whole]
        assert stream[body : body + 2] == (30).to_bytes(2)
        at, whole = end, whole + 1
    assert whole == sum(1 for k in range(len(packets)) if sum(map(len, packets[: k + 1])) <= have)
