"""Independent witnesses of what reached each sink: they share no code with the sinks they check."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import paho.mqtt.client as mqtt
import psycopg2
from kafka import KafkaConsumer, TopicPartition
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.support import HANG_S

Identity = tuple[str, str, int]


@dataclass
class Received:
    """Ids as received, and for each vehicle the order in which its sequence numbers were first seen."""

    ids: Counter[Identity] = field(default_factory=Counter)
    order: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def take(self, value: bytes) -> None:
        record = json.loads(value)
        identity = (record["run_id"], record["vehicle_id"], record["seq"])
        if identity not in self.ids:
            self.order[record["vehicle_id"]].append(record["seq"])
        self.ids[identity] += 1

    def in_order(self) -> bool:
        return all(seqs == sorted(seqs) for seqs in self.order.values())


def from_kafka(bootstrap: str, topic: str, run_id: str, expected: int) -> Received:
    """Read the topic from its beginning to its end, until all expected are there. What was acknowledged before is in
    it by then, however often; records of other runs are passed over."""
    received = Received()
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False)
    try:
        parts = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(parts)
        consumer.seek_to_beginning(*parts)
        deadline = time.monotonic() + HANG_S
        while True:
            ends = consumer.end_offsets(parts)
            while any(consumer.position(part) < end for part, end in ends.items()):
                for messages in consumer.poll(timeout_ms=200).values():
                    for message in messages:
                        identity = dict(message.headers)["id"].decode()
                        if identity.startswith(f"{run_id}/"):
                            assert message.key.decode() == identity.split("/")[1]
                            received.take(message.value)
            if len(received.ids) >= expected or time.monotonic() > deadline:
                return received
            time.sleep(0.1)
    finally:
        consumer.close()


def _kept_for(packet: int, seconds: int) -> Properties:
    properties = Properties(packet)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = seconds
    return properties


class MqttWitness:
    """Subscribes before the run, with a persistent session, so that a broker's restart loses it nothing (a broker that
    is killed has to have saved the session: `Mosquitto.wait_saved`)."""

    def __init__(self, port: int, topic: str) -> None:
        self.received = Received()
        self._mark = topic.replace("+", f"mark-{uuid.uuid4().hex}")
        self._marked = threading.Event()
        self._subscribed = threading.Event()
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=f"witness-{uuid.uuid4().hex}", protocol=MQTTProtocolVersion.MQTTv5
        )
        self._client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_disconnect = lambda *_: self._subscribed.clear()
        self._client.on_message = lambda _client, _data, message: self._take(message)
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", port, clean_start=False, properties=_kept_for(PacketTypes.CONNECT, 3600))
        self._client.loop_start()
        self.wait_subscribed()

    def _take(self, message: mqtt.MQTTMessage) -> None:
        if message.topic == self._mark:
            self._marked.set()
        else:
            self.received.take(bytes(message.payload))

    def wait_subscribed(self) -> None:
        """Until the broker, also one that was restarted, would deliver here."""
        assert self._subscribed.wait(HANG_S)

    def wait_for(self, expected: int) -> Received:
        """All expected, and all that came before a mark that we publish now: also what came too often."""
        deadline = time.monotonic() + HANG_S
        while len(self.received.ids) < expected and time.monotonic() < deadline:
            time.sleep(0.02)
        self._marked.clear()
        self._client.publish(self._mark, b"", qos=1)
        assert self._marked.wait(HANG_S)
        return self.received

    def close(self) -> None:
        """And have the broker forget the session: it would keep all that is published, and save it every second."""
        self._client.disconnect(properties=_kept_for(PacketTypes.DISCONNECT, 0))
        self._client.loop_stop()


def from_database(url: str, run_id: str, table: str = "telemetry") -> Received:
    """Every row of the run, in the order of its key."""
    received = Received()
    connection = psycopg2.connect(url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT run_id, vehicle_id, seq FROM {table} WHERE run_id = %s ORDER BY seq", (run_id,))
            for run, vehicle, seq in cursor:
                received.ids[run, vehicle, seq] += 1
                received.order[vehicle].append(seq)
    finally:
        connection.close()
    return received
