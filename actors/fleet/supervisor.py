"""Supervises the fleet: places shards, hands out blocks at the requested pace, restarts what died, counts.

The supervisor runs in the driver. It holds no data that is not also on disk.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from actors.fleet.carriers import Carriers
from actors.fleet.cluster import ActorFailed, ActorGone, Cluster, NoAnswer, Pending, Remote
from actors.fleet.drain_policy import Drain, PoolState
from actors.fleet.pacer import POLL_S, Pacer
from actors.fleet.placement import carriers_to_replace, place_of_shard, shards_by_node
from actors.fleet.plan import FleetPlan, ShardPlan
from actors.fleet.restart_points import RestartPoints
from actors.fleet.restart_policy import RestartPolicy
from actors.fleet.shard import Shard, ShardStatus
from actors.fleet.slot import RETRY_S, ShardSlot
from actors.fleet.status import FleetStatus, Rate, measure
from actors.prediction.plan import READER, PoolPlan

_log = logging.getLogger(__name__)

# Most blocks on their way to one shard: two, so that it never waits for the driver. Paced blocks come one by one.
_IN_FLIGHT, _IN_FLIGHT_PACED = 2, 1
_PING_S = 2.0
_CLOSE_S = 120.0
_POOL_END_S = 60.0

OnStatus = Callable[[FleetStatus], None]


class FleetFailed(RuntimeError):
    """The fleet cannot continue; the message says why. All records made so far are on disk."""


class Supervisor:
    """`start` it, `run` it to a tick as often as you like, `drain`, `close`."""

    def __init__(
        self,
        plan: FleetPlan,
        cluster: Cluster,
        clock: Callable[[], float] = time.monotonic,
        restarts: RestartPolicy | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._plan = plan
        self._cluster = cluster
        self._clock, self._sleep = clock, sleep
        self._restart_policy = restarts or RestartPolicy()
        self._slots: list[ShardSlot] = []
        self._carriers = Carriers(plan, cluster)
        self._pool = _PoolStart(cluster, plan.pool)
        self._restarts = 0
        self._points = RestartPoints(plan.run_dir)
        self._several_nodes = False
        self._began = self._clock()
        self._rate = Rate()
        self._polled_at = 0.0
        self._status: FleetStatus | None = None

    # ---- life

    def start(self) -> None:
        """Place the shards, then the carriers of their records; returns when every shard is ready to step."""
        plans = self._plan.shard_plans()
        self._several_nodes = self._cluster.live_nodes() > 1
        actors = [self._spawn(plan) for plan in plans]
        asked = [self._cluster.ask(actor, Shard.status) for actor in actors]
        try:
            ready = [self._cluster.answer(call) for call in asked]
        except ActorGone as error:
            raise FleetFailed(f"a shard did not start: {error}") from error
        self._slots = [ShardSlot(*of) for of in zip(plans, actors, ready, strict=True)]
        for node in shards_by_node({slot.plan.shard: slot.status.node for slot in self._slots}):
            self._place_carriers(node)
        # Serve takes 10-25 s to start. The fleet does not wait for it; the feeder catches up from the log.
        self._pool.start()
        self._began = self._clock()

    def _place_carriers(self, node: str) -> None:
        plans = [slot.plan for slot in self._slots if slot.status.node == node]
        if plans:
            points = self._points
            self._carriers.place(node, plans, lambda plan: self._plan.rows_before(plan, points.tick(plan.shard)))

    def _spawn(self, plan: ShardPlan, last_node: str = "") -> Remote[Shard]:
        # The restart point matters only if the log is gone; a log that is there says better where to continue.
        plan = dataclasses.replace(plan, restart=self._points.load(plan.shard))
        return self._cluster.start_shard(plan, place_of_shard(last_node))

    def close(self) -> FleetStatus:
        """Seal every log and save every cursor. Returns the last status. What is not delivered stays on disk."""
        calls = [(slot, self._cluster.ask(slot.actor, Shard.close)) for slot in self._slots]
        for slot, call in calls:
            try:
                slot.status = self._closed(slot, call)
            except (ActorGone, ActorFailed, NoAnswer) as error:
                _log.warning("shard %d was not closed in order: %s", slot.plan.shard, error)
        for line in self._carriers.stop():
            _log.warning("%s", line)
        self._pool.stop()
        status = self._measured()
        self._carriers.kill()
        for slot in self._slots:
            self._cluster.kill(slot.actor)
        self._slots = []
        return status

    def _closed(self, slot: ShardSlot, call: Pending[ShardStatus]) -> ShardStatus:
        """The last status of a shard. One without room for what it still has to write is asked until there is room."""
        told = ""
        while (status := self._cluster.answer(call, _CLOSE_S)).waiting_for:
            if status.waiting_for != told:
                _log.warning("shard %d waits for %s before it ends", slot.plan.shard, status.waiting_for)
            told = status.waiting_for
            self._sleep(RETRY_S)
            call = self._cluster.ask(slot.actor, Shard.close)
        return status

    # ---- running

    def run(self, until_tick: int, on_status: OnStatus, stop: Callable[[], bool] = lambda: False) -> None:
        """Step every shard to `until_tick` at the fleet's pace. `on_status` is called a few times per second."""
        pacer = Pacer(self._plan, self._tick(), self._clock)
        while not stop():
            allowed = min(pacer.allowed_tick(), until_tick)
            for slot in self._slots:
                self._dispatch(slot, allowed, until_tick, pacer.due_ns)
            if all(slot.status.tick >= until_tick and not slot.calls for slot in self._slots):
                break
            self._collect(pacer.sleep_s(self._tick()))
            self._poll(on_status)
        self._finish_blocks()
        for slot in self._slots:
            slot.goal_tick = slot.status.tick
        self._poll(on_status, at_once=True)

    def _dispatch(
        self,
        slot: ShardSlot,
        allowed_tick: int,
        until_tick: int,
        due_ns: Callable[[int], int | None] = lambda tick: None,
    ) -> None:
        """Send the shard its next blocks, as far as the pace allows."""
        longest = self._plan.longest_block(slot.plan.vehicles)
        in_flight = _IN_FLIGHT_PACED if self._plan.paced else _IN_FLIGHT
        while slot.may_send(self._clock(), in_flight):
            end = slot.next_block(allowed_tick, until_tick, self._plan.telemetry_ticks, longest)
            if end is None:
                return
            slot.sent(end, self._cluster.ask(slot.actor, Shard.advance, end, due_ns(end)))

    def _collect(self, timeout_s: float) -> None:
        """Take the answers of finished blocks; restart the shards whose process is gone."""
        waiting = {id(slot.calls[0]): slot for slot in self._slots if slot.calls}
        if not waiting:
            self._sleep(timeout_s)
            return
        for call in self._cluster.ready([slot.calls[0] for slot in waiting.values()], timeout_s):
            slot = waiting[id(call)]
            try:
                status: ShardStatus = self._cluster.answer(call)
            except ActorGone as error:
                self._restart(slot, str(error))
            except ActorFailed as error:
                raise FleetFailed(f"shard {slot.plan.shard} cannot go on: {error}") from error
            else:
                if slot.restarting:
                    self._back(slot, status)
                else:
                    slot.answered(call, status, self._clock())

    def _restart(self, slot: ShardSlot, reason: str) -> None:
        slot.deaths += 1
        if not self._restart_policy.may_restart(slot.deaths, several_nodes=self._several_nodes):
            raise FleetFailed(f"shard {slot.plan.shard} died {slot.deaths} times at step {slot.status.tick}: {reason}")
        _log.warning("shard %d died (%s); restarting it from its checkpoint", slot.plan.shard, reason)
        self._restarts += 1
        actor = self._spawn(slot.plan, slot.status.node)
        slot.died(actor, self._cluster.ask(actor, Shard.status))

    def _back(self, slot: ShardSlot, status: ShardStatus) -> None:
        """A restarted shard has said where it is. If that is another node, its records need new carriers there."""
        before = slot.status.node
        slot.back(status)
        if status.cut_bytes:
            _log.warning("shard %d: %s damaged bytes cut off its log", slot.plan.shard, f"{status.cut_bytes:,}")
        moved = carriers_to_replace(before, status.node)
        if moved:
            _log.warning(
                "shard %d goes on at step %d on another node, because its own node is gone and its log with it",
                slot.plan.shard,
                status.tick,
            )
        for node in moved:
            self._carriers.end(node)
            self._place_carriers(node)

    def _finish_blocks(self) -> None:
        while any(slot.calls for slot in self._slots):
            self._collect(1.0)

    def drain(self, on_status: OnStatus, patience_s: float, stop: Callable[[], bool] = lambda: False) -> bool:
        """Wait until all records are predicted and delivered; False after `patience_s` without any progress.

        A shard that dies meanwhile is restarted. If its log is gone, it is stepped to where the run ended.
        """
        drain = Drain(patience_s, self._clock())
        ping_at = self._clock()
        while not stop():
            status = self._poll(on_status, at_once=True)
            complete = all(slot.complete for slot in self._slots)
            drain, verdict = drain.look(self._clock(), status.backlog, complete=complete, pool=self._pool.state)
            if verdict == "failed":
                raise FleetFailed(self._pool.error)
            if verdict != "wait":
                return verdict == "done"
            ping = self._clock() >= ping_at
            for slot in self._slots:
                self._dispatch(slot, slot.goal_tick, slot.goal_tick)
                if ping and not slot.calls:
                    slot.asked(self._cluster.ask(slot.actor, Shard.status))
            if ping:
                ping_at = self._clock() + _PING_S
            self._collect(POLL_S)
        self._finish_blocks()
        return False

    # ---- status

    def _slot_of(self, vehicle: int) -> ShardSlot:
        for slot in self._slots:
            if slot.plan.holds(vehicle):
                return slot
        raise ValueError(f"expected a vehicle below {self._plan.vehicles}, got {vehicle}")

    def vehicle_state(self, vehicle: int) -> dict[str, Any]:
        """The last telemetry record of one vehicle."""
        actor = self._slot_of(vehicle).actor
        return self._cluster.answer(self._cluster.ask(actor, Shard.vehicle_state, vehicle))

    def inject(self, vehicle: int, kind: str, onset_s: float, severity: float) -> None:
        """Give one vehicle a fault."""
        actor = self._slot_of(vehicle).actor
        self._cluster.answer(self._cluster.ask(actor, Shard.inject, vehicle, kind, onset_s, severity))

    def processes(self) -> dict[str, list[int]]:
        """Pids by role: `shard`, `predictor` (the feeder) or a sink's name. Only processes that have said theirs."""
        found = {"shard": [slot.status.pid for slot in self._slots]}
        for carrier in self._carriers.all():
            if carrier.status.pid:
                found.setdefault(carrier.name, []).append(carrier.status.pid)
        return found

    def status(self) -> FleetStatus:
        """The last status polled."""
        return self._status or self._measured()

    def _tick(self) -> int:
        return min(slot.status.tick for slot in self._slots)

    def _poll(self, on_status: OnStatus, *, at_once: bool = False) -> FleetStatus:
        """Ask the carriers for their status, a few times per second."""
        now = self._clock()
        if self._status is not None and not at_once and now - self._polled_at < POLL_S:
            return self._status
        self._polled_at = now
        self._carriers.poll(1.0 if at_once else 0.0)
        if self._several_nodes:
            self._keep_restart_points()
        self._status = self._measured()
        on_status(self._status)
        return self._status

    def _keep_restart_points(self) -> None:
        """Copy new checkpoints to the driver; confirm a copy when every sink has acknowledged all records before it."""
        for slot in self._slots:
            shard = slot.plan.shard
            if slot.copying is not None:
                if not self._cluster.ready([slot.copying], 0.0):
                    continue
                call, slot.copying = slot.copying, None
                with suppress(ActorGone, ActorFailed):  # the next checkpoint gives another chance
                    tick, content = self._cluster.answer(call)
                    if self._points.wants(shard, tick):
                        self._points.offer(shard, tick, content)
            elif not slot.restarting and self._points.wants(shard, slot.status.checkpoint_tick):
                slot.copying = self._cluster.ask(slot.actor, Shard.checkpoint)
        for shard, tick in self._points.pending().items():
            if self._slots[shard].restarting:
                continue  # its restart point stays until its carriers are placed
            telemetry, predictions = self._plan.rows_before(self._slots[shard].plan, tick)
            sinks_have = self._carriers.acknowledged
            if sinks_have(shard, "telemetry", telemetry) and sinks_have(shard, "predictions", predictions):
                self._points.confirm(shard)

    def _measured(self) -> FleetStatus:
        now, shards = self._clock(), {slot.plan.shard: slot.status for slot in self._slots}
        tick = min((status.tick for status in shards.values()), default=0)
        return measure(
            self._plan,
            shards,
            [carrier.status for carrier in self._carriers.shippers],
            [carrier.status for carrier in self._carriers.feeders],
            elapsed_s=now - self._began,
            real_time_factor=self._rate.at(now, tick * self._plan.step_s),
            restarts=self._restarts,
            waiting=dict(self._waiting()),
        )

    def _waiting(self) -> Iterator[tuple[str, str]]:
        yield from self._carriers.waiting().items()
        if self._pool.error:
            yield READER, self._pool.error
        for slot in self._slots:
            if slot.status.waiting_for:
                yield "fleet", slot.status.waiting_for


class _PoolStart:
    """Starts the predictor pool in the background, and ends it."""

    def __init__(self, cluster: Cluster, plan: PoolPlan | None) -> None:
        self._cluster = cluster
        self._plan = plan
        self._thread: threading.Thread | None = None
        self._stopped = False
        self.error = ""

    def start(self) -> None:
        if self._plan is not None:
            self._thread = threading.Thread(target=self._deploy, args=(self._plan,), daemon=True)
            self._thread.start()

    def _deploy(self, plan: PoolPlan) -> None:
        try:
            self._cluster.start_pool(plan)
        except Exception as error:
            if self._stopped:
                return  # its start was cut short on purpose
            _log.debug("the predictor pool did not start", exc_info=True)  # the reason is said below
            self.error = f"the pool did not start: {error}"

    def stop(self) -> None:
        """End the pool. A start that is under way ends with it: it is ended once more, for what it made meanwhile."""
        self._stopped = True
        if self._plan is None or self._thread is None or not self._plan.shared:
            return
        try:
            self._cluster.stop_pool(self._plan)
            if self._thread.is_alive():
                self._thread.join(_POOL_END_S)
                self._cluster.stop_pool(self._plan)
        except ActorFailed as error:
            _log.warning("the predictor pool was not ended in order: %s", error)

    @property
    def state(self) -> PoolState:
        if self._plan is None:
            return "none"
        if self.error:
            return "failed"
        return "starting" if self._thread is not None and self._thread.is_alive() else "up"
