"""PostgreSQL with a synchronous standby: the primary is killed, Patroni promotes the other, and nothing is missing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.scene import Scene
from tests.services.fixtures import needed
from tests.services.replicated import PostgresPair
from tests.support import wait_until

pytestmark = [pytest.mark.services, pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.fixture
def pair() -> Iterator[PostgresPair]:
    with needed():
        PostgresPair.install()
    with PostgresPair() as members:
        yield members


@pytest.fixture
def postgres_database(pair: PostgresPair) -> str:
    """The pair's in the place of a single server's."""
    return pair.url


def test_the_primary_is_killed_and_the_standby_takes_over(scene: Scene, pair: PostgresPair) -> None:
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
