"""Kafka: idempotent producer, acks=all, key = vehicle_id (a vehicle's records keep their order), id in the headers.

At least once on the wire: a batch whose acknowledgement was lost is sent again; consumers drop what they have by the
header `id` (run_id/vehicle_id/seq).
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
from kafka import KafkaAdminClient, KafkaProducer
from kafka.errors import AuthorizationError, KafkaError, SaslAuthenticationFailedError

from actors.sinks.base import SinkRefused, SinkUnavailable
from datasets.codec import encode
from datasets.schema import Payload, Stream

_TOPICS: dict[Stream, str] = {"telemetry": "ev-telemetry", "predictions": "ev-predictions"}
_ACK_TIMEOUT_S = 120.0
_REFUSED = (SaslAuthenticationFailedError, AuthorizationError)


@dataclass(frozen=True)
class KafkaTarget:
    """`bootstrap` is host:port[,host:port]."""

    bootstrap: tuple[str, ...]
    name: str = "kafka"
    payload: Payload = "json"

    @classmethod
    def parse(cls, text: str) -> KafkaTarget:
        """From `127.0.0.1:9092[,host:port]`; ValueError in one line otherwise."""
        servers = tuple(part.strip() for part in text.removeprefix("kafka://").split(","))
        for server in servers:
            host, colon, port = server.rpartition(":")
            if not (host and colon and port.isascii() and port.isdigit() and 0 < int(port) < 65536) or "/" in server:
                raise ValueError(f"expected Kafka servers as host:port[,host:port], got {text!r}")
        return cls(servers)

    def sink(self, log_id: str) -> KafkaSink:
        return KafkaSink(self, log_id)

    def check(self) -> str:
        try:
            admin = KafkaAdminClient(bootstrap_servers=list(self.bootstrap), bootstrap_timeout_ms=5000)
        except KafkaError as error:
            raise _translate(error, self) from error
        try:
            nodes = len(admin.describe_cluster()["brokers"])
            topics = sorted(set(admin.list_topics()) & set(_TOPICS.values()))
        except KafkaError as error:
            raise _translate(error, self) from error
        finally:
            admin.close()
        there = ", ".join(topics) if topics else "made at the first record"
        return f"Kafka at {','.join(self.bootstrap)}: {nodes} broker(s), topics: {there}"


def _translate(error: KafkaError, target: KafkaTarget) -> SinkRefused | SinkUnavailable:
    where = ",".join(target.bootstrap)
    if isinstance(error, _REFUSED):
        return SinkRefused(f"Kafka at {where} refused us ({error}); check user, password and access rights")
    return SinkUnavailable(f"Kafka at {where} does not answer ({type(error).__name__}); is the broker running there?")


class KafkaSink:
    """See the module's docstring. The queue is one batch: `deliver` returns only when all of it is acknowledged."""

    def __init__(self, target: KafkaTarget, log_id: str) -> None:
        self._target = target
        self._log_id = log_id
        self._producer: KafkaProducer | None = None

    def open(self) -> None:
        try:
            self._producer = KafkaProducer(
                bootstrap_servers=list(self._target.bootstrap),
                client_id=f"ev-twin-{self._log_id}",
                acks="all",
                enable_idempotence=True,
                linger_ms=5,
                batch_size=256 << 10,
                bootstrap_timeout_ms=10_000,
                max_block_ms=15_000,
                delivery_timeout_ms=int(_ACK_TIMEOUT_S * 1000),
                reconnect_backoff_max_ms=1000,
            )
        except KafkaError as error:
            raise _translate(error, self._target) from error

    def position(self, stream: Stream, shard: int) -> int | None:
        return None

    def deliver(self, stream: Stream, shard: int, batch: pa.RecordBatch, position: int) -> int:
        producer, topic = self._producer, _TOPICS[stream]
        assert producer is not None
        messages = encode(batch, stream, self._target.payload)
        try:
            futures = [
                producer.send(topic, value, key=vehicle.encode(), headers=[("id", identity.encode())])
                for vehicle, identity, value in zip(messages.vehicle_ids, messages.ids, messages.values, strict=True)
            ]
            producer.flush(timeout=_ACK_TIMEOUT_S)
            for future in futures:
                future.get(timeout=0)
        except KafkaError as error:
            raise _translate(error, self._target) from error
        return 0

    def close(self) -> None:
        if self._producer is not None:
            self._producer.close(timeout=1)
            self._producer = None
