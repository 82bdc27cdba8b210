"""What a fleet asks of a cluster. `ray_cluster.py` implements it with Ray; a test does so in its own process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, Protocol

from actors.delivery.shipper import Shipper
from actors.delivery.sinks.base import Target
from actors.fleet.placement import Place
from actors.fleet.plan import FleetPlan, ShardPlan
from actors.fleet.shard import Shard
from actors.prediction.feeder import Feeder
from actors.prediction.plan import FeederPlan, PoolPlan


class ActorGone(Exception):
    """The actor's process is gone, or its node; the message is the cause in one line."""


class ActorFailed(Exception):
    """The actor raised, but lives on. The message is the cause in one line."""


class NoAnswer(Exception):
    """No answer in the time given."""


class Remote[S](Protocol):
    """An actor that runs an object of class S."""

    @property
    def kind(self) -> type[S]:
        """S."""


class Pending[R](Protocol):
    """An answer that is on its way."""

    @property
    def method(self) -> Callable[..., R]:
        """What was asked."""

    @property
    def done(self) -> bool:
        """Whether the answer is there."""


class Cluster(Protocol):
    """Starts actors, calls them, notices their death."""

    def live_nodes(self) -> int:
        """How many nodes are alive."""

    def cpus(self) -> tuple[float, float]:
        """Logical CPUs: free, and in all."""

    def start_shard(self, plan: ShardPlan, place: Place) -> Remote[Shard]:
        """Start a shard in its own process. Its first answer comes when it is ready."""

    def start_shipper(
        self, target: Target, plan: FleetPlan, first_rows: dict[int, tuple[int, int]], place: Place
    ) -> Remote[Shipper]:
        """Start a shipper of these shards. `first_rows`: by shard, the rows that precede its logs, if they are new. It
        ships from its start on."""

    def start_feeder(self, plan: FeederPlan, place: Place) -> Remote[Feeder]:
        """Start a feeder. It feeds from its start on."""

    def start_pool(self, plan: PoolPlan) -> None:
        """Start the predictor pool; returns when its replicas answer."""

    def pool_replicas(self, plan: PoolPlan) -> int:
        """How many replicas of the pool are up. The cluster itself starts a new one for one that died."""

    def stop_pool(self, plan: PoolPlan) -> None:
        """End the predictor pool, wherever its start has come to, on a cluster that outlives it."""

    def ask[S, **P, R](
        self, actor: Remote[S], method: Callable[Concatenate[S, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> Pending[R]:
        """Call a method of the actor's object, without waiting."""

    def arrived(self, timeout_s: float) -> list[Pending[Any]]:
        """The calls that were answered since the last time, each once. Waits for one at most `timeout_s`."""

    def answer[R](self, pending: Pending[R], timeout_s: float | None = None) -> R:
        """Wait for the answer. Raises ActorGone, ActorFailed, NoAnswer."""

    def kill(self, actor: Remote[Any]) -> None:
        """Kill the actor."""
