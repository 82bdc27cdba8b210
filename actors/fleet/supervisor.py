"""Supervises the fleet: places shards, hands out blocks at the requested pace, restarts what died, counts.

The supervisor runs in the driver. It holds no data that is not also on disk.
"""

from __future__ import annotations

import dataclasses
import heapq
import logging
import threading
import time
from collections import Counter
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
from actors.fleet.slot import RETRY_S, ShardSlot, Waiting
from actors.fleet.status import FleetStatus, Rate, measure
from actors.prediction.plan import READER, PoolPlan
from datasets.alarms import SILENT_S
from datasets.schema import STREAMS

_log = logging.getLogger(__name__)

# Most blocks on their way to one shard: two, so that it never waits for the driver. Paced blocks come one by one.
_IN_FLIGHT, _IN_FLIGHT_PACED = 2, 1
_PING_S = 2.0
_CLOSE_S = 120.0
_SAY_S = 10.0  # a wait for CPUs that lasts longer is said
_ANSWER_S = 1.0
# The status of a large fleet is taken less often, so that looking at it does not cost more than running it.
_SHARDS_POLLED_A_SECOND = 4_000
_SHARDS_PINGED_A_SECOND = 1_000
_POOL_END_S = 60.0
_REPLICAS_S = 5.0  # between two looks at which replicas are up

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
        # Each round looks only at what has changed: with thousands of shards, a look at all of them is what costs.
        self._asked: dict[Pending[Any], ShardSlot] = {}  # calls on their way
        self._changed: dict[int, ShardSlot] = {}  # by shard, those that may get a block
        self._later: list[tuple[float, int]] = []  # (when, shard), those that wait; a heap
        self._ticks: Counter[int] = Counter()  # how many shards are at each step
        self._starting = ""
        self._carriers = Carriers(plan, cluster)
        self._pool = _PoolStart(cluster, plan.pool)
        self._restarts = 0
        self._notices: tuple[str, ...] = ()
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
        self._poll_s = max(POLL_S, len(plans) / _SHARDS_POLLED_A_SECOND)
        actors = [self._spawn(plan) for plan in plans]
        ready = self._await_start(plans, actors)
        self._slots = [ShardSlot(*of) for of in zip(plans, actors, ready, strict=True)]
        self._ticks = Counter(status.tick for status in ready)
        nodes = shards_by_node({slot.plan.shard: slot.status.node for slot in self._slots})
        try:
            self._carriers.targets = tuple(target.for_nodes(len(nodes)) for target in self._plan.targets)
        except ValueError as error:
            raise FleetFailed(str(error)) from error
        for node in nodes:
            self._place_carriers(node)
        # Serve takes 10-25 s to start. The fleet does not wait for it; the feeder catches up from the log.
        self._pool.start()
        self._began = self._clock()

    def _await_start(self, plans: list[ShardPlan], actors: list[Remote[Shard]]) -> list[ShardStatus]:
        """What the shards say when they are ready; meanwhile, says what they wait for. One that dies is started once
        more."""
        waiting = {n: self._cluster.ask(actor, Shard.status) for n, actor in enumerate(actors)}
        ready: dict[int, ShardStatus] = {}
        again: set[int] = set()
        said_at = self._clock() + _SAY_S
        while waiting:
            for number in [number for number, call in waiting.items() if call.done]:
                try:
                    ready[number] = self._cluster.answer(waiting.pop(number))
                except ActorFailed as error:
                    raise FleetFailed(f"shard {number} did not start: {error}") from error
                except ActorGone as error:
                    if number in again:
                        raise FleetFailed(f"shard {number} did not start, twice: {error}") from error
                    _log.warning("shard %d did not start (%s); starting it once more", number, error)
                    again.add(number)
                    actors[number] = self._spawn(plans[number])
                    waiting[number] = self._cluster.ask(actors[number], Shard.status)
            if waiting and self._clock() >= said_at:
                said_at = self._clock() + _SAY_S
                why = self._cpus(len(waiting)) or "once on a machine the physics is compiled, a minute or two"
                self._starting = f"{len(waiting)} of {len(plans)} shards to start ({why})"
                _log.warning("waiting for %s", self._starting)
            if waiting:
                self._cluster.arrived(POLL_S)
        self._starting = ""
        return [ready[number] for number in range(len(plans))]

    def _cpus(self, needed: int = 1) -> str:
        """What to do where the cluster is too small; "" where it is not."""
        free, total = self._cluster.cpus()
        if free >= needed:
            return ""
        return (
            f"{needed} CPUs are needed; of {total:g} in the cluster {free:g} are free. Add some, or take fewer --shards"
        )

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
        goal = -1
        while not stop():
            allowed = min(pacer.allowed_tick(), until_tick)
            if (due := self._due(allowed, until_tick)) != goal:
                goal = due
                self._changed = {slot.plan.shard: slot for slot in self._slots}
            for slot in self._to_look_at():
                self._send(slot, allowed, until_tick, pacer.due_ns)
            if not self._asked and self._tick() >= until_tick:
                break
            self._collect(pacer.sleep_s(self._tick()))
            self._poll(on_status)
        self._finish_blocks()
        self._poll(on_status, at_once=True)

    def _due(self, allowed_tick: int, until_tick: int) -> int:
        """The step up to which records are due."""
        period = self._plan.telemetry_ticks
        return until_tick if allowed_tick >= until_tick else allowed_tick // period * period

    def _to_look_at(self) -> list[ShardSlot]:
        """The shards that may have become free for a block since the last time."""
        now = self._clock()
        while self._later and self._later[0][0] <= now:
            shard = heapq.heappop(self._later)[1]
            self._changed[shard] = self._slots[shard]
        changed, self._changed = self._changed, {}
        return list(changed.values())

    def _send(
        self,
        slot: ShardSlot,
        allowed_tick: int,
        until_tick: int,
        due_ns: Callable[[int], int | None] = lambda tick: None,
    ) -> None:
        """Send a shard its next blocks, as far as the pace allows."""
        now = self._clock()
        longest = self._plan.longest_block(slot.plan.vehicles)
        in_flight = _IN_FLIGHT_PACED if self._plan.paced else _IN_FLIGHT
        while slot.may_send(now, in_flight):
            end = slot.next_block(allowed_tick, until_tick, self._plan.telemetry_ticks, longest)
            if end is None:
                return
            call = self._cluster.ask(slot.actor, Shard.advance, end, due_ns(end))
            slot.sent(end, call, now)
            self._asked[call] = slot
        if isinstance(slot.state, Waiting):
            heapq.heappush(self._later, (slot.state.retry_at, slot.plan.shard))

    def _collect(self, timeout_s: float) -> None:
        """Take the answers of finished blocks; restart the shards whose process is gone."""
        if not self._asked and not self._carriers.asked:
            self._sleep(timeout_s)
            return
        for call in self._cluster.arrived(timeout_s):
            slot = self._asked.pop(call, None)
            if slot is None or call not in slot.calls:
                continue  # a carrier's, or of a process that is gone already
            before = slot.status.tick
            try:
                status: ShardStatus = self._cluster.answer(call)
            except ActorGone as error:
                self._restart(slot, str(error))
                continue
            except ActorFailed as error:
                raise FleetFailed(f"shard {slot.plan.shard} cannot go on: {error}") from error
            if slot.restarting:
                self._back(slot, status)
            else:
                slot.answered(call, status, self._clock())
            self._changed[slot.plan.shard] = slot
            self._ticks[before] -= 1
            self._ticks[slot.status.tick] += 1
            if not self._ticks[before]:
                del self._ticks[before]

    def _restart(self, slot: ShardSlot, reason: str) -> None:
        slot.deaths += 1
        if not self._restart_policy.may_restart(slot.deaths, several_nodes=self._several_nodes):
            raise FleetFailed(f"shard {slot.plan.shard} died {slot.deaths} times at step {slot.status.tick}: {reason}")
        _log.warning("shard %d died (%s); restarting it from its checkpoint", slot.plan.shard, reason)
        self._restarts += 1
        self._cluster.kill(slot.actor)  # one that only could not be reached would hold the log
        actor = self._spawn(slot.plan, slot.status.node)
        call = self._cluster.ask(actor, Shard.status)
        slot.died(actor, call, self._clock())
        self._asked[call] = slot

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
        while self._asked:
            self._collect(1.0)

    def drain(self, on_status: OnStatus, patience_s: float, stop: Callable[[], bool] = lambda: False) -> bool:
        """Wait until all records are predicted and delivered; False after `patience_s` without any progress.

        A shard that dies meanwhile is restarted. If its log is gone, it is stepped to where it was.
        """
        drain = Drain(patience_s, self._clock())
        ping_s = max(_PING_S, len(self._slots) / _SHARDS_PINGED_A_SECOND)
        ping_at = self._clock()
        self._changed = {slot.plan.shard: slot for slot in self._slots}
        while not stop():
            if self._status is None or self._clock() - self._polled_at >= self._poll_s:
                status = self._poll(on_status, at_once=True)
                complete = all(slot.complete for slot in self._slots)
                now, pool = self._clock(), self._pool.state
                starting = self._carriers.starting or (
                    pool == "up" and status.predictor_backlog > 0 and not self._pool.answers()
                )
                drain, verdict = drain.look(now, status.backlog, complete=complete, pool=pool, starting=starting)
                if verdict == "failed":
                    raise FleetFailed(self._pool.error)
                if verdict != "wait":
                    return verdict == "done"
            for slot in self._to_look_at():
                self._send(slot, slot.furthest_tick, slot.furthest_tick)
            if self._clock() >= ping_at:
                ping_at = self._clock() + ping_s
                for slot in self._slots:
                    if not slot.calls:
                        call = self._cluster.ask(slot.actor, Shard.status)
                        slot.asked(call)
                        self._asked[call] = slot
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
        return min(self._ticks)

    def _poll(self, on_status: OnStatus, *, at_once: bool = False) -> FleetStatus:
        """What the carriers say, some times a second. `at_once`: as it is now, else as it was the last time."""
        now = self._clock()
        if self._status is not None and not at_once and now - self._polled_at < self._poll_s:
            return self._status
        self._polled_at = now
        if at_once:
            self._carriers.ask()
            deadline = now + _ANSWER_S
            while not self._carriers.take() and self._clock() < deadline:
                self._collect(POLL_S)
        self._carriers.take()
        if self._several_nodes:
            self._keep_restart_points()
        self._status = self._measured()
        self._say_notices(self._status.notices)
        on_status(self._status)
        self._carriers.ask()
        return self._status

    def _say_notices(self, notices: tuple[str, ...]) -> None:
        """Each once, and that it is over."""
        for notice in notices:
            if notice not in self._notices:
                _log.warning("%s", notice)
        if self._notices and not notices:
            _log.warning("the registry of models answers, and the pool has its model")
        self._notices = notices

    def _keep_restart_points(self) -> None:
        """Copy new checkpoints to the driver; confirm a copy when every sink has acknowledged all records before it.

        Where not every record is sent, how many precede a checkpoint does not follow from its time. Then there are no
        restart points, and a shard whose log is lost computes everything again.
        """
        kept = self._plan.transmission.whole
        for slot in self._slots:
            shard = slot.plan.shard
            if slot.copying is not None:
                if not slot.copying.done:
                    continue
                call, slot.copying = slot.copying, None
                with suppress(ActorGone, ActorFailed):  # the next checkpoint gives another chance
                    tick, content = self._cluster.answer(call)
                    if self._points.wants(shard, tick):
                        self._points.offer(shard, tick, content)
            elif kept and not slot.restarting and self._points.wants(shard, slot.status.checkpoint_tick):
                slot.copying = self._cluster.ask(slot.actor, Shard.checkpoint)
        pending = self._points.pending()
        acknowledged = self._carriers.acknowledged() if pending else {}
        for shard, tick in pending.items():
            if self._slots[shard].restarting:
                continue  # its restart point stays until its carriers are placed
            rows = self._plan.rows_before(self._slots[shard].plan, tick)
            if all(acknowledged.get((s, shard), -1) >= row for s, row in zip(STREAMS, rows, strict=True)):
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
            replicas=self._pool.replicas,
            silent=sum(
                slot.plan.vehicles
                for slot in self._slots
                if slot.owes_since is not None and now - slot.owes_since > SILENT_S
            ),
        )

    def _waiting(self) -> Iterator[tuple[str, str]]:
        yield from self._carriers.waiting().items()
        if self._pool.error:
            yield READER, self._pool.error
        elif self._pool.state == "starting" and self._clock() - self._began > _SAY_S:
            yield READER, f"the predictor pool to start ({self._cpus() or 'it is busy'})"
        if self._starting:
            yield "fleet", self._starting
        late = self._clock() - _SAY_S
        for slot in self._slots:
            if slot.status.waiting_for:
                yield "fleet", slot.status.waiting_for
            elif slot.restarting and slot.died_at < late:
                yield "fleet", f"shard {slot.plan.shard} to restart ({self._cpus()})"


class _PoolStart:
    """Starts the predictor pool in the background, looks from time to time which replicas are up, and ends it.
    `replicas`: how many, and the fewest there should be; None before the first look."""

    def __init__(self, cluster: Cluster, plan: PoolPlan | None) -> None:
        self._cluster = cluster
        self._plan = plan
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        self._watching = threading.Thread(target=self._watch, daemon=True)
        self.error = ""
        self.replicas: tuple[int, int] | None = None

    def start(self) -> None:
        if self._plan is not None:
            self._thread = threading.Thread(target=self._deploy, args=(self._plan,), daemon=True)
            self._thread.start()
            self._watching.start()

    def _deploy(self, plan: PoolPlan) -> None:
        for again in (False, True):
            try:
                self._cluster.start_pool(plan)
                return
            except Exception as error:
                if self._stopped.is_set():
                    return  # its start was cut short on purpose
                _log.debug("the predictor pool did not start", exc_info=True)
                if again:
                    self.error = f"the pool did not start: {error}; --no-predict runs without it"
                else:
                    _log.warning("the predictor pool did not start (%s); starting it once more", error)
                    with suppress(ActorFailed):  # what is there of it would be taken for the whole
                        self._cluster.stop_pool(plan)

    def _watch(self) -> None:
        assert self._plan is not None
        while not self._stopped.wait(_REPLICAS_S):
            if self.state == "up":
                self.replicas = self._cluster.pool_replicas(self._plan), self._plan.replicas[0]

    def answers(self) -> bool:
        """Whether a replica is up now."""
        return self._plan is not None and self._cluster.pool_replicas(self._plan) > 0

    def stop(self) -> None:
        """End the pool, or leave it to the end of a Ray that is the run's own. A start that is under way ends with it,
        as Ray must not end before that thread; the pool is ended once more, for what it made meanwhile."""
        self._stopped.set()
        if self._watching.is_alive():
            self._watching.join(_POOL_END_S)
        if self._plan is None or self._thread is None or not (self._plan.shared or self._thread.is_alive()):
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
