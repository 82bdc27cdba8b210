"""Kafka of three brokers: one is killed and comes back, leaders move, and nothing is missing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.scene import Scene
from tests.services.fixtures import needed
from tests.services.replicated import KafkaCluster

pytestmark = [pytest.mark.services, pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.fixture
def kafka() -> Iterator[KafkaCluster]:
    """Three brokers in the place of one."""
    with needed():
        KafkaCluster.install()
    with KafkaCluster() as cluster:
        yield cluster


def test_a_broker_of_three_is_killed_and_leaders_move(scene: Scene, kafka: KafkaCluster) -> None:
    with scene.fleet() as running:
        running.on()
        before = kafka.leaders("ev-telemetry")
        lost = kafka.brokers[before[0] - 1]
        with scene.recovery("one Kafka broker of three killed (until others lead and records flow)"):
            lost.kill()
            kafka.moved("ev-telemetry", lost)
            running.flowing("kafka")
        assert set(kafka.leaders("ev-telemetry")) == set(before)
        running.on()
        lost.start().wait_ready()
        with scene.recovery("Kafka's partitions led by others again (until records flow)"):
            kafka.settle("ev-telemetry")
            running.flowing("kafka")
        assert kafka.leaders("ev-telemetry") == before
        running.on()
    scene.balance()
