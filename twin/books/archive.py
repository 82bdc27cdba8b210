"""An MQTT subscriber that archives: every message is on disk before it is acknowledged, in a file a person can read.

`messages.jsonl` has one line per message: the topic, a tab, and the payload. A payload that is not one line of text is
written as base64 after `base64:`. Messages have QoS 1, and the session outlives this process. So what was published
while the process was down arrives when it is up again, as far as the broker keeps it. If the disk is full, nothing is
acknowledged, and the broker keeps the rest. An abandoned session would cost the broker memory and disk for ever, so it
ends after a while (MQTT 5, session expiry interval).
"""

from __future__ import annotations

import base64
import threading
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from actors.delivery.sinks import SinkUnavailable
from actors.delivery.sinks.mqtt import MqttTarget
from actors.delivery.sinks.mqtt_connection import session_expiry
from datasets.log.durable import append_file, cut_torn_line
from datasets.schema import STREAMS
from twin.books.messages import BASE64, FILE

_FLUSH_S = 0.1
_RETRY_S = 1.0
_LOST_S = 86_400.0  # how long the broker keeps the session of an archive that vanished


class Archive:
    """Subscribes in the background from `start` to `stop`. After that the broker keeps new messages for `keep_s`."""

    def __init__(self, target: MqttTarget, directory: Path, client_id: str, keep_s: float) -> None:
        self._path = directory / FILE
        append_file(self._path, b"")  # fails here if it cannot be written, before anything is promised
        self._lock = threading.Lock()
        self._lines: list[tuple[bytes, int, int]] = []
        self._stopping = threading.Event()
        self._answered = threading.Event()
        self._refused = False
        self.written = 0
        self.waiting_for = ""
        self._keep_s = keep_s
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTProtocolVersion.MQTTv5, manual_ack=True
        )
        target.introduce(self._client)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._take
        self._client.on_disconnect = lambda *_: self._forget()
        self._client.reconnect_delay_set(1, 2)
        self._target = target
        self._thread = threading.Thread(target=self._write, name="archive", daemon=True)

    def start(self, patience_s: float = 10.0) -> None:
        """Returns when the broker has accepted the subscription. SinkError where it does not."""
        where = self._target.where
        try:
            self._client.connect(
                self._target.host,
                self._target.port,
                keepalive=15,
                clean_start=False,
                properties=session_expiry(PacketTypes.CONNECT, max(self._keep_s, _LOST_S)),
            )
        except OSError as error:
            raise self._target.unreached(error) from error
        self._client.loop_start()
        if not self._answered.wait(patience_s) or self._refused:
            self._client.disconnect()
            self._client.loop_stop()
            raise SinkUnavailable(
                f"{where} accepts no subscription; check user, password and access rights, and that it speaks MQTT 5"
            )
        self._thread.start()

    def _on_connect(
        self, client: mqtt.Client, _data: object, _flags: mqtt.ConnectFlags, answer: ReasonCode, _: Properties | None
    ) -> None:
        if answer.is_failure:
            self._refused = True
            self._answered.set()
        else:
            # What the broker has kept of each vehicle is old: an archive holds what came while it listened.
            live = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)
            client.subscribe([(f"{self._target.topics(stream)}+", live) for stream in STREAMS])

    def _on_subscribe(
        self, _client: mqtt.Client, _data: object, _mid: int, answers: list[ReasonCode], _: Properties | None
    ) -> None:
        self._refused = any(answer.is_failure for answer in answers)
        self._answered.set()

    def _take(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        if message.retain:  # from a broker that sends it all the same
            self._client.ack(message.mid, message.qos)
            return
        payload = bytes(message.payload)
        # No zero byte either: in a line that is what a power cut has left of it.
        plain = not set(payload) & {0, 10, 13} and not payload.startswith(BASE64) and _is_text(payload)
        text = payload if plain else BASE64 + base64.b64encode(payload)
        with self._lock:
            self._lines.append((message.topic.encode() + b"\t" + text + b"\n", message.mid, message.qos))

    def _forget(self) -> None:
        """Drop what was not acknowledged when the connection was lost. It comes again on the next one."""
        with self._lock:
            self._lines.clear()

    def _write(self) -> None:
        cut_torn_line(self._path)  # what it held was not acknowledged
        while not self._stopping.wait(_FLUSH_S) or self._lines:
            with self._lock:
                lines, self._lines = self._lines, []
            if not lines:
                continue
            try:
                append_file(self._path, b"".join(line for line, _, _ in lines))
            except OSError as error:
                self.waiting_for = f"{self._path}: {error.strerror}"
                with self._lock:
                    self._lines = lines + self._lines
                if self._stopping.wait(_RETRY_S):
                    return
                continue
            self.waiting_for = ""
            self.written += len(lines)
            for _, mid, qos in lines:
                self._client.ack(mid, qos)

    def stop(self) -> None:
        """Write what has come, acknowledge it, and leave the session with the broker for `keep_s`."""
        self._stopping.set()
        self._thread.join(timeout=10)
        self._client.disconnect(properties=session_expiry(PacketTypes.DISCONNECT, self._keep_s))
        self._client.loop_stop()


def _is_text(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True
