"""`--until-idle` with a broker of this process and a clock of its own: only silence of a broker that answers counts."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from actors.aggregates.consumer import ConsumePlan, FleetConsumer
from actors.delivery.sinks import SinkOptions
from actors.delivery.sinks.kafka import KafkaTarget
from actors.delivery.sinks.timescale import TimescaleTarget

PARTS = [TopicPartition("ev-telemetry", number) for number in range(4)]


@dataclass
class Broker:
    """What the consumer sees of Kafka: second by second, as a scene of the test says."""

    member: FleetConsumer
    down: range
    back_at: int
    now: int = 0

    def consume(self, _count: int, timeout: float = 0.0) -> list[Any]:
        """A second passes."""
        self.now += 1
        if self.now in self.down:
            if self.now % 10 == 0:
                self.member._on_error(KafkaError(KafkaError._ALL_BROKERS_DOWN))
            if self.now == self.down.start + 10:
                self.member._on_gone(self, PARTS)  # type: ignore[arg-type]
        if self.now == self.back_at:
            self.member._on_assign(self, PARTS)  # type: ignore[arg-type]
        return []

    def _answer(self) -> None:
        if self.now in self.down:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))

    def list_topics(self, _topic: str, timeout: float) -> None:
        self._answer()

    def committed(self, parts: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        self._answer()
        return [TopicPartition(part.topic, part.partition, 0) for part in parts]

    def get_watermark_offsets(self, _part: TopicPartition, **_: Any) -> tuple[int, int]:
        self._answer()
        return 0, 0

    def pause(self, _parts: list[TopicPartition]) -> None: ...

    def resume(self, _parts: list[TopicPartition]) -> None: ...


@dataclass
class Clock:
    """The module `time`, as far as it is used."""

    broker: Broker

    def monotonic(self) -> float:
        return float(self.broker.now)


def ended_at(monkeypatch: pytest.MonkeyPatch, down: range, back_at: int) -> int:
    plan = ConsumePlan(
        KafkaTarget.parse("nowhere:1", SinkOptions()),
        TimescaleTarget.parse("postgresql://twin@nowhere/twin", SinkOptions()),
        until_idle_s=4.0,
    )
    member = FleetConsumer(plan, lambda text: None)
    broker = Broker(member, down, back_at)
    monkeypatch.setattr(member, "_consumer", broker)
    monkeypatch.setattr("actors.aggregates.consumer.time", Clock(broker))
    member._alone_since = 0.0
    member._on_assign(broker, PARTS)  # type: ignore[arg-type]
    member._stop = threading.Event()
    member._loop()
    return broker.now


def test_idle_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ended_at(monkeypatch, range(0), 0) == 4


def test_a_long_outage_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its partitions are lost meanwhile, and come back a little after the broker."""
    assert ended_at(monkeypatch, range(2, 100), 115) > 115


def test_who_gets_no_partition_ends_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 130 <= ended_at(monkeypatch, range(2, 100), 10_000) < 150
