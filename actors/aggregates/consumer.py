"""`twin consume`: telemetry from Kafka to fleet aggregates per minute, in Kafka and in the database.

Delivery: an offset is committed only when everything before it has been acknowledged by the database (`fleet_minute`),
by `ev-fleet-minute` and, where it was malformed, by the dead-letter topic. After a kill the next process reads again
from there, and the windows know what they have already counted. So each record counts exactly once in the database, and
each window is in the topic at least once, under the same key.

Queues: a batch of at most `_BATCH` messages; what librdkafka has fetched ahead (64 MB; when full, it stops fetching);
open windows (`Windows`; when full, the oldest close). While a server is down the partitions are paused and nothing is
read.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from actors.aggregates.producer import Headers, SettlingProducer
from actors.aggregates.store import SUMS, WindowStore
from actors.aggregates.windows import WINDOW_VERSION, Key, Window, Windows, minute_of
from actors.delivery.sinks import SinkRefused, SinkUnavailable
from actors.delivery.sinks.kafka import KafkaTarget
from actors.delivery.sinks.timescale import TimescaleTarget
from datasets.codec import Malformed, decode, schema_number, single_object
from datasets.names import utc_text

_log = logging.getLogger(__name__)

_BATCH = 2000
_POLL_S = 0.2
_FLUSH_S = 1.0
_SCHEMAS = 1000  # of a registry that are remembered
_LOADS = 64  # windows read back at a time, so that a batch of late records cannot fill the memory
_RETRY_S = (0.2, 2.0)
_ACK_S = 5.0
_ALONE_S = 30.0  # longer than a dead member's session and a rebalance
_LAST_WORDS_S = 15.0  # patience with a server that is down, after we were told to stop
_REFUSED = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED)


class Undelivered(Exception):
    """Told to stop while a server was down: what is not committed will be read again. One line says which server."""


@dataclass(frozen=True)
class ConsumePlan:
    """What to read, where to write, when to close. Times are wall-clock seconds, but `lateness_s` is simulated."""

    kafka: KafkaTarget
    database: TimescaleTarget
    group: str = "ev-twin-consume"
    topic: str = "ev-telemetry"
    output: str = "ev-fleet-minute"
    lateness_s: float = 10.0
    idle_s: float = 30.0
    until_idle_s: float | None = None
    max_open: int = 1_000_000

    @property
    def dead_letters(self) -> str:
        """The topic of malformed messages."""
        return f"{self.topic}-dlq"


@dataclass(frozen=True)
class _Read:
    """A message, its place, and how often its partition had been assigned or revoked when it was read."""

    message: Message
    partition: int
    offset: int
    epoch: int


class FleetConsumer:
    """One member of the group. It is single-threaded: Kafka's callbacks run inside our own polls."""

    def __init__(self, plan: ConsumePlan, say: Callable[[str], None] = _log.warning) -> None:
        self._plan = plan
        self._say = say
        self._registry = plan.kafka.registry()
        self._schemas: dict[int, bytes] = {}  # fingerprints by number
        self._config: dict[str, str | int | float | bool] = {**plan.kafka.properties(), "log_level": 0}
        self.windows = Windows(lateness_s=plan.lateness_s, idle_s=plan.idle_s, max_open=plan.max_open)
        self.waiting = ""  # what we wait for, while a server is down
        self.lag: dict[int, int] = {}
        self._store = WindowStore(plan.database, plan.topic)
        self._producer = SettlingProducer(self._config)
        self._consumer: Consumer | None = None
        self._stop = threading.Event()
        self._deadline = float("inf")
        # Counts how often each partition came or went. Messages read before the last such change are of no use.
        self._epochs: defaultdict[int, int] = defaultdict(int)
        self._mine: set[int] = set()
        self._alone_since = time.monotonic()  # since when we have no partition
        self._disturbed = False  # the brokers were down, so silence proves nothing
        self._held: list[_Read] = []
        self._committed: dict[int, int] = {}
        # Where the broker said that a partition ends. Its last offsets may hold no record: a transaction's marker,
        # what a transaction gave up, what was compacted.
        self._ends: dict[int, int] = {}

    @property
    def partitions(self) -> frozenset[int]:
        """The partitions that are ours at this moment."""
        return frozenset(self._mine)

    # ---- life

    def run(self, stop: threading.Event) -> None:
        """Consume until told to stop, or idle for `until_idle_s`; then write what is open.

        Raises Undelivered or SinkRefused.
        """
        self._stop = stop
        try:
            self._patiently(self._store.open)
            self._patiently(self._make_topics)
            self._consumer = self._subscribed()
            self._loop()
            self._flush(everything=True)
            self._commit(wait=True)
        finally:
            if self._consumer is not None:
                self._consumer.close()
            self._store.close()

    def _loop(self) -> None:
        heard = flushed = time.monotonic()
        while not self._stop.is_set():
            messages = self._poll()
            now = time.monotonic()
            if messages:
                heard = now
                self._take(messages)
            if now - flushed >= _FLUSH_S:
                self._flush()
                self._commit()
                self._measure_lag()
                flushed = time.monotonic()
            patience = self._plan.until_idle_s
            if patience is not None and time.monotonic() - heard >= patience:
                end = self._at_the_end()
                if end and not self._disturbed:
                    return
                # After an outage, idle time counts from the first answer on, and so does time without a partition.
                heard = time.monotonic()
                if self._disturbed:
                    self._alone_since = heard
                self._disturbed = end is None

    def _subscribed(self) -> Consumer:
        consumer = Consumer(
            self._config
            | {
                "group.id": self._plan.group,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": 10_000,  # heartbeats have their own thread: this finds the dead, not the slow
                "topic.metadata.refresh.interval.ms": 10_000,
                "error_cb": self._on_error,
            }
        )
        consumer.subscribe(
            [self._plan.topic], on_assign=self._on_assign, on_revoke=self._on_gone, on_lost=self._on_gone
        )
        return consumer

    def _make_topics(self) -> None:
        """Create missing topics: source and dead letters with the broker's defaults, the output compacted."""
        large = {"max.message.bytes": str(2 << 20)}  # a dead letter is the original plus headers
        wanted: dict[str, dict[str, str]] = {
            self._plan.topic: {},
            self._plan.output: {"cleanup.policy": "compact"},
            self._plan.dead_letters: large,
        }
        admin = AdminClient(self._config)
        where = self._plan.kafka.where
        try:
            there = admin.list_topics(timeout=5.0).topics
            new = [NewTopic(name, -1, -1, config=config) for name, config in wanted.items() if name not in there]
            made = admin.create_topics(new, operation_timeout=10.0, request_timeout=10.0) if new else {}
            for name, future in made.items():
                try:
                    future.result()
                except KafkaException as error:
                    if error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                        raise SinkRefused(f"{where} does not let us create topic {name}; create it first") from error
                    if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                        raise
        except KafkaException as error:
            raise SinkUnavailable(
                f"{where} does not answer ({error.args[0].name()}); is the broker running there?"
            ) from error

    # ---- Kafka's callbacks, inside our polls

    def _on_assign(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for part in partitions:
            self._forget(part.partition)
            self._mine.add(part.partition)
        if self.waiting:
            self._pause()
        elif self._consumer is not None:
            # A partition that was lost while it was paused comes back paused.
            self._consumer.resume(partitions)

    def _on_gone(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # Nothing is written here: the partition's next member reads again what is not committed.
        for part in partitions:
            self._forget(part.partition)
            self._mine.discard(part.partition)
        if not self._mine:
            self._alone_since = time.monotonic()

    def _forget(self, partition: int) -> None:
        self._epochs[partition] += 1
        self.windows.drop(partition)
        self._committed.pop(partition, None)
        self._ends.pop(partition, None)
        self.lag.pop(partition, None)

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._disturbed = True
            self._say(f"{self._plan.kafka.where} does not answer; waiting")

    # ---- patience

    def _patiently[T](self, attempt: Callable[[], T]) -> T:
        """Repeat `attempt` until it succeeds. Meanwhile partitions are paused but polled, so we stay in the group."""
        pause_s = _RETRY_S[0]
        try:
            while True:
                try:
                    return attempt()
                except SinkUnavailable as error:
                    if not self.waiting:
                        self._say(f"{error}; waiting")
                    self.waiting = str(error)
                    self._pause()
                    self._hold(pause_s)
                    pause_s = min(2 * pause_s, _RETRY_S[1])
        finally:
            if self.waiting:
                self.waiting = ""
                self._resume()

    def _hold(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._stop.is_set():
                # Before the first message there is nothing to be patient for.
                patience_s = _LAST_WORDS_S if self._consumer is not None else 0.0
                self._deadline = min(self._deadline, time.monotonic() + patience_s)
                if time.monotonic() >= self._deadline:
                    raise Undelivered(f"{self.waiting}; what is not committed will be read again")
            if self._consumer is None:
                time.sleep(min(left, _POLL_S))
                continue
            message = self._consumer.poll(min(left, _POLL_S))
            if message is not None and self._usable(message):
                self._held.append(self._read(message))

    def _parts(self) -> list[TopicPartition]:
        return [TopicPartition(self._plan.topic, number) for number in self._mine]

    def _pause(self) -> None:
        if self._consumer is not None:
            self._consumer.pause(self._parts())

    def _resume(self) -> None:
        if self._consumer is not None:
            self._consumer.resume(self._parts())

    # ---- in

    def _read(self, message: Message) -> _Read:
        partition, offset = message.partition(), message.offset()
        assert partition is not None
        assert offset is not None
        return _Read(message, partition, offset, self._epochs[partition])

    def _poll(self) -> list[_Read]:
        assert self._consumer is not None
        messages, self._held = self._held, []
        for message in self._consumer.consume(_BATCH, timeout=0.0 if messages else _POLL_S):
            if self._usable(message):
                messages.append(self._read(message))
        return messages

    def _usable(self, message: Message) -> bool:
        error = message.error()
        if error is None:
            return True
        partition, offset = message.partition(), message.offset()
        if error.code() == KafkaError._PARTITION_EOF and partition is not None and offset is not None:
            self._ends[partition] = offset
            return False
        if error.code() in _REFUSED:
            raise SinkRefused(f"{self._plan.kafka.where} refused us ({error.str()})")
        _log.info("Kafka: %s", error.str())  # retried by the library
        return False

    def _take(self, messages: list[_Read]) -> None:
        """Fold a batch, in stretches that each need at most `_LOADS` windows that are not in memory."""
        for stretch, unknown in self._stretches(messages):
            stored = self._patiently(partial(self._store.load, unknown)) if unknown else {}
            now = time.monotonic()
            for read, record in stretch:
                message, number, offset = read.message, read.partition, read.offset
                if read.epoch != self._epochs[number] or number not in self._mine:
                    continue  # lost while we waited
                if isinstance(record, Malformed):
                    why = _why(message, record, self._plan.topic)
                    what = f"the malformed message at partition {number}, offset {offset} of {self._plan.topic},"
                    self._producer.put(self._plan.dead_letters, message.key(), message.value(), why, what)
                    self.windows.skip(number, offset)
                else:
                    key = (record["run_id"], minute_of(record["ts"]), number)
                    self.windows.add(number, offset, record, now, stored.get(key))
            if self.windows.full():
                self._flush()

    def _stretches(
        self, messages: list[_Read]
    ) -> Iterator[tuple[list[tuple[_Read, dict[str, Any] | Malformed]], set[Key]]]:
        stretch: list[tuple[_Read, dict[str, Any] | Malformed]] = []
        unknown: set[Key] = set()
        for read in messages:
            record: dict[str, Any] | Malformed
            try:
                record = decode(self._plain(read.message.value() or b""), "telemetry")
            except Malformed as error:
                record = error
            else:
                key = (record["run_id"], minute_of(record["ts"]), read.partition)
                if key not in self.windows:
                    unknown.add(key)
            stretch.append((read, record))
            if len(unknown) >= _LOADS:
                yield stretch, unknown
                stretch, unknown = [], set()
        if stretch:
            yield stretch, unknown

    def _plain(self, value: bytes) -> bytes:
        """As `decode` takes it: the registry, where there is one, says which schema a number stands for."""
        if self._registry is None or (number := schema_number(value)) is None:
            return value
        if number not in self._schemas:
            if len(self._schemas) >= _SCHEMAS:  # numbers of garbage
                self._schemas.clear()
            self._schemas[number] = self._patiently(partial(self._registry.fingerprint, number))
        known = self._schemas[number]
        return single_object(value, known) if known else value

    # ---- out

    def _flush(self, *, everything: bool = False) -> None:
        """Write the windows that can be closed: database, then topic. When both have acknowledged, close them."""
        closing = self.windows.closable(time.monotonic(), everything=everything)
        current = self._patiently(lambda: self._store.save(closing)) if closing else []
        for window in current:
            key = _key(window)
            value = _value(window, self._plan.topic)
            self._producer.put(self._plan.output, key, value, [], f"the window {key.decode()}")
        self._patiently(self._settle)
        self.windows.close(closing)

    def _settle(self) -> None:
        if not self._producer.settle(_ACK_S):
            where = self._plan.kafka.where
            raise SinkUnavailable(f"{where} has not acknowledged {len(self._producer)} messages")

    def _commit(self, *, wait: bool = False) -> None:
        assert self._consumer is not None
        free = {number: offset for number, offset in self.windows.offsets().items() if number in self._mine}
        new = free if wait else {n: offset for n, offset in free.items() if self._committed.get(n) != offset}
        if not new:
            return
        parts = [TopicPartition(self._plan.topic, number, offset) for number, offset in new.items()]
        try:
            if wait:
                self._consumer.commit(offsets=parts, asynchronous=False)
            else:
                self._consumer.commit(offsets=parts, asynchronous=True)
        except KafkaException as error:
            # A rebalance, or a broker is down. What is not committed is read again, and changes nothing.
            _log.info("offsets not committed: %s", error)
            return
        self._committed |= new

    # ---- how far

    def _measure_lag(self) -> None:
        assert self._consumer is not None
        for part in self._parts():
            position = self._reached(part.partition)
            if position >= 0:
                _, high = self._consumer.get_watermark_offsets(part, cached=True)
                self.lag[part.partition] = max(high - position, 0)

    def _reached(self, partition: int) -> int:
        """The offset before which nothing of the partition is left to read; -1 where none of it was read."""
        return max(self.windows.position(partition) or -1, self._ends.get(partition, -1))

    def _at_the_end(self) -> bool | None:
        """Whether the broker itself says that our partitions have no more; None if it does not answer."""
        assert self._consumer is not None
        try:
            if not self._mine:
                # A surplus member never gets a partition; after a rebalance or a broker's restart one is on its way.
                self._consumer.list_topics(self._plan.topic, timeout=5.0)
                return time.monotonic() - self._alone_since >= _ALONE_S
            committed = {part.partition: part.offset for part in self._consumer.committed(self._parts(), timeout=5.0)}
            for part in self._parts():
                low, high = self._consumer.get_watermark_offsets(part, timeout=5.0)
                if high > low and max(committed[part.partition], self._reached(part.partition)) < high:
                    return False
        except KafkaException:
            return None
        return True


def _why(message: Message, error: Malformed, topic: str) -> Headers:
    """A dead letter's headers: ours, then those of the original message."""
    ours: Headers = [
        ("reason", str(error).encode(errors="replace")),
        ("source_topic", topic.encode()),
        ("source_partition", str(message.partition()).encode()),
        ("source_offset", str(message.offset()).encode()),
    ]
    theirs = message.headers() or []
    return ours + list(theirs.items() if isinstance(theirs, dict) else theirs)


def _key(window: Window) -> bytes:
    """The key; compaction keeps its last message."""
    return f"{window.run_id}/{utc_text(window.minute)}/{window.partition}".encode()


def _value(window: Window, topic: str) -> bytes:
    return orjson.dumps(
        {
            "schema": WINDOW_VERSION,
            "run_id": window.run_id,
            "minute": utc_text(window.minute),
            "topic": topic,
            "partition": window.partition,
            "vehicles": window.vehicles,
            **{name: getattr(window, name) for name in SUMS},
        }
    )


class ConsumerCollector(Collector):
    """A consumer's state as Prometheus metrics."""

    def __init__(self, consumer: FleetConsumer) -> None:
        self._consumer = consumer

    def collect(self) -> Iterator[Metric]:
        """Every metric of this member."""
        windows, counts = self._consumer.windows, self._consumer.windows.counts
        for name, says, value in (
            ("consumed_records", "Telemetry records counted", counts.counted),
            ("duplicates", "Records that came before in another message", counts.duplicates),
            ("again", "Records read again after a restart or a rebalance, counted before", counts.again),
            ("late_records", "Records behind the watermark, counted all the same", counts.late),
            ("malformed", "Messages sent to the dead-letter topic", counts.malformed),
            ("windows", "Windows written", counts.windows),
            (
                "missing_records",
                "Records that had not come when their minute was written, between others of the vehicle",
                counts.missing,
            ),
        ):
            yield CounterMetricFamily(f"ev_consume_{name}", says, value)
        yield GaugeMetricFamily("ev_consume_open_windows", "Windows in memory", len(windows))
        yield GaugeMetricFamily("ev_consume_waiting", "1 while a server is down", float(bool(self._consumer.waiting)))
        lag = GaugeMetricFamily("ev_consume_lag_records", "Messages not read yet", labels=["partition"])
        for partition, behind in dict(self._consumer.lag).items():
            lag.add_metric([str(partition)], behind)
        yield lag
