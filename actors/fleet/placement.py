"""What runs where: facts in, decision out. Nodes are known by their names only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_VEHICLES_A_SHARD = 250  # with fewer, a process of its own costs more than it gains


@dataclass(frozen=True)
class Place:
    """Where an actor may run. `node` "": anywhere, spread out. `must`: on that node or nowhere. `restarts`: the cluster
    itself restarts the actor when it dies."""

    node: str = ""
    must: bool = False
    cpus: int = 1
    restarts: bool = False


def shards_of(vehicles: int, asked: int, cpus: int) -> int:
    """How many shards: as many as asked for (0: one per core, if there are enough vehicles), none without a vehicle."""
    return min(asked or max(1, min(cpus, vehicles // _VEHICLES_A_SHARD)), vehicles)


def place_of_shard(last_node: str = "") -> Place:
    """A shard's log is on its node's disk. So it restarts there while the node lives, and elsewhere when it is gone."""
    return Place(last_node)


def place_of_carrier(node: str) -> Place:
    """A carrier reads its log from the disk, so it runs where the log is, or not at all."""
    return Place(node, must=True, cpus=0, restarts=True)


def shards_by_node(nodes: Mapping[int, str]) -> dict[str, list[int]]:
    """The shards on each node, in the order in which nodes appear. `nodes`: the node of each shard."""
    found: dict[str, list[int]] = {}
    for shard, node in nodes.items():
        found.setdefault(node, []).append(shard)
    return found


def carriers_to_replace(before: str, after: str) -> tuple[str, ...]:
    """The nodes whose carriers must be started anew when a shard has moved, because they now serve other shards."""
    return () if before == after else (before, after)
