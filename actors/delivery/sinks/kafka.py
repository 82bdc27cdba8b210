"""Kafka: idempotent producer, acks=all, key = vehicle_id (a vehicle's records keep their order), id in the headers.

At least once on the wire: a batch whose acknowledgement was lost is sent again. Consumers drop what they already have
by the header `id` (run_id/vehicle_id/seq). A record larger than the broker takes is a dead letter.

Where the file of properties names a schema registry, Avro messages have Confluent's wire format.

The client is confluent-kafka (librdkafka), docs/decisions/0011-kafka-client.md.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from actors.delivery.sinks.base import BATCH_ROWS, DeadLetter, Receipt, SinkOptions, SinkRefused, SinkUnavailable, mask
from datasets.codec import Messages, encode, registered
from datasets.schema import Payload, Stream

if TYPE_CHECKING:
    from actors.delivery.sinks.schema_registry import SchemaRegistry

_TOPICS: dict[Stream, str] = {"telemetry": "ev-telemetry", "predictions": "ev-predictions"}
_CONNECT_TIMEOUT_S = 5.0
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
    KafkaError.INVALID_PARTITIONS,
    KafkaError.INVALID_REPLICATION_FACTOR,
    KafkaError.INVALID_TIMESTAMP,
    KafkaError.INVALID_RECORD,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
}
_OURS = {
    "bootstrap.servers", "metadata.broker.list", "acks", "request.required.acks", "enable.idempotence", "partitioner",
    "delivery.report.only.error", "message.timeout.ms", "delivery.timeout.ms", "transactional.id", "group.id",
    "enable.auto.commit", "enable.auto.offset.store", "enable.partition.eof", "auto.offset.reset",
    "partition.assignment.strategy",
}  # fmt: skip
_REGISTRY = "schema.registry."
_USER = "basic.auth."
"""Of the registry: how Confluent's own files call what is `schema.registry.basic.auth.*` elsewhere."""

_TOO_LARGE = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE}

# librdkafka logs every failed attempt to connect; we say once what we wait for.
_client_log = logging.getLogger(f"{__name__}.client")
_client_log.setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True)
class KafkaTarget:
    """`bootstrap` is host:port[,host:port]. `prefix`: how the names of its topics begin. `config`: the file of its
    properties, "" for none. Only its path travels to other processes; each reads it itself, since it may hold a
    password. `partitions`, `replication`: of topics that are not there yet; -1 for what the broker takes."""

    bootstrap: tuple[str, ...]
    patience_s: float = 30.0
    name: str = "kafka"
    rewind_s: float = 0.0
    batch_rows: int = BATCH_ROWS
    keeps_position: bool = False
    payload: Payload = "json"
    config: str = ""
    prefix: str = ""
    partitions: int = -1
    replication: int = -1

    @classmethod
    def parse(cls, address: str, options: SinkOptions) -> KafkaTarget:
        """From `127.0.0.1:9092[,host:port][/prefix]`. A one-line ValueError for anything else, or a bad file of
        properties."""
        place, _, prefix = address.removeprefix("kafka://").partition("/")
        servers = tuple(part.strip() for part in place.split(","))
        if not re.fullmatch(r"[A-Za-z0-9._-]{0,200}", prefix):
            raise ValueError(
                f"expected a beginning of topics' names of letters, digits, '.', '_' and '-' after Kafka's servers, "
                f"got {mask(prefix)!r}"
            )
        for server in servers:
            host, colon, port = server.rpartition(":")
            if not (host and colon and port.isascii() and port.isdigit() and 0 < int(port) < 65536) or set("/@") & set(
                server
            ):
                raise ValueError(f"expected Kafka servers as host:port[,host:port], got {mask(address)!r}")
        target = cls(
            servers,
            payload=options.payload,
            config=options.kafka_config,
            prefix=prefix,
            partitions=options.partitions,
            replication=options.replication,
        )
        if target.config:
            try:
                Producer(_properties(Path(target.config)), logger=_client_log)  # without servers it connects to none
            except KafkaException as error:
                raise ValueError(
                    f"expected properties of Kafka's clients in {target.config}: {_words(error)}"
                ) from None
            target.registry()
        return target

    def properties(self) -> dict[str, str]:
        """What every client of these servers is made with. ValueError where the file cannot be read as properties."""
        return {"bootstrap.servers": self.url} | (_properties(Path(self.config)) if self.config else {})

    def registry(self) -> SchemaRegistry | None:
        """The schema registry that the file of properties names. ValueError where it cannot be read."""
        found = _registry_properties(Path(self.config)) if self.config else {}
        if not found:
            return None
        from actors.delivery.sinks.schema_registry import SchemaRegistry  # its client takes a while to load

        try:
            return SchemaRegistry(found)
        except ValueError as error:
            raise ValueError(f"{self.config}: {error}") from None

    def certificates(self) -> list[str]:
        """The files of certificates that its file names: of ours and of authorities, the schema registry's too."""
        lines = _lines(Path(self.config)) if self.config else {}
        return [file for name, file in lines.items() if name.endswith(("ssl.ca.location", "ssl.certificate.location"))]

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
        """The servers in one order, however they were given, and the topics' prefix."""
        return ",".join(sorted(self.bootstrap)) + (f"/{self.prefix}" if self.prefix else "")

    def topic(self, stream: Stream) -> str:
        """Where a stream's records go."""
        return self.prefix + _TOPICS[stream]

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
        there = ", ".join(sorted(topics & set(map(self.topic, _TOPICS)))) or "created with the first record"
        registry = self.registry() if self.payload == "avro" else None
        schemas = f"; {registry.check()}" if registry is not None else ""
        return f"{self.where}: {brokers} broker(s), topics: {there}{schemas}"


def _properties(path: Path) -> dict[str, str]:
    """Those of Kafka's clients."""
    return {name: value for name, value in _lines(path).items() if not name.startswith((_REGISTRY, _USER))}


def _registry_properties(path: Path) -> dict[str, str]:
    """Those of the schema registry's clients, in their own names; none where no registry is named."""
    lines = _lines(path)
    found = {
        name.removeprefix(_REGISTRY): value for name, value in lines.items() if name.startswith((_REGISTRY, _USER))
    }
    source = f"{_USER}credentials.source"
    if found.pop(source, "USER_INFO") not in ("USER_INFO", "URL"):
        raise ValueError(f"{path}: expected USER_INFO or URL in {source}")
    if found and not found.get("url"):
        raise ValueError(f"{path}: expected schema.registry.url beside {', '.join(sorted(found))}")
    return found


def _lines(path: Path) -> dict[str, str]:
    """`name=value` a line, as librdkafka's other clients read it; # begins a comment line."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeError) as error:
        raise ValueError(f"kafka_config: cannot read {path} ({getattr(error, 'strerror', None) or error})") from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        name, equals, value = (part.strip() for part in line.partition("="))
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not (name and equals):
            raise ValueError(f"{path}, line {number}: expected name=value")
        if name in _OURS:
            raise ValueError(
                f"{path}, line {number}: {name} is set by the twin, whose guarantees need it; leave it out"
            )
        found[name] = value
    return found


def _words(error: KafkaException) -> str:
    """What the client says of a property, without the value, which may be a secret."""
    return re.sub(r'(value) "[^"]*"', r'\1 "***"', str(error.args[0].str()))


def _translate(error: KafkaError, target: KafkaTarget) -> SinkRefused | SinkUnavailable:
    said = f"{error.name()}: {error.str()}" if error.str() else error.name()
    if error.code() in _REFUSED:
        return SinkRefused(f"{target.where} refused us ({said}); check user, password, access rights and topics")
    if error.code() in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT):
        doubt = f", and does it take what {target.config} says (protocol, certificate)" if target.config else ""
        return SinkUnavailable(f"{target.where} does not answer ({error.name()}); is the broker running there{doubt}?")
    return SinkUnavailable(f"{target.where} takes no records now ({said})")


class KafkaSink:
    """See the module's docstring. The queue is one batch: `deliver` returns only when all of it is answered."""

    def __init__(self, target: KafkaTarget, log_id: str, stream: Stream) -> None:
        self._target = target
        self._stream = stream
        self._schema = -1  # its number in the registry, where there is one and it was asked
        self._failed: list[tuple[bytes, KafkaError]] = []  # of one batch: value (the report lacks headers), why
        self._said: KafkaError | None = None  # the last error that is not about one message
        self._closing = threading.Event()
        try:
            properties = target.properties()
            self._registry = target.registry() if target.payload == "avro" else None
        except ValueError as error:  # on this node
            raise SinkRefused(f"{target.where}: {error}") from None
        self._producer = Producer(
            {"client.id": f"ev-twin-{log_id}", "linger.ms": 5, "batch.size": 256 << 10}
            | properties
            | {
                "acks": "all",
                "enable.idempotence": True,
                "partitioner": "murmur2_random",  # as in Java's client and kafka-python: a vehicle keeps its partition
                # A call into Python for each message that went well would cost as much as sending it.
                "delivery.report.only.error": True,
                "on_delivery": self._on_failed,
                # Our own clock ends a delivery (`patience_s` without progress), not librdkafka's.
                "message.timeout.ms": 600_000,
                "reconnect.backoff.ms": 50,
                "reconnect.backoff.max.ms": 1000,
                "error_cb": self._on_error,
            },
            logger=_client_log,
        )

    def _on_failed(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed.append((message.value() or b"", error))

    def _on_error(self, error: KafkaError) -> None:
        # A refusal says more than the lost connection that follows from it.
        if self._said is None or self._said.code() not in _REFUSED:
            self._said = error

    def open(self) -> None:
        _, topics = self.metadata()
        target, topic = self._target, self._target.topic(self._stream)
        if self._registry is not None:
            self._schema = self._registry.number(topic, self._stream)
        if topic in topics or target.partitions == target.replication == -1:
            return
        admin = AdminClient({**target.properties()}, logger=_client_log)
        made = admin.create_topics([NewTopic(topic, target.partitions, target.replication)], request_timeout=10.0)
        try:
            made[topic].result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise _translate(error.args[0], target) from error

    def metadata(self) -> tuple[int, set[str]]:
        """Number of brokers and the topics. Raises SinkError if there is no answer."""
        try:
            found = self._producer.list_topics(timeout=_CONNECT_TIMEOUT_S)
        except KafkaException as error:
            raise self._translated(error) from error
        return len(found.brokers), set(found.topics)

    def position(self, shard: int) -> int | None:
        return None

    def heard(self) -> float:
        return time.monotonic()  # what it acknowledged it keeps, so nobody needs to know

    def deliver(self, shard: int, batch: pa.RecordBatch, position: int) -> Receipt:
        messages = encode(batch, self._stream, self._target.payload)
        if self._registry is not None:
            messages = registered(messages, self._schema)
        dead: list[DeadLetter] = []
        self._failed = []
        try:
            self._send(messages, range(len(messages.ids)), dead)
            rows = {value: row for row, value in enumerate(messages.values)} if self._failed else {}
            for row, error in sorted(((rows[value], error) for value, error in self._failed), key=itemgetter(0)):
                if error.code() not in _TOO_LARGE:
                    raise _translate(error, self._target)
                # The broker refuses a whole request if one record is too large, so send each on its own.
                self._failed = []
                self._send(messages, [row], dead)
                if self._failed and self._failed[0][1].code() not in _TOO_LARGE:
                    raise _translate(self._failed[0][1], self._target)
                dead += [DeadLetter(row, why.str()) for _, why in self._failed]
        except KafkaException as error:
            raise self._translated(error) from error
        finally:
            self._purge()
        return Receipt(0, tuple(sorted(dead, key=lambda letter: letter.row)))

    def _send(self, messages: Messages, rows: range | list[int], dead: list[DeadLetter]) -> None:
        """Hand over these rows and wait until each is answered. While the client's queue is full, wait for answers."""
        topic, produce = self._target.topic(self._stream), self._producer.produce
        vehicles, ids, values = messages.vehicle_ids, messages.ids, messages.values
        for row in rows:
            while True:
                try:
                    produce(topic, values[row], vehicles[row], headers=[("id", ids[row])])
                    break
                except BufferError:
                    self._producer.poll(_POLL_S)
                    self._give_up_if(self._closing.is_set(), "closed while it delivered")
                except KafkaException as error:
                    if error.args[0].code() not in _TOO_LARGE:
                        raise
                    dead.append(DeadLetter(row, error.args[0].str()))
                    break
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

    def _translated(self, error: KafkaException) -> SinkRefused | SinkUnavailable:
        """A refusal says more than the failures that follow from it."""
        try:
            self._producer.poll(0)
        except KafkaException as fatal:  # the end of this producer, and its reason
            self._on_error(fatal.args[0])
        said = self._said if self._said is not None and self._said.code() in _REFUSED else error.args[0]
        return _translate(said, self._target)

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
