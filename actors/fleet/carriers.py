"""The carriers of a node's records: a shipper for each sink, and a feeder for the predictor pool.

The cluster restarts a carrier that dies. This module polls the carriers' status.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from actors.delivery.shipper import Shipper, ShipperStatus
from actors.fleet.cluster import ActorFailed, ActorGone, Cluster, NoAnswer, Pending, Remote
from actors.fleet.placement import place_of_carrier
from actors.fleet.plan import FleetPlan, ShardPlan
from actors.prediction.feeder import Feeder, FeederStatus
from actors.prediction.plan import READER
from datasets.schema import Stream

_STOP_S = 45.0


@dataclass
class Carrier[S, T]:
    """One carrier on one node, with its last answer. `unreachable`: it died, or its node did."""

    name: str
    node: str
    actor: Remote[S]
    status: T
    how: Callable[[S], T]
    stop: Callable[[S], T]
    call: Pending[T] | None = None
    unreachable: bool = False

    def poll(self, cluster: Cluster, patience_s: float) -> None:
        """Take the answer to the last question, and ask the next one."""
        if self.call is not None:
            if not cluster.ready([self.call], patience_s):
                return
            try:
                self.status = cluster.answer(self.call)
                self.unreachable = False
            except (ActorGone, ActorFailed):  # dead, restarting, or bound to a node that is gone
                self.unreachable = True
        self.call = cluster.ask(self.actor, self.how)


@dataclass
class Carriers:
    """All carriers of a fleet."""

    plan: FleetPlan
    cluster: Cluster
    shippers: list[Carrier[Shipper, ShipperStatus]] = field(default_factory=list)
    feeders: list[Carrier[Feeder, FeederStatus]] = field(default_factory=list)

    def all(self) -> list[Carrier[Any, Any]]:
        """Feeders first: their last predictions may still find an open shipper."""
        return [*self.feeders, *self.shippers]

    def place(self, node: str, shards: list[ShardPlan], first_rows: Callable[[ShardPlan], tuple[int, int]]) -> None:
        """Start carriers on a node for these shards. `first_rows`: the rows that precede a shard's logs, if new."""
        firsts, where = {shard.shard: first_rows(shard) for shard in shards}, place_of_carrier(node)
        for target in self.plan.targets:
            shipper = self.cluster.start_shipper(target, self.plan, firsts, where)
            status = ShipperStatus(target.name)
            self.shippers.append(Carrier(target.name, node, shipper, status, Shipper.status, Shipper.stop))
        if self.plan.pool is not None:
            feeder = self.cluster.start_feeder(self.plan.feeder_plan(firsts), where)
            known = FeederStatus(0, dict.fromkeys(firsts, 0))
            self.feeders.append(Carrier(READER, node, feeder, known, Feeder.status, Feeder.stop))

    def end(self, node: str) -> None:
        """Kill the carriers of a node, at once."""
        for carrier in self.all():
            if carrier.node == node:
                self.cluster.kill(carrier.actor)
        self.shippers = [carrier for carrier in self.shippers if carrier.node != node]
        self.feeders = [carrier for carrier in self.feeders if carrier.node != node]

    def poll(self, patience_s: float) -> None:
        """Ask each carrier for its status; wait at most `patience_s` for each."""
        for carrier in self.all():
            carrier.poll(self.cluster, patience_s)

    def stop(self) -> list[str]:
        """Let the carriers finish what is on its way. Returns what went wrong, a line each."""
        wrong = []
        for carrier in self.all():
            try:
                carrier.status = self.cluster.answer(self.cluster.ask(carrier.actor, carrier.stop), _STOP_S)
            except (ActorGone, ActorFailed, NoAnswer) as error:
                wrong.append(f"{carrier.name} did not stop in time: {error}")
        return wrong

    def kill(self) -> None:
        """Kill all carriers."""
        for carrier in self.all():
            self.cluster.kill(carrier.actor)
        self.shippers, self.feeders = [], []

    def waiting(self) -> dict[str, str]:
        """Which carrier waits for what."""
        waiting = {c.name: c.status.waiting_for for c in self.all() if c.status.waiting_for}
        return waiting | {c.name: "its process to restart" for c in self.all() if c.unreachable}

    def acknowledged(self, shard: int, stream: Stream, row: int) -> bool:
        """Whether every sink has acknowledged all rows of this log before `row`. Without a sink, never."""
        log = (stream, shard)
        positions = [c.status.positions[log] for c in self.shippers if log in c.status.positions]
        return len(positions) == len(self.plan.targets) > 0 and min(positions) >= row
