"""A cluster of Ray. Only here the fleet's classes become actors."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Concatenate
from uuid import uuid4

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.delivery.shipper import Shipper, ShipperActor
from actors.delivery.sinks.base import Target
from actors.fleet.cluster import ActorFailed, ActorGone, NoAnswer, Pending, Remote
from actors.fleet.placement import Place
from actors.fleet.plan import FleetPlan, ShardPlan
from actors.fleet.shard import Shard
from actors.fleet.shard_actor import ShardActor
from actors.prediction.feeder import Feeder
from actors.prediction.feeder_actor import FeederActor
from actors.prediction.plan import NAMESPACE, FeederPlan, PoolPlan, feeders_of

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Actor[S]:
    kind: type[S]
    handle: ActorHandle[Any]


@dataclass(frozen=True, eq=False)
class _Call[R]:
    method: Callable[..., R]
    future: Future[R]

    @property
    def done(self) -> bool:
        return self.future.done()


class RayCluster:
    """The cluster that this process is connected to (`ray.init`).

    Answers announce themselves. To ask Ray which of many calls are done costs as much as there are calls.
    """

    def __init__(self) -> None:
        self._arrived: SimpleQueue[Pending[Any]] = SimpleQueue()

    def cpus(self) -> tuple[float, float]:
        free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
        total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        return free.get("CPU", 0.0), total.get("CPU", 0.0)

    def live_nodes(self) -> int:
        return sum(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]

    def start_shard(self, plan: ShardPlan, place: Place) -> Remote[Shard]:
        return self._start(Shard, ShardActor, place, f"{plan.run_id}-shard-{plan.shard:04d}", plan)

    def start_shipper(
        self, target: Target, plan: FleetPlan, first_rows: dict[int, tuple[int, int]], place: Place
    ) -> Remote[Shipper]:
        name = f"{plan.run_id}-to-{target.name}"
        return self._start(
            Shipper, ShipperActor, place, name, target, plan.run_dir, plan.log_id, first_rows, plan.accept_loss,
            plan.traces,
        )  # fmt: skip

    def start_feeder(self, plan: FeederPlan, place: Place) -> Remote[Feeder]:
        return self._start(Feeder, FeederActor, place, feeders_of(plan.pool), plan)

    def start_pool(self, plan: PoolPlan) -> None:
        from actors.prediction.pool import deploy  # loads Serve and FastAPI, so only where a pool is started

        try:
            deploy(plan)
        except Exception as error:  # Ray and Serve have many kinds; what they wrap is what a person can mend
            raise ActorFailed(first_cause(error)) from error

    def pool_replicas(self, plan: PoolPlan) -> int:
        from actors.prediction.pool import replicas_up

        if not ray.is_initialized():  # asked once more at the run's end, Serve would start another Ray
            return 0
        try:
            return replicas_up(plan)
        except Exception as error:  # as above; a controller that does not answer is being restarted
            _log.debug("the predictor pool's state is not known: %s", first_cause(error))
            return 0

    def stop_pool(self, plan: PoolPlan) -> None:
        from actors.prediction.pool import undeploy

        try:
            undeploy(plan)
        except Exception as error:
            raise ActorFailed(first_cause(error)) from error

    @staticmethod
    def _start[S](kind: type[S], actor: type, place: Place, name: str, *arguments: Any) -> Remote[S]:
        """`name`: what it is called in Ray's dashboard, with an end of its own, since a dead one keeps its name."""
        where = NodeAffinitySchedulingStrategy(place.node, soft=not place.must) if place.node else "SPREAD"
        options: dict[str, Any] = {
            "num_cpus": place.cpus,
            "scheduling_strategy": where,
            "max_restarts": -1 if place.restarts else 0,
            # Else Ray's head remembers each of the dozen calls per second: 4.5 kB per call, up to 450 MB.
            "enable_task_events": False,
            "name": f"{name.removesuffix('-')}-{uuid4().hex[:8]}",
            "namespace": NAMESPACE,
        }
        handle: Any = ray.remote(actor).options(**options).remote(*arguments)
        return _Actor(kind, handle)

    def ask[S, **P, R](
        self, actor: Remote[S], method: Callable[Concatenate[S, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> Pending[R]:
        assert isinstance(actor, _Actor)
        call = _Call(method, getattr(actor.handle, method.__name__).remote(*args, **kwargs).future())
        call.future.add_done_callback(lambda _: self._arrived.put(call))
        return call

    def arrived(self, timeout_s: float) -> list[Pending[Any]]:
        found: list[Pending[Any]] = []
        with suppress(Empty):
            found.append(self._arrived.get(timeout=max(0.0, timeout_s)))
            while True:
                found.append(self._arrived.get_nowait())
        return found

    def answer[R](self, pending: Pending[R], timeout_s: float | None = None) -> R:
        assert isinstance(pending, _Call)
        try:
            answer: R = pending.future.result(timeout_s)
            return answer
        except RayActorError as error:
            raise ActorGone(first_cause(error)) from error
        except RayError as error:
            raise ActorFailed(first_cause(error)) from error
        except TimeoutError as error:
            raise NoAnswer(f"no answer in {timeout_s:g} s") from error

    def kill(self, actor: Remote[Any]) -> None:
        assert isinstance(actor, _Actor)
        ray.kill(actor.handle)


def first_cause(error: BaseException) -> str:
    """What went wrong, in one line, without Ray's wrappings."""
    cause = getattr(error, "cause", None) or error.__cause__ or error
    lines = [line.strip() for line in str(cause).strip().splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(cause).__name__
