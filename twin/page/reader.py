"""A broker's messages into a `FleetView`, as they come: one thread, one subscription of QoS 0, no session.

Where the page cannot keep up, the broker drops what it cannot pass on to us (its `max_queued_messages`), and nobody
waits: not the broker, not the run, whose records are in its log and in the sinks anyway.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from actors.delivery.sinks import SinkError
from actors.delivery.sinks.mqtt import MqttTarget
from datasets.schema import STREAMS, Stream
from twin.page.fleet_view import FleetView

_CONNECT_S = 5.0
_RETRY_S = 1.0
_PAUSE_S = 0.2  # messages wait so long for each other, because each look at the socket costs as much as ten of them
_KEEPALIVE_S = 10
_READ_BYTES = 1 << 18
_READS = 32  # most in one turn, so that what has come is shown and the broker is answered
_LARGEST = 1 << 20  # no message of ours comes near; a longer one is no broker's of ours
_PUBLISH, _QOS_AND_TYPE = 0x30, 0xF6
_FIRST = "connecting"


class _Client(mqtt.Client):
    """paho's, which makes five objects and four system calls of each message: three quarters of the whole cost of one.
    Here all that has come is read at once and messages are cut out of it; every other packet is paho's."""

    def __init__(self, target: MqttTarget) -> None:
        super().__init__(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv311, reconnect_on_failure=False)
        self._prefixes = tuple((stream, target.topics(stream).encode()) for stream in STREAMS)
        self._held = b""
        self.drained = False
        self.came: dict[Stream, list[bytes]] = {stream: [] for stream in STREAMS}

    def _sock_recv(self, bufsize: int) -> bytes:
        if not self._held:
            return super()._sock_recv(bufsize)
        part, self._held = self._held[:bufsize], self._held[bufsize:]
        return part

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        """All that has come."""
        held, self._held = self._held, b""
        try:
            read = super()._sock_recv(_READ_BYTES)
        except BlockingIOError:
            self._held, self.drained = held, True
            return MQTTErrorCode.MQTT_ERR_SUCCESS
        except OSError:
            read = b""
        if not read:
            return super().loop_read(max_packets)  # finds the same, and does what is to be done
        data = held + read
        at = 0
        while (packet := packet_at(data, at)) is not None:
            body, end = packet
            if data[at] & _QOS_AND_TYPE == _PUBLISH:
                topic = body + 2
                payload = topic + int.from_bytes(data[body:topic])
                for stream, prefix in self._prefixes:
                    if data.startswith(prefix, topic):
                        self.came[stream].append(data[payload:end])
            else:
                self._held = data[at:end]
                if (result := super().loop_read(max_packets)) != MQTTErrorCode.MQTT_ERR_SUCCESS:
                    return result
            at = end
        self._held = data[at:]
        return MQTTErrorCode.MQTT_ERR_SUCCESS if len(self._held) < _LARGEST else MQTTErrorCode.MQTT_ERR_PROTOCOL


def packet_at(data: bytes, at: int) -> tuple[int, int] | None:
    """Where the body of the MQTT packet at `at` begins, and where it ends; None where it is not all there."""
    length = shift = 0
    for body in range(at + 1, min(at + 5, len(data))):
        length |= (data[body] & 0x7F) << shift
        shift += 7
        if data[body] < 0x80:
            end = body + 1 + length
            return (body + 1, end) if end <= len(data) else None
    return None


class Reader:
    """Subscribes from `start` to `stop`, and again and again where the broker is away. `say` is told of each change."""

    def __init__(self, target: MqttTarget, view: FleetView, say: Callable[[str], object] = lambda _: None) -> None:
        self._target, self._view, self._say = target, view, say
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="page-reader", daemon=True)
        self._since = time.monotonic()
        self.connected = False
        self.says = _FIRST

    def start(self) -> None:
        """In the background."""
        self._thread.start()

    def stop(self) -> None:
        """Returns when the connection is closed."""
        self._stopping.set()
        self._thread.join()

    def facts(self) -> dict[str, Any]:
        """Whether we are connected, since when [s], and what is the matter where we are not."""
        return {
            "connected": self.connected,
            "where": self._target.where,
            "says": "" if self.connected else self.says,
            "since_s": round(time.monotonic() - self._since),
        }

    def _run(self) -> None:
        while not self._stopping.is_set():
            why = self._visit()
            if self.connected:
                self._since = time.monotonic()
            if (self.connected or why != self.says) and not self._stopping.is_set():
                self._say(f"{why}; trying again every second")
            self.connected, self.says = False, why
            self._stopping.wait(_RETRY_S)

    def _visit(self) -> str:
        """One connection, from its begin to its end. Returns why it ended."""
        where, answers = self._target.where, []
        client = _Client(self._target)
        client.connect_timeout = _CONNECT_S
        client.on_connect = lambda _client, _data, _flags, answer, _properties: answers.append(answer)
        client.on_subscribe = lambda _client, _data, _mid, codes, _properties: answers.append(max(codes, key=_value))
        try:
            self._target.introduce(client)
            client.connect(self._target.host, self._target.port, keepalive=_KEEPALIVE_S)
        except SinkError as error:
            return str(error)
        except OSError as error:
            if isinstance(error, ssl.SSLError):
                return str(self._target.unreached(error))
            return f"{where} does not answer ({error.strerror or error})"
        try:
            if not self._turn_until(client, answers, 1) or answers[0].is_failure:
                return _refused(where, answers, "session")
            client.subscribe([(f"{self._target.topics(stream)}+", 0) for stream in STREAMS])
            if not self._turn_until(client, answers, 2) or answers[1].is_failure:
                return _refused(where, answers[1:], "subscription")
            self.connected, self._since = True, time.monotonic()
            if self.says != _FIRST:
                self._say(f"{where}: connected")
            while not self._stopping.is_set():
                if not self._turn(client, 0.5):
                    return f"{where}: connection lost"
                self._stopping.wait(_PAUSE_S)
            return "stopped"
        finally:
            client.disconnect()
            client.loop_write()

    def _turn_until(self, client: _Client, answers: list[ReasonCode], count: int) -> bool:
        deadline = time.monotonic() + _CONNECT_S
        while len(answers) < count and time.monotonic() < deadline and not self._stopping.is_set():
            if not self._turn(client, 0.1):
                break
        return len(answers) >= count

    def _turn(self, client: _Client, timeout_s: float) -> bool:
        """Move packets, and show what has come. False where the connection is gone."""
        sock: socket.socket | None = client.socket()  # type: ignore[assignment]
        if sock is None:
            return False
        decrypted = isinstance(sock, ssl.SSLSocket) and sock.pending()
        client.drained = not (decrypted or select.select([sock], [], [], timeout_s)[0])
        for _ in range(_READS):
            if client.drained:
                break
            if client.loop_read() != MQTTErrorCode.MQTT_ERR_SUCCESS:
                return False
        if client.want_write():
            client.loop_write()
        client.loop_misc()
        for stream, messages in client.came.items():
            if messages:
                self._view.take(stream, messages)
                client.came[stream] = []
        return client.socket() is not None


def _value(code: ReasonCode) -> int:
    return code.value


def _refused(where: str, answers: list[ReasonCode], what: str) -> str:
    said = str(answers[0]) if answers else f"no answer in {_CONNECT_S:g} s"
    return f"{where} accepts no {what} ({said}); check user, password and access rights, and that it speaks MQTT"
