"""What runs where: facts in, decision out. Knows nodes by their names only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_VEHICLES_A_SHARD = 250  # fewer than this and a process of its own costs more than it gives


@dataclass(frozen=True)
class Place:
    """Where an actor may run. `node` "": anywhere, spread out; `must`: on that node or nowhere. `restarts`: the cluster
    itself starts it again when it dies."""

    node: str = ""
    must: bool = False
    cpus: int = 1
    restarts: bool = False


def shards_of(vehicles: int, asked: int, cpus: int) -> int:
    """How many shards: as many as asked for (0: one a core, if there are vehicles enough), none without a vehicle."""
    return min(asked or max(1, min(cpus, vehicles // _VEHICLES_A_SHARD)), vehicles)


def place_of_shard(last_node: str = "") -> Place:
    """A shard's log is on its node's disk: it goes back there while that node lives, elsewhere when it is gone."""
    return Place(last_node)


def place_of_carrier(node: str) -> Place:
    """What carries a log away reads it from the disk: it runs where the log is, or not at all."""
    return Place(node, must=True, cpus=0, restarts=True)


def shards_by_node(nodes: Mapping[int, str]) -> dict[str, list[int]]:
    """The shards on each node, in the order in which nodes appear; `nodes`: the node of each shard."""
    found: dict[str, list[int]] = {}
    for shard, node in nodes.items():
        found.setdefault(node, []).append(shard)
    return found


def carriers_to_replace(before: str, after: str) -> tuple[str, ...]:
    """The nodes whose carriers must be started anew when a shard has moved: they serve other shards now."""
    return () if before == after else (before, after)
