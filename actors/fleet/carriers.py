"""The carriers of a node's records: a shipper for each sink, and a feeder for the predictor pool.

The cluster restarts a carrier that dies. This module polls the carriers' status.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from actors.delivery.shipper import Shipper, ShipperStatus
from actors.delivery.sinks.base import Target
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

    def ask(self, cluster: Cluster) -> None:
        """Ask for its status, unless it was asked already."""
        self.call = self.call or cluster.ask(self.actor, self.how)

    def take(self, cluster: Cluster) -> bool:
        """Take the answer. Returns whether there was one."""
        if self.call is None or not self.call.done:
            return False
        call, self.call = self.call, None
        try:
            self.status = cluster.answer(call)
            self.unreachable = False
        except (ActorGone, ActorFailed):  # dead, restarting, or bound to a node that is gone
            self.unreachable = True
        return True


@dataclass
class Carriers:
    """All carriers of a fleet."""

    plan: FleetPlan
    cluster: Cluster
    targets: tuple[Target, ...] = ()
    """As each node uses them."""
    shippers: list[Carrier[Shipper, ShipperStatus]] = field(default_factory=list)
    feeders: list[Carrier[Feeder, FeederStatus]] = field(default_factory=list)

    def all(self) -> list[Carrier[Any, Any]]:
        """Feeders first: their last predictions may still find an open shipper."""
        return [*self.feeders, *self.shippers]

    def place(self, node: str, shards: list[ShardPlan], first_rows: Callable[[ShardPlan], tuple[int, int]]) -> None:
        """Start carriers on a node for these shards. `first_rows`: the rows that precede a shard's logs, if new."""
        firsts, where = {shard.shard: first_rows(shard) for shard in shards}, place_of_carrier(node)
        for target in self.targets:
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

    def ask(self) -> None:
        """Ask each carrier for its status."""
        for carrier in self.all():
            carrier.ask(self.cluster)

    @property
    def asked(self) -> bool:
        """Whether an answer is on its way."""
        return any(carrier.call is not None for carrier in self.all())

    @property
    def starting(self) -> bool:
        """Whether a carrier is being started, for the first time or again."""
        return any(not carrier.status.pid or carrier.unreachable for carrier in self.all())

    def take(self) -> bool:
        """Take the answers that are there. Returns whether all are."""
        for carrier in self.all():
            carrier.take(self.cluster)
        return not self.asked

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

    def acknowledged(self) -> dict[tuple[Stream, int], int]:
        """The rows of each log that every sink has acknowledged for good. Without a sink, none."""
        sinks: Counter[tuple[Stream, int]] = Counter()
        least: dict[tuple[Stream, int], int] = {}
        for shipper in self.shippers:
            for log, cursor in shipper.status.cursors.items():
                sinks[log] += 1
                settled = cursor.position - cursor.unsettled
                least[log] = min(settled, least.get(log, settled))
        return {log: position for log, position in least.items() if sinks[log] == len(self.plan.targets)}
