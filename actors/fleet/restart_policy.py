"""Whether to restart a shard that died: facts in, decision out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RestartPolicy:
    """A shard that dies repeatedly without a step forward cannot be saved, so the fleet gives up.

    With several nodes the limit is higher: a shard may be placed a few times on a dying node before the cluster knows.
    """

    most: int = 3
    most_on_several_nodes: int = 10

    def limit(self, *, several_nodes: bool) -> int:
        """Deaths at one step at which the fleet gives up."""
        return self.most_on_several_nodes if several_nodes else self.most

    def may_restart(self, deaths: int, *, several_nodes: bool) -> bool:
        """`deaths`: how often it died since its last step forward, this one included."""
        return deaths < self.limit(several_nodes=several_nodes)
