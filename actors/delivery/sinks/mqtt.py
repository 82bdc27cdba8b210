"""MQTT: QoS 1, persistent session, topic `ev/battery/telemetry/<vehicle_id>`; the payload carries the record's id.

At least once on the wire: after a lost connection what was not acknowledged is published again, in order. The identity
(run_id, vehicle_id, seq) is in the payload, because MQTT 3.1.1 subscribers see no headers. We speak MQTT 5, in which a
broker can reject a single message. With a broker that knows only 3.1.1 we speak 3.1.1, where a rejection (by an ACL) is
silent.

The retained message at `ev/battery/status/<log_id>/<part>` says whether somebody ships this log: {"state": "online"} or
"offline". The last will sets it to "offline" even after kill -9.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

import paho.mqtt.client as mqtt
import pyarrow as pa
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from actors.delivery.sinks.base import (
    BATCH_ROWS,
    DeadLetter,
    Receipt,
    SinkOptions,
    SinkRefused,
    SinkUnavailable,
    split_url,
)
from datasets.codec import encode
from datasets.schema import Payload, Stream

_TOPICS: dict[Stream, str] = {"telemetry": "ev/battery/telemetry/", "predictions": "ev/battery/prediction/"}
_STATUS = "ev/battery/status/"
_CONNECT_TIMEOUT_S = 5.0
_FAREWELL_S = 0.5
_SESSION_EXPIRY_S = 24 * 3600
_WINDOW = 1000
_PACKET_OVERHEAD = 16  # fixed header, lengths, packet id, no properties
_REFUSALS = ("Bad user name or password", "Not authorized", "Banned", "Bad authentication method")
_OLD_BROKER = "Unsupported protocol version"
# PUBACK's reason codes: what is wrong with one record, and what a person has to change.
_DEAD = {0x99: "payload format invalid"}
_REFUSED = {0x87, 0x90}


@dataclass(frozen=True)
class MqttTarget:
    """One broker. The password is not in repr. `retain`: the broker keeps the last record of each vehicle."""

    host: str
    port: int = 1883
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    retain: bool = False
    patience_s: float = 30.0
    name: str = "mqtt"
    rewind_s: float = 5.0
    batch_rows: int = BATCH_ROWS
    keeps_position: bool = False
    payload: Payload = "json"

    @classmethod
    def parse(cls, address: str, options: SinkOptions) -> MqttTarget:
        """From `mqtt://[user:password@]host[:port]`; anything else raises a one-line ValueError."""
        url = split_url(address, ("mqtt",), "an MQTT URL like mqtt://[user:password@]127.0.0.1:1883")
        if url.path.strip("/"):
            raise ValueError(f"expected an MQTT URL without a path (topics are fixed), got {url.path!r} at its end")
        assert url.hostname is not None
        return cls(
            url.hostname,
            url.port or 1883,
            unquote(url.username) if url.username else None,
            unquote(url.password) if url.password else None,
            retain=options.retain,
            payload=options.payload,
        )

    @property
    def url(self) -> str:
        """mqtt://[user:password@]host:port."""
        secret = f":{quote(self.password, safe='')}" if self.password else ""
        user = f"{quote(self.user, safe='')}{secret}@" if self.user else ""
        return f"mqtt://{user}{self.host}:{self.port}"

    @property
    def where(self) -> str:
        """The address as messages show it, without secrets."""
        return f"MQTT at {self.host}:{self.port}"

    def sink(self, log_id: str, part: int = 0) -> MqttSink:
        return MqttSink(self, log_id, part)

    def check(self) -> str:
        version: list[str] = []
        got = threading.Event()

        def on_message(_client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
            version.append(message.payload.decode(errors="replace"))
            got.set()

        sink = MqttSink(self, "check", visit=True)
        sink.open()
        assert sink.client is not None
        sink.client.on_message = on_message
        sink.client.subscribe("$SYS/broker/version")
        got.wait(1.0)
        sink.close()
        return f"{self.where}: {version[0] if version else 'a broker that does not tell its version'}"


def session_expiry(packet: int, seconds: float) -> Properties:
    """How long the broker keeps the session of a client that is gone (MQTT 5)."""
    properties = Properties(packet)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = min(round(seconds), 0xFFFFFFFE)  # the next number would mean forever
    return properties


class MqttSink:
    """See the module's docstring. Bound: one batch, of which at most `_WINDOW` messages (or as many as the broker
    allows) are on the wire. When the window is full, `deliver` waits.

    A lost connection ends the delivery and the sink. The client must never reconnect by itself, because it would send
    new messages before old ones. `visit`: no lasting session, no status.
    """

    def __init__(self, target: MqttTarget, log_id: str, part: int = 0, *, visit: bool = False) -> None:
        self._target = target
        self._log_id = log_id
        self._part = part
        self._visit = visit
        self._status = f"{_STATUS}{log_id}/{part}"
        self._changed = threading.Condition()
        self._connected: ReasonCode | None = None
        self._lost = ""  # why the connection is gone
        self._denied = 0  # reason code of the first record we may not publish
        self._window = _WINDOW
        self._largest_packet = 268_435_455
        self._answers: dict[int, tuple[int, int]] = {}  # message id -> reason code, time [ns]; until fetched
        self._awaited: set[int] = set()
        self._status_ids: set[int] = set()
        self.client: mqtt.Client | None = None

    def open(self) -> None:
        answer = self._connect(MQTTProtocolVersion.MQTTv5)
        if str(answer) == _OLD_BROKER:
            self.close()
            answer = self._connect(MQTTProtocolVersion.MQTTv311)
        if answer is None or answer.is_failure:
            said = answer or self._lost or f"no answer in {_CONNECT_TIMEOUT_S:g} s"
            self.close()
            if answer is not None and str(answer) in _REFUSALS:
                raise SinkRefused(f"{self._target.where} refused us ({answer}); check user and password")
            raise SinkUnavailable(
                f"{self._target.where} accepts no MQTT session ({said}); is it an MQTT broker, and not overloaded?"
            )

    def _connect(self, protocol: MQTTProtocolVersion) -> ReasonCode | None:
        """The broker's answer to our CONNECT; None if it gave none."""
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"ev-twin-{self._log_id}-{self._part}" if not self._visit else "",
            clean_session=self._visit if protocol == MQTTProtocolVersion.MQTTv311 else None,
            protocol=protocol,
            reconnect_on_failure=False,
        )
        client.connect_timeout = _CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(0)  # the window is ours
        client.max_queued_messages_set(0)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        if self._target.user is not None:
            client.username_pw_set(self._target.user, self._target.password)
        if not self._visit:
            client.will_set(self._status, self._state("offline"), qos=1, retain=True)
        properties = None
        if protocol == MQTTProtocolVersion.MQTTv5:
            properties = session_expiry(PacketTypes.CONNECT, 0 if self._visit else _SESSION_EXPIRY_S)
        self._connected, self._lost = None, ""
        try:
            client.connect(
                self._target.host,
                self._target.port,
                keepalive=15,
                clean_start=self._visit if properties else mqtt.MQTT_CLEAN_START_FIRST_ONLY,
                properties=properties,
            )
        except OSError as error:
            raise SinkUnavailable(
                f"{self._target.where} does not answer ({error}); is the broker running there?"
            ) from error
        self.client = client
        client.loop_start()
        with self._changed:
            self._changed.wait_for(lambda: self._connected is not None or self._lost, _CONNECT_TIMEOUT_S)
        return self._connected

    def _state(self, state: str) -> str:
        return json.dumps({"log_id": self._log_id, "part": self._part, "state": state})

    # ---- called by the client's thread

    def _on_connect(
        self,
        client: mqtt.Client,
        _data: object,
        _flags: mqtt.ConnectFlags,
        answer: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if not answer.is_failure and not self._visit:
            self._status_ids.add(client.publish(self._status, self._state("online"), qos=1, retain=True).mid)
        with self._changed:
            self._window = min(_WINDOW, getattr(properties, "ReceiveMaximum", _WINDOW))
            self._largest_packet = getattr(properties, "MaximumPacketSize", self._largest_packet)
            self._connected = answer
            self._changed.notify_all()

    def _on_disconnect(
        self,
        _client: mqtt.Client,
        _data: object,
        _flags: mqtt.DisconnectFlags,
        reason: ReasonCode,
        _: Properties | None,
    ) -> None:
        with self._changed:
            self._lost = self._lost or f"connection lost: {reason}"
            self._changed.notify_all()

    def _on_publish(
        self, _client: mqtt.Client, _data: object, mid: int, reason: ReasonCode, _: Properties | None
    ) -> None:
        if mid in self._status_ids:
            self._status_ids.discard(mid)
            return
        if reason.value in _REFUSED:
            self._denied = reason.value
        self._answers[mid] = (reason.value, time.time_ns())
        if mid in self._awaited:
            with self._changed:
                self._changed.notify_all()

    # ---- called by the shipper

    def position(self, stream: Stream, shard: int) -> int | None:
        return None

    def deliver(self, stream: Stream, shard: int, batch: pa.RecordBatch, position: int) -> Receipt:
        messages, topic, retain = encode(batch, stream, self._target.payload), _TOPICS[stream], self._target.retain
        waiting: deque[tuple[int, int]] = deque()  # message id, row; oldest first
        dead: list[DeadLetter] = []
        acked_ns: list[int] = []
        for row, (vehicle, value) in enumerate(zip(messages.vehicle_ids, messages.values, strict=True)):
            if len(topic) + len(vehicle) + len(value) + _PACKET_OVERHEAD > self._largest_packet:
                dead.append(DeadLetter(row, f"packet too large: {len(value):,} bytes of payload"))
                continue
            if len(waiting) >= self._window:
                self._settle(waiting, self._window // 2, dead, acked_ns)
            client = self.client
            if client is None:
                raise SinkUnavailable(f"{self._target.where} was closed while it delivered")
            waiting.append((client.publish(topic + vehicle, value, qos=1, retain=retain).mid, row))
        self._settle(waiting, 0, dead, acked_ns)
        return Receipt(0, tuple(sorted(dead, key=lambda letter: letter.row)), acked_ns)

    def _settle(self, waiting: deque[tuple[int, int]], leave: int, dead: list[DeadLetter], acked_ns: list[int]) -> None:
        """Wait until at most `leave` messages are unanswered."""
        while len(waiting) > leave:
            # A broker usually answers in order: after one wait for the last answer we need, all are there.
            self._await(waiting[-1 - leave][0])
            while len(waiting) > leave:
                mid, row = waiting[0]
                answer = self._answers.pop(mid, None)
                if answer is None:
                    self._await(mid)
                    continue
                waiting.popleft()
                code, when = answer
                if code in _REFUSED:
                    raise SinkRefused(f"{self._target.where} refused a record (0x{code:02x}); check our rights")
                if code in _DEAD:
                    dead.append(DeadLetter(row, _DEAD[code]))
                elif code >= 0x80:
                    raise SinkUnavailable(f"{self._target.where} takes no records now (0x{code:02x})")
                else:
                    acked_ns.append(when)

    def _await(self, mid: int) -> None:
        """Wait until `mid` is answered. Raises SinkUnavailable without a connection, or without any answer for
        `patience_s`."""
        answered, deadline = -1, 0.0
        self._awaited.add(mid)
        try:
            while mid not in self._answers:
                if self._denied:  # checked first, because a broker may hang up on a client that goes on
                    raise SinkRefused(f"{self._target.where} refused a record (0x{self._denied:02x}); check our rights")
                if self._lost:
                    raise SinkUnavailable(f"{self._target.where}: {self._lost}")
                if answered != (answered := len(self._answers)):
                    deadline = time.monotonic() + self._target.patience_s
                elif time.monotonic() > deadline:
                    raise SinkUnavailable(
                        f"{self._target.where} has acknowledged nothing for {self._target.patience_s:g} s"
                    )
                with self._changed:
                    self._changed.wait_for(lambda: mid in self._answers or self._lost, 0.1)
        finally:
            self._awaited.discard(mid)

    def close(self) -> None:
        client, self.client = self.client, None
        if client is None:
            return
        if not self._lost and not self._visit and self._connected is not None and not self._connected.is_failure:
            farewell = client.publish(self._status, self._state("offline"), qos=1, retain=True)
            self._status_ids.add(farewell.mid)
            with suppress(RuntimeError, ValueError):
                farewell.wait_for_publish(_FAREWELL_S)
        with self._changed:
            self._lost = self._lost or "closed while it delivered"
            self._changed.notify_all()
        client.disconnect()
        client.loop_stop()
