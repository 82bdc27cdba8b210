"""Peers that survive the loss of a server: the fleet goes on with what is left, and nothing is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.scene import Scene
from tests.recoveries import note_recoveries
from tests.services import Kafka, Mosquitto, Postgres, ServiceUnavailable
from tests.services.fixtures import unavailable
from tests.services.replicated import KafkaCluster, PostgresPair
from tests.support import wait_until

pytestmark = [pytest.mark.services, pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.fixture
def parts() -> Iterator[ExitStack]:
    """What a test starts besides, ended with it."""
    with ExitStack() as stack:
        yield stack


def started[S: KafkaCluster | PostgresPair](parts: ExitStack, servers: S) -> S:
    try:
        parts.enter_context(servers)
    except ServiceUnavailable as error:
        unavailable(str(error))
    return servers


def test_a_broker_of_three_is_killed_and_leaders_move(
    parts: ExitStack,
    mosquitto: Mosquitto,
    postgres: Postgres,
    postgres_database: str,
    tmp_path: Path,
    unique_name: Callable[[str], str],
    request: pytest.FixtureRequest,
) -> None:
    cluster = started(parts, KafkaCluster())
    scene = Scene(cluster, mosquitto, postgres, postgres_database, tmp_path, unique_name("run"), "json")
    parts.callback(scene.close)
    with scene.fleet() as running:
        running.on()
        before = cluster.leaders("ev-telemetry")
        lost = cluster.brokers[before[0] - 1]
        with scene.recovery("one Kafka broker of three killed (until records flow)"):
            lost.kill()
            running.flowing("kafka")
        assert lost.number not in cluster.leaders("ev-telemetry").values()
        running.on()
        lost.start().wait_ready()
        with scene.recovery("Kafka's partitions led by others again (until records flow)"):
            cluster.settle("ev-telemetry")
            running.flowing("kafka")
        assert cluster.leaders("ev-telemetry") == before
        running.on()
    scene.balance()
    note_recoveries(request.node, scene.recoveries)


def test_the_primary_is_killed_and_the_standby_takes_over(
    parts: ExitStack,
    kafka: Kafka,
    mosquitto: Mosquitto,
    tmp_path: Path,
    unique_name: Callable[[str], str],
    request: pytest.FixtureRequest,
) -> None:
    pair = started(parts, PostgresPair())
    scene = Scene(kafka, mosquitto, pair, pair.url, tmp_path, unique_name("run"), "json")
    parts.callback(scene.close)
    with scene.fleet() as running:
        running.on()
        lost = pair.leader()
        assert lost is not None
        with scene.recovery("PostgreSQL's primary killed, the standby promoted by Patroni (until records flow)"):
            lost.kill()
            running.waiting("timescale")
            running.flowing("timescale")
        assert pair.leader() not in (None, lost)
        running.on()
        with scene.recovery("the old primary back as a synchronous standby"):
            lost.start()
            wait_until(pair.whole, lambda: lost.log.read_text()[-2000:], look_s=0.2)
        running.on()
    scene.balance()
    note_recoveries(request.node, scene.recoveries)
