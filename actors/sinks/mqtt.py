"""MQTT: QoS 1, persistent session, topic `ev/battery/telemetry/<vehicle_id>`; the payload carries the record's id.

At least once on the wire: after a lost connection what was not acknowledged is published again. MQTT 3.1.1 knows no
headers, so the identity (run_id, vehicle_id, seq) is in the JSON.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from urllib.parse import unquote

import paho.mqtt.client as mqtt
import pyarrow as pa
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from actors.sinks.base import SinkRefused, SinkUnavailable, split_url
from datasets.codec import encode
from datasets.schema import Payload, Stream

_TOPICS: dict[Stream, str] = {"telemetry": "ev/battery/telemetry/", "predictions": "ev/battery/prediction/"}
_CONNECT_TIMEOUT_S = 5.0
_ACK_TIMEOUT_S = 30.0
_WINDOW = 1000
_REFUSALS = ("Bad user name or password", "Not authorized", "Banned", "Bad authentication method")


@dataclass(frozen=True)
class MqttTarget:
    """One broker. The password is not in repr."""

    host: str
    port: int = 1883
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    name: str = "mqtt"
    payload: Payload = "json"

    @classmethod
    def parse(cls, text: str) -> MqttTarget:
        """From `mqtt://[user:password@]host[:port]`; ValueError in one line otherwise."""
        url = split_url(text, ("mqtt",), "an MQTT URL like mqtt://[user:password@]127.0.0.1:1883")
        if url.path.strip("/"):
            raise ValueError(f"expected an MQTT URL without a path (topics are fixed), got {url.path!r} at its end")
        assert url.hostname is not None
        return cls(
            url.hostname,
            url.port or 1883,
            unquote(url.username) if url.username else None,
            unquote(url.password) if url.password else None,
        )

    def sink(self, log_id: str) -> MqttSink:
        return MqttSink(self, log_id)

    def check(self) -> str:
        version: list[str] = []
        got = threading.Event()

        def on_message(_client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
            version.append(message.payload.decode(errors="replace"))
            got.set()

        sink = MqttSink(self, "check", persistent=False)
        sink.open()
        assert sink.client is not None
        sink.client.on_message = on_message
        sink.client.subscribe("$SYS/broker/version")
        got.wait(1.0)
        sink.close()
        return (
            f"MQTT at {self.host}:{self.port}: {version[0] if version else 'a broker that does not tell its version'}"
        )


class MqttSink:
    """See the module's docstring. Bound: one batch, of which at most `_WINDOW` messages are on the wire."""

    def __init__(self, target: MqttTarget, log_id: str, *, persistent: bool = True) -> None:
        self._target = target
        self._log_id = log_id
        self._persistent = persistent
        self._changed = threading.Condition()
        self._answer: ReasonCode | None = None
        self.client: mqtt.Client | None = None

    def open(self) -> None:
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"ev-twin-{self._log_id}",
            clean_session=not self._persistent,
        )
        client.max_inflight_messages_set(_WINDOW)
        client.max_queued_messages_set(0)  # the batch is the bound
        client.reconnect_delay_set(min_delay=1, max_delay=2)
        client.on_connect = self._on_connect
        if self._target.user is not None:
            client.username_pw_set(self._target.user, self._target.password)
        self._answer = None
        where = f"MQTT at {self._target.host}:{self._target.port}"
        try:
            client.connect(self._target.host, self._target.port, keepalive=15)
        except OSError as error:
            raise SinkUnavailable(f"{where} does not answer ({error}); is the broker running there?") from error
        client.loop_start()
        self.client = client
        with self._changed:
            self._changed.wait_for(lambda: self._answer is not None, _CONNECT_TIMEOUT_S)
        answer = self._answer
        if answer is None or answer.is_failure:
            self.close()
            if answer is not None and str(answer) in _REFUSALS:
                raise SinkRefused(f"{where} refused us ({answer}); check user and password")
            raise SinkUnavailable(f"{where} accepts no MQTT session ({answer or 'no answer'}); is it an MQTT broker?")

    def _on_connect(
        self, _client: mqtt.Client, _data: object, _flags: mqtt.ConnectFlags, answer: ReasonCode, _: Properties | None
    ) -> None:
        with self._changed:
            self._answer = answer
            self._changed.notify_all()

    def position(self, stream: Stream, shard: int) -> int | None:
        return None

    def deliver(self, stream: Stream, shard: int, batch: pa.RecordBatch, position: int) -> int:
        client, topic = self.client, _TOPICS[stream]
        assert client is not None
        messages = encode(batch, stream, self._target.payload)
        waiting = [
            client.publish(topic + vehicle, value, qos=1)
            for vehicle, value in zip(messages.vehicle_ids, messages.values, strict=True)
        ]
        for message in waiting:
            try:
                message.wait_for_publish(_ACK_TIMEOUT_S)
                done = message.is_published()
            except (RuntimeError, ValueError):
                done = False
            if not done:
                raise SinkUnavailable(
                    f"MQTT at {self._target.host}:{self._target.port} has not acknowledged for {_ACK_TIMEOUT_S:.0f} s"
                )
        return 0

    def close(self) -> None:
        if self.client is not None:
            self.client.disconnect()
            self.client.loop_stop()
            self.client = None
