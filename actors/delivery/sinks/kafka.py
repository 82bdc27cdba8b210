"""Kafka: idempotent producer, acks=all, key = vehicle_id (a vehicle's records keep their order), id in the headers.

At least once on the wire: a batch whose acknowledgement was lost is sent again. Consumers drop what they already have
by the header `id` (run_id/vehicle_id/seq). A record larger than the broker takes is a dead letter.

The client is confluent-kafka (librdkafka), docs/decisions/0011-kafka-client.md.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from operator import itemgetter

import pyarrow as pa
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from actors.delivery.sinks.base import BATCH_ROWS, DeadLetter, Receipt, SinkOptions, SinkRefused, SinkUnavailable, mask
from datasets.codec import Messages, encode
from datasets.schema import Payload, Stream

_TOPICS: dict[Stream, str] = {"telemetry": "ev-telemetry", "predictions": "ev-predictions"}
_CONNECT_TIMEOUT_S = 5.0
_PART_ROWS = 1_000  # of a batch are encoded at a time
_POLL_S = 0.1  # how soon a delivery notices that it was told to stop; an acknowledgement wakes it at once
_REFUSED = {
    KafkaError._AUTHENTICATION,
    KafkaError._SSL,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM,
    KafkaError.ILLEGAL_SASL_STATE,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.TOPIC_EXCEPTION,
    KafkaError.POLICY_VIOLATION,
    KafkaError.INVALID_TIMESTAMP,
    KafkaError.INVALID_RECORD,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
}
_TOO_LARGE = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE}

# librdkafka logs every failed attempt to connect; we say once what we wait for.
_client_log = logging.getLogger(f"{__name__}.client")
_client_log.setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class KafkaTarget:
    """`bootstrap` is host:port[,host:port]."""

    bootstrap: tuple[str, ...]
    patience_s: float = 30.0
    name: str = "kafka"
    rewind_s: float = 0.0
    batch_rows: int = BATCH_ROWS
    keeps_position: bool = False
    payload: Payload = "json"

    @classmethod
    def parse(cls, address: str, options: SinkOptions) -> KafkaTarget:
        """From `127.0.0.1:9092[,host:port]`; anything else raises a one-line ValueError."""
        servers = tuple(part.strip() for part in address.removeprefix("kafka://").split(","))
        for server in servers:
            host, colon, port = server.rpartition(":")
            if not (host and colon and port.isascii() and port.isdigit() and 0 < int(port) < 65536) or set("/@") & set(
                server
            ):
                raise ValueError(f"expected Kafka servers as host:port[,host:port], got {mask(address)!r}")
        return cls(servers, payload=options.payload)

    @property
    def url(self) -> str:
        """host:port[,host:port], as clients want it."""
        return ",".join(self.bootstrap)

    @property
    def where(self) -> str:
        """The address as messages show it."""
        return f"Kafka at {self.url}"

    @property
    def peer(self) -> str:
        """The servers in one order, however they were given."""
        return ",".join(sorted(self.bootstrap))

    def for_nodes(self, nodes: int) -> KafkaTarget:
        return self

    def sink(self, log_id: str, stream: Stream, part: int = 0) -> KafkaSink:
        return KafkaSink(self, log_id, stream)

    def check(self) -> str:
        sink = KafkaSink(self, "check", "telemetry")
        try:
            brokers, topics = sink.metadata()
        finally:
            sink.close()
        there = ", ".join(sorted(topics & set(_TOPICS.values()))) or "created with the first record"
        return f"{self.where}: {brokers} broker(s), topics: {there}"


def _translate(error: KafkaError, target: KafkaTarget) -> SinkRefused | SinkUnavailable:
    said = f"{error.name()}: {error.str()}" if error.str() else error.name()
    if error.code() in _REFUSED:
        return SinkRefused(f"{target.where} refused us ({said}); check user, password, access rights and topics")
    if error.code() in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT):
        return SinkUnavailable(f"{target.where} does not answer ({error.name()}); is the broker running there?")
    return SinkUnavailable(f"{target.where} takes no records now ({said})")


@dataclass
class _Flight:
    """What has failed of one batch: (value, why); the report lacks headers. librdkafka reports nothing else to us."""

    failed: list[tuple[bytes, KafkaError]] = field(default_factory=list)

    def report(self, error: KafkaError | None, message: Message) -> None:
        """librdkafka's answer for one message."""
        if error is not None:
            self.failed.append((message.value() or b"", error))


class KafkaSink:
    """See the module's docstring. The queue is one batch: `deliver` returns only when all of it is answered."""

    def __init__(self, target: KafkaTarget, log_id: str, stream: Stream) -> None:
        self._target = target
        self._stream = stream
        self._said: KafkaError | None = None  # the last error that is not about one message
        self._closing = threading.Event()
        self._producer = Producer(
            {
                "bootstrap.servers": target.url,
                "client.id": f"ev-twin-{log_id}",
                "acks": "all",
                "enable.idempotence": True,
                "partitioner": "murmur2_random",  # as in Java's client and kafka-python: a vehicle keeps its partition
                "linger.ms": 5,
                "batch.size": 256 << 10,
                # A call into Python for each message that went well would cost as much as sending it.
                "delivery.report.only.error": True,
                # Our own clock ends a delivery (`patience_s` without progress), not librdkafka's.
                "message.timeout.ms": 600_000,
                "reconnect.backoff.ms": 50,
                "reconnect.backoff.max.ms": 1000,
                "error_cb": self._on_error,
            },
            logger=_client_log,
        )

    def _on_error(self, error: KafkaError) -> None:
        # A refusal says more than the lost connection that follows from it.
        if self._said is None or self._said.code() not in _REFUSED:
            self._said = error

    def open(self) -> None:
        self.metadata()

    def metadata(self) -> tuple[int, set[str]]:
        """Number of brokers and the topics. Raises SinkError if there is no answer."""
        try:
            found = self._producer.list_topics(timeout=_CONNECT_TIMEOUT_S)
        except KafkaException as error:
            self._producer.poll(0)
            said = self._said if self._said is not None and self._said.code() in _REFUSED else error.args[0]
            raise _translate(said, self._target) from error
        return len(found.brokers), set(found.topics)

    def position(self, shard: int) -> int | None:
        return None

    def heard(self) -> float:
        return time.monotonic()  # what it acknowledged it keeps, so nobody needs to know

    def deliver(self, shard: int, batch: pa.RecordBatch, position: int) -> Receipt:
        parts = range(0, batch.num_rows, _PART_ROWS)
        messages: list[Messages] = []
        dead: list[DeadLetter] = []
        flight = _Flight()
        try:
            for first in parts:  # librdkafka sends the one while we encode the next
                messages.append(encode(batch.slice(first, _PART_ROWS), self._stream, self._target.payload))
                self._hand_over(messages[-1], range(len(messages[-1].ids)), first, flight, dead)
            self._await_answers()
            for first, part in zip(parts, messages, strict=True) if flight.failed else ():
                self._send_failed_again(part, first, flight, dead)
        except KafkaException as error:
            raise _translate(error.args[0], self._target) from error
        finally:
            self._purge()
        return Receipt(0, tuple(sorted(dead, key=lambda letter: letter.row)))

    def _send_failed_again(self, part: Messages, first: int, flight: _Flight, dead: list[DeadLetter]) -> None:
        """The broker refuses a whole request if one record is too large, so send each of it on its own."""
        rows = {value: row for row, value in enumerate(part.values)}
        for row, error in sorted(((rows[v], e) for v, e in flight.failed if v in rows), key=itemgetter(0)):
            if error.code() not in _TOO_LARGE:
                raise _translate(error, self._target)
            single = _Flight()
            self._hand_over(part, [row], first, single, dead)
            self._await_answers()
            if single.failed and single.failed[0][1].code() not in _TOO_LARGE:
                raise _translate(single.failed[0][1], self._target)
            dead += [DeadLetter(first + row, why.str()) for _, why in single.failed]

    def _hand_over(
        self, part: Messages, rows: range | list[int], first: int, flight: _Flight, dead: list[DeadLetter]
    ) -> None:
        """Give these rows of a part to the client. While its queue is full, wait for answers. `first`: the part's place
        in its batch."""
        topic, produce, report = _TOPICS[self._stream], self._producer.produce, flight.report
        vehicles, ids, values = part.vehicle_ids, part.ids, part.values
        for row in rows:
            while True:
                try:
                    produce(topic, values[row], vehicles[row], headers=[("id", ids[row])], on_delivery=report)
                    break
                except BufferError:
                    self._producer.poll(_POLL_S)
                    self._give_up_if(self._closing.is_set(), "closed while it delivered")
                except KafkaException as error:
                    if error.args[0].code() not in _TOO_LARGE:
                        raise
                    dead.append(DeadLetter(first + row, error.args[0].str()))
                    break

    def _await_answers(self) -> None:
        """Wait until all that was handed over is answered."""
        before, deadline = -1, 0.0
        while left := self._producer.flush(_POLL_S):
            if before != (before := left):
                deadline = time.monotonic() + self._target.patience_s
            self._give_up_if(self._closing.is_set(), "closed while it delivered")
            if self._said is not None and self._said.code() in _REFUSED:
                raise _translate(self._said, self._target)
            self._give_up_if(
                time.monotonic() > deadline, f"has acknowledged nothing for {self._target.patience_s:g} s{self._why()}"
            )

    def _why(self) -> str:
        return f" ({self._said.name()})" if self._said is not None else ""

    def _give_up_if(self, condition: bool, said: str) -> None:
        if condition:
            raise SinkUnavailable(f"{self._target.where} {said}")

    def _purge(self) -> None:
        """Drop what is still queued, so that nothing of a failed batch is sent besides its repetition."""
        if len(self._producer):
            self._producer.purge()
            self._producer.flush(_POLL_S)

    def close(self) -> None:
        self._closing.set()
        with suppress(KafkaException):
            self._producer.purge()
