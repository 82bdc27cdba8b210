"""A shard as Ray starts it. It has its own file, so that its process loads no more than a shard needs."""

from __future__ import annotations

import ray

from actors.fleet.plan import ShardPlan
from actors.fleet.shard import Shard


class ShardActor(Shard):
    """A shard that knows its node."""

    def __init__(self, plan: ShardPlan) -> None:
        super().__init__(plan, node=ray.get_runtime_context().get_node_id())
