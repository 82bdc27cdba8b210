"""A cluster in this process: actors are plain objects, and a test says when they answer, die or move."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Concatenate

from actors.delivery.shipper import Shipper, ShipperStatus
from actors.delivery.sinks.base import Target
from actors.fleet.cluster import ActorFailed, ActorGone, Cluster, NoAnswer, Pending, Remote
from actors.fleet.placement import Place
from actors.fleet.plan import FleetPlan, ShardPlan
from actors.fleet.shard import Shard, ShardStatus
from actors.prediction.feeder import Feeder, FeederStatus
from actors.prediction.plan import FeederPlan, PoolPlan
from datasets.log import Cursor
from datasets.schema import STREAMS


@dataclass
class StandIn:
    """Answers for a shard: it is wherever it was asked to step to, and keeps what it was asked.

    `log`: where it begins, as its log and its checkpoint say. `waits`: for what it cannot go on. `no_room`: how often
    it finds no room for what it writes at its end.
    """

    plan: ShardPlan
    node: str
    log: dict[int, int]
    waits: str = ""
    no_room: int = 0
    blocks: list[tuple[int, int | None]] = field(default_factory=list)
    closed: bool = False

    def status(self) -> ShardStatus:
        tick = self.log.get(self.plan.shard, 0)
        return ShardStatus(
            shard=self.plan.shard, pid=1000 + self.plan.shard, node=self.node, tick=tick,
            records=self.plan.rows(tick), compute_s=0.0, waiting_for=self.waits, checkpoint_tick=tick // 100 * 100,
        )  # fmt: skip

    def advance(self, until_tick: int, due_ns: int | None = None) -> ShardStatus:
        self.blocks.append((until_tick, due_ns))
        if not self.waits:
            self.log[self.plan.shard] = max(until_tick, self.log.get(self.plan.shard, 0))
        return self.status()

    def checkpoint(self) -> tuple[int, bytes]:
        tick = self.log.get(self.plan.shard, 0) // 100 * 100
        return tick, b"checkpoint at %d" % tick

    def close(self) -> ShardStatus:
        if self.no_room:
            self.no_room -= 1
            return replace(self.status(), waiting_for="room on the volume")
        self.closed = True
        return replace(self.status(), waiting_for="")

    def vehicle_state(self, vehicle: int) -> dict[str, Any]:
        return {"vehicle": vehicle, "shard": self.plan.shard}

    def inject(self, vehicle: int, kind: str, onset_s: float, severity: float) -> None:
        self.blocks.append((vehicle, None))


@dataclass
class Carried:
    """Answers for a shipper or a feeder: it has all that the test says it has."""

    answers: ShipperStatus | FeederStatus
    stopped: bool = False

    def status(self) -> ShipperStatus | FeederStatus:
        return self.answers

    def stop(self) -> ShipperStatus | FeederStatus:
        self.stopped = True
        return self.answers


@dataclass(eq=False)
class Actor[S]:
    kind: type[S]
    thing: Any
    place: Place
    dead: str = ""
    killed: bool = False


@dataclass(eq=False)
class Call[R]:
    method: Callable[..., R]
    actor: Actor[Any]
    arguments: tuple[Any, ...]
    silent: Callable[[Actor[Any]], bool] = lambda actor: False

    @property
    def done(self) -> bool:
        return not self.silent(self.actor)


@dataclass
class InProcess(Cluster):
    """`nodes`: names, the next shard goes to the next one. `logs`: where each shard is, kept over its deaths."""

    nodes: tuple[str, ...] = ("one",)
    logs: dict[int, int] = field(default_factory=dict)
    shards: list[Actor[Shard]] = field(default_factory=list)
    shippers: list[Actor[Shipper]] = field(default_factory=list)
    feeders: list[Actor[Feeder]] = field(default_factory=list)
    pools: list[PoolPlan] = field(default_factory=list)
    pool_fails: str = ""
    pool_fails_once: str = ""
    pool_starts: int = 0
    replica_up: bool = True
    still_born: str = ""
    """Why every shard that is started from now on is dead at once."""
    silent: set[int] = field(default_factory=set)
    """Shards whose answers do not come."""
    asked: list[Call[Any]] = field(default_factory=list)
    history: deque[str] = field(default_factory=lambda: deque(maxlen=1000))

    def live_nodes(self) -> int:
        return len(self.nodes)

    def start_shard(self, plan: ShardPlan, place: Place) -> Remote[Shard]:
        node = place.node if place.node in self.nodes else self.nodes[len(self.shards) % len(self.nodes)]
        actor = Actor(Shard, StandIn(plan, node, self.logs), place, self.still_born)
        self.shards.append(actor)
        return actor

    def start_shipper(
        self, target: Target, plan: FleetPlan, first_rows: dict[int, tuple[int, int]], place: Place
    ) -> Remote[Shipper]:
        cursors = {(stream, shard): Cursor() for stream in STREAMS for shard in first_rows}
        actor = Actor(Shipper, Carried(ShipperStatus(target.name, 2000, cursors)), place)
        self.shippers.append(actor)
        return actor

    def start_feeder(self, plan: FeederPlan, place: Place) -> Remote[Feeder]:
        read = {shard: first for shard, (first, _) in plan.first_rows.items()}
        actor = Actor(Feeder, Carried(FeederStatus(3000, read, dict.fromkeys(read, 0))), place)
        self.feeders.append(actor)
        return actor

    def start_pool(self, plan: PoolPlan) -> None:
        self.pools.append(plan)
        self.pool_starts += 1
        if self.pool_fails_once and self.pool_starts == 1:
            raise ActorFailed(self.pool_fails_once)
        if self.pool_fails:
            raise ActorFailed(self.pool_fails)

    def pool_replicas(self, plan: PoolPlan) -> int:
        return int(self.replica_up)

    def stop_pool(self, plan: PoolPlan) -> None:
        self.pools.remove(plan)

    def ask[S, **P, R](
        self, actor: Remote[S], method: Callable[Concatenate[S, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> Pending[R]:
        assert isinstance(actor, Actor)
        call = Call(method, actor, args, self._is_silent)
        self.asked.append(call)
        return call

    def arrived(self, timeout_s: float) -> list[Pending[Any]]:
        heard: list[Pending[Any]] = [call for call in self.asked if call.done]
        self.asked = [call for call in self.asked if not call.done]
        return heard

    def cpus(self) -> tuple[float, float]:
        return 0.0, 4.0

    def _is_silent(self, actor: Actor[Any]) -> bool:
        return isinstance(actor.thing, StandIn) and actor.thing.plan.shard in self.silent

    def answer[R](self, pending: Pending[R], timeout_s: float | None = None) -> R:
        assert isinstance(pending, Call)
        if self._is_silent(pending.actor):
            raise NoAnswer("no answer")
        if pending.actor.dead:
            raise ActorGone(pending.actor.dead)
        self.history.append(pending.method.__name__)
        answer: R = getattr(pending.actor.thing, pending.method.__name__)(*pending.arguments)
        return answer

    def kill(self, actor: Remote[Any]) -> None:
        assert isinstance(actor, Actor)
        actor.killed = True
