"""Watches the fleet: places shards, hands out blocks at the pace asked for, restarts what died, counts.

The supervisor lives in the driver. It holds no data that is not also on disk.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.feeder import FeederActor, FeederStatus
from actors.predictor import PoolSettings, deploy
from actors.restart import RestartPoints
from actors.shard import PopulationPlan, ShardActor, ShardPlan, ShardStatus, vehicle_ranges
from actors.shipper import LATENCY_BUCKETS_S, ShipperActor, ShipperStatus
from actors.sinks import Target
from actors.status import FleetStatus, LogStatus, SinkStatus
from datasets.cursor import Cursor
from datasets.log import DIRECT_ROWS, SEGMENT_BYTES, Fsync
from datasets.retention import Retention
from datasets.schema import Stream
from models.features import due

_log = logging.getLogger(__name__)

# Ray's head would remember each of the dozen calls a second: 4.5 kB a call, up to 450 MB.
_QUIET = {"enable_task_events": False}
# Blocks on their way to one shard, so that it never waits for the driver. Paced blocks come one by one.
_IN_FLIGHT = 2
# A block of so many records is written as one sealed segment: throughput, and bounded memory whatever the fleet's size.
_BLOCK_ROWS = 2 * DIRECT_ROWS
# And no longer than this at about 40 ns a vehicle-step, so that Ctrl-C and a restarted shard need not wait for long.
_BLOCK_STEPS = 20_000_000
_FAST_FORWARD_DAYS = 365
# A shard that dies this often without a step forward will not live: stop and say so.
_HOPELESS = 3
# With several nodes it may be placed a few times on one that is dying before Ray knows.
_HOPELESS_ON_SEVERAL_NODES = 10
_POLL_S = 0.2
_PING_S = 2.0
_RATE_WINDOW_S = 5.0


class FleetFailed(RuntimeError):
    """The fleet cannot go on; the message says why. What was made is on disk."""


@dataclass(frozen=True)
class FleetPlan:
    """Everything that makes a fleet. Ticks count steps; `pace` is simulated over real time, inf for no limit."""

    run_dir: Path
    run_id: str
    log_id: str
    vehicles: int
    shards: int
    population: PopulationPlan
    start_s: int
    step_s: float
    telemetry_ticks: int
    predict_ticks: int
    checkpoint_ticks: int
    pace: float
    fast_forward: bool = False
    targets: tuple[Target, ...] = ()
    pool: PoolSettings | None = None
    fsync: Fsync = "checkpoint"
    log_max_age_s: float = math.inf
    log_max_bytes: float = math.inf

    def retention(self) -> Retention | None:
        """For one shard; None where all is kept."""
        if math.isinf(self.log_max_age_s) and math.isinf(self.log_max_bytes):
            return None
        sinks = tuple(target.name for target in self.targets)
        readers = (*sinks, "predictor") if self.pool is not None else sinks
        return Retention(
            (("telemetry", readers), ("predictions", sinks)), self.log_max_age_s, self.log_max_bytes / self.shards
        )

    def shard_plans(self) -> list[ShardPlan]:
        """One for each of `vehicle_ranges`."""
        return [
            ShardPlan(
                run_dir=self.run_dir,
                run_id=self.run_id,
                shard=shard,
                first_vehicle=first,
                vehicles=count,
                population=self.population,
                start_s=self.start_s,
                step_s=self.step_s,
                telemetry_ticks=self.telemetry_ticks,
                checkpoint_ticks=self.checkpoint_ticks,
                fast_forward=self.fast_forward,
                fsync=self.fsync,
                retention=self.retention(),
            )
            for shard, (first, count) in enumerate(vehicle_ranges(self.vehicles, self.shards))
        ]


@dataclass
class _ShardSlot:
    """The supervisor's side of one shard."""

    plan: ShardPlan
    actor: ActorHandle
    status: ShardStatus
    refs: list[Any] = field(default_factory=list)
    asked_tick: int = 0
    reached: int = 0
    """Where the last `run` ended: a shard that begins again further back has to come here anew."""
    deaths_in_place: int = 0
    retry_at: float = 0.0
    restarting: bool = False
    copying: Any = None


@dataclass
class _Companion:
    """A shipper or the feeder of one node: Ray restarts it, we ask it how it stands."""

    name: str
    node: str
    actor: ActorHandle
    status: Any
    ref: Any = None
    unreachable: bool = False


class Supervisor:
    """Start it, `run` it to a tick as often as you like, `drain`, `close`."""

    def __init__(self, plan: FleetPlan, clock: Callable[[], float] = time.monotonic) -> None:
        self._plan = plan
        self._clock = clock
        self._slots: list[_ShardSlot] = []
        self._companions: list[_Companion] = []
        self._pool_error = ""
        self._pool_thread: threading.Thread | None = None
        self._restarts = 0
        self._points = RestartPoints(plan.run_dir)
        self._several_nodes = False
        self._began = self._clock()
        self._history: list[tuple[float, float]] = []
        self._polled_at = 0.0
        self._status: FleetStatus | None = None

    # ---- life

    def start(self) -> None:
        """Place the shards, then what carries their records away; returns when every shard is ready to step."""
        plans = self._plan.shard_plans()
        self._several_nodes = sum(node["Alive"] for node in ray.nodes()) > 1
        actors = [self._spawn(plan) for plan in plans]
        ready = self._first_statuses(actors)
        self._slots = [
            _ShardSlot(plan, actor, status, asked_tick=status.tick)
            for plan, actor, status in zip(plans, actors, ready, strict=True)
        ]
        for node in dict.fromkeys(slot.status.node for slot in self._slots):
            self._place_companions(node)
        if self._plan.pool is not None:
            # Serve takes 10-25 s to start: the fleet does not wait for it, the feeder catches up from the log.
            self._pool_thread = threading.Thread(target=self._deploy, args=(self._plan.pool,), daemon=True)
            self._pool_thread.start()
        self._began = self._clock()

    def _place_companions(self, node: str) -> None:
        """Start what carries away the records of the shards on this node: a process a sink, and one that predicts."""
        plans = [slot.plan for slot in self._slots if slot.status.node == node]
        shards = [plan.shard for plan in plans]
        here = {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False), "num_cpus": 0}
        options = {**here, **_QUIET, "max_restarts": -1}
        for target in self._plan.targets:
            actor = (
                ray.remote(ShipperActor)
                .options(**options)
                .remote(target, self._plan.run_dir, self._plan.log_id, shards)
            )
            self._companions.append(_Companion(target.name, node, actor, ShipperStatus(target.name)))
        if self._plan.pool is not None:
            first = {plan.shard: self._rows_before(plan, self._points.tick(plan.shard)) for plan in plans}
            retention = self._plan.retention()
            size = retention.segment_bytes if retention else SEGMENT_BYTES
            actor = (
                ray.remote(FeederActor)
                .options(**options)
                .remote(self._plan.run_dir, first, self._plan.telemetry_ticks, self._plan.predict_ticks, size)
            )
            self._companions.append(_Companion("predictor", node, actor, FeederStatus(0, dict.fromkeys(shards, 0))))

    def _rows_before(self, plan: ShardPlan, tick: int) -> tuple[int, int]:
        """Rows of telemetry and of predictions that precede a checkpoint at `tick`."""
        seq = np.arange(tick // plan.telemetry_ticks)
        predicted = due(seq, plan.telemetry_ticks, self._plan.predict_ticks).sum() if self._plan.pool else 0
        return plan.rows(tick), plan.vehicles * int(predicted)

    def _spawn(self, plan: ShardPlan, node: str = "") -> ActorHandle:
        # The restart point counts only where the log is gone: a log that is there says better where to go on.
        plan = dataclasses.replace(plan, restart=self._points.load(plan.shard))
        # A shard's log is on its node's disk: restart it there while that node lives.
        where: Any = NodeAffinitySchedulingStrategy(node, soft=True) if node else "SPREAD"
        return ray.remote(ShardActor).options(num_cpus=1, scheduling_strategy=where, **_QUIET).remote(plan)

    @staticmethod
    def _first_statuses(actors: list[ActorHandle]) -> list[ShardStatus]:
        try:
            return list(ray.get([actor.status.remote() for actor in actors]))
        except RayActorError as error:
            raise FleetFailed(f"a shard did not start: {_first_cause(error)}") from error

    def _deploy(self, pool: PoolSettings) -> None:
        try:
            deploy(pool)
        except Exception as error:
            _log.exception("the predictor pool did not start")
            self._pool_error = f"the pool did not start: {_first_cause(error)}"

    def close(self) -> FleetStatus:
        """Seal every log, save every cursor; the last status. What is not delivered stays on disk."""
        for slot in self._slots:
            slot.refs = [slot.actor.close.remote()]
        for slot in self._slots:
            try:
                slot.status = ray.get(slot.refs[0], timeout=120)
            except (RayError, GetTimeoutError) as error:
                _log.warning("shard %d was not closed in order: %s", slot.plan.shard, _first_cause(error))
        # The feeder first: its last predictions may still find an open shipper.
        for companion in sorted(self._companions, key=lambda c: c.name != "predictor"):
            try:
                companion.status = ray.get(companion.actor.stop.remote(), timeout=45)
            except (RayError, GetTimeoutError) as error:
                _log.warning("%s did not stop in time: %s", companion.name, _first_cause(error))
        status = self._measure()
        for companion in self._companions:
            ray.kill(companion.actor)
        for slot in self._slots:
            ray.kill(slot.actor)
        self._slots, self._companions = [], []
        return status

    # ---- running

    def run(
        self, until_tick: int, on_status: Callable[[FleetStatus], None], stop: Callable[[], bool] = lambda: False
    ) -> None:
        """Step every shard to `until_tick` at the fleet's pace; `on_status` is called a few times a second."""
        pacer = Pacer(self._plan, self._tick(), self._clock)
        while not stop():
            now_tick = min(pacer.allowed_tick(), until_tick)
            for slot in self._slots:
                self._dispatch(slot, now_tick, until_tick, pacer.due_ns)
            if all(slot.status.tick >= until_tick and not slot.refs for slot in self._slots):
                break
            self._collect(pacer.sleep_s(self._tick()))
            self._poll(on_status)
        self._finish_blocks()
        for slot in self._slots:
            slot.reached = slot.status.tick
        self._poll(on_status, at_once=True)

    def _dispatch(
        self, slot: _ShardSlot, allowed_tick: int, until_tick: int, due_ns: Callable[[int], int] | None = None
    ) -> None:
        """Send the shard its next blocks, as far as the pace allows."""
        period = self._plan.telemetry_ticks
        # In fast-forward every vehicle jumps by itself, and waits at the end of a block for the slowest: few ends.
        if self._plan.fast_forward:
            longest = period * max(_FAST_FORWARD_DAYS, _BLOCK_ROWS // slot.plan.vehicles)
        else:
            longest = period * max(1, min(_BLOCK_ROWS, _BLOCK_STEPS // period) // slot.plan.vehicles)
        paced = math.isfinite(self._plan.pace)
        if slot.restarting:
            return  # where it begins again is not known yet
        while len(slot.refs) < (1 if paced else _IN_FLIGHT) and self._clock() >= slot.retry_at:
            # Blocks end where a telemetry record is due, so that it is in the log at that moment.
            goal = until_tick if allowed_tick >= until_tick else allowed_tick // period * period
            end = min(slot.asked_tick // period * period + longest, goal)
            if end <= slot.asked_tick:
                return
            slot.asked_tick = end
            slot.refs.append(slot.actor.advance.remote(end, due_ns(end) if paced and due_ns else None))

    def _collect(self, timeout_s: float) -> None:
        """Take in finished blocks; restart the shards whose process is gone."""
        waiting = {ref: slot for slot in self._slots for ref in slot.refs[:1]}
        if not waiting:
            time.sleep(timeout_s)
            return
        ready, _ = ray.wait(list(waiting), num_returns=1, timeout=timeout_s)
        for ref in ready:
            slot = waiting[ref]
            try:
                status = ray.get(ref)
            except RayActorError as error:
                self._restart(slot, error)
                continue
            except RayTaskError as error:
                raise FleetFailed(f"shard {slot.plan.shard} cannot go on: {_first_cause(error)}") from error
            slot.refs.remove(ref)
            if slot.restarting:
                self._back(slot, status)
            if status.tick > slot.status.tick:
                slot.deaths_in_place = 0
            slot.status = status
            if status.waiting_for:
                slot.asked_tick, slot.retry_at = status.tick - 1, self._clock() + 1.0

    def _restart(self, slot: _ShardSlot, cause: Exception) -> None:
        slot.deaths_in_place += 1
        reason = _first_cause(cause)
        most = _HOPELESS_ON_SEVERAL_NODES if self._several_nodes else _HOPELESS
        if slot.deaths_in_place >= most:
            raise FleetFailed(f"shard {slot.plan.shard} died {most} times at step {slot.status.tick}: {reason}")
        _log.warning("shard %d died (%s); restarting it from its checkpoint", slot.plan.shard, reason)
        self._restarts += 1
        slot.actor = self._spawn(slot.plan, slot.status.node)
        slot.restarting = True
        slot.refs = [slot.actor.status.remote()]

    def _back(self, slot: _ShardSlot, status: ShardStatus) -> None:
        """A restarted shard has told where it is: on another node, its records need new carriers there."""
        before, slot.restarting = slot.status.node, False
        slot.status, slot.asked_tick = status, status.tick
        if status.cut_bytes:
            _log.warning("shard %d: %s damaged bytes cut off its log", slot.plan.shard, f"{status.cut_bytes:,}")
        if status.node == before:
            return
        _log.warning(
            "shard %d goes on at step %d on another node: its own is gone, and so is its log there",
            slot.plan.shard,
            status.tick,
        )
        for node in (before, status.node):
            for companion in [c for c in self._companions if c.node == node]:
                ray.kill(companion.actor)
                self._companions.remove(companion)
            if any(s.status.node == node for s in self._slots):
                self._place_companions(node)

    def _finish_blocks(self) -> None:
        while any(slot.refs for slot in self._slots):
            self._collect(1.0)

    def drain(
        self,
        on_status: Callable[[FleetStatus], None],
        patience_s: float,
        stop: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Wait until everything made is predicted and delivered; False after `patience_s` without any progress.

        A shard that dies meanwhile is restarted, and made to catch up where its log is gone.
        """
        least, since = None, self._clock()
        ping_at = self._clock()
        while not stop():
            status = self._poll(on_status, at_once=True)
            complete = all(slot.status.tick >= slot.reached and not slot.restarting for slot in self._slots)
            if status.backlog == 0 and complete:
                return True
            if self._pool_error:
                raise FleetFailed(self._pool_error)
            if least is None or status.backlog < least:
                least, since = status.backlog, self._clock()
            pool_starting = self._pool_thread is not None and self._pool_thread.is_alive()
            if self._clock() - since > patience_s and not pool_starting and complete:
                return False
            for slot in self._slots:
                self._dispatch(slot, slot.reached, slot.reached)
                if not slot.refs and self._clock() >= ping_at:
                    slot.refs.append(slot.actor.status.remote())
            if self._clock() >= ping_at:
                ping_at = self._clock() + _PING_S
            self._collect(_POLL_S)
        self._finish_blocks()
        return False

    # ---- knowing

    def vehicle_state(self, vehicle: int) -> dict[str, Any]:
        """The last telemetry record of one vehicle."""
        for slot in self._slots:
            if slot.plan.first_vehicle <= vehicle < slot.plan.first_vehicle + slot.plan.vehicles:
                return dict(ray.get(slot.actor.vehicle_state.remote(vehicle)))
        raise ValueError(f"expected a vehicle below {self._plan.vehicles}, got {vehicle}")

    def inject(self, vehicle: int, kind: str, onset_s: float, severity: float) -> None:
        """Give one vehicle a fault."""
        for slot in self._slots:
            if slot.plan.first_vehicle <= vehicle < slot.plan.first_vehicle + slot.plan.vehicles:
                ray.get(slot.actor.inject.remote(vehicle, kind, onset_s, severity))

    def processes(self) -> dict[str, list[int]]:
        """Pids by what they do: `shard`, `predictor` (the feeder), a sink's name; of those that have told theirs."""
        found = {"shard": [slot.status.pid for slot in self._slots]}
        for companion in self._companions:
            if companion.status.pid:
                found.setdefault(companion.name, []).append(companion.status.pid)
        return found

    def status(self) -> FleetStatus:
        """The last status polled."""
        return self._status or self._measure()

    def _tick(self) -> int:
        return min(slot.status.tick for slot in self._slots)

    def _poll(self, on_status: Callable[[FleetStatus], None], *, at_once: bool = False) -> FleetStatus:
        """Ask the companions how they stand, a few times a second."""
        now = self._clock()
        if self._status is not None and not at_once and now - self._polled_at < _POLL_S:
            return self._status
        self._polled_at = now
        for companion in self._companions:
            if companion.ref is not None:
                ready, _ = ray.wait([companion.ref], timeout=1.0 if at_once else 0)
                if not ready:
                    continue
                try:
                    companion.status = ray.get(companion.ref)
                    companion.unreachable = False
                except RayError:  # dead, restarting, or bound to a node that is gone
                    companion.unreachable = True
            companion.ref = companion.actor.status.remote()
        if self._several_nodes:
            self._keep_restart_points()
        self._status = self._measure()
        on_status(self._status)
        return self._status

    def _keep_restart_points(self) -> None:
        """Copy new checkpoints to the driver; confirm those before which every sink has acknowledged everything."""
        for slot in self._slots:
            shard = slot.plan.shard
            if slot.copying is not None:
                ready, _ = ray.wait([slot.copying], timeout=0)
                if not ready:
                    continue
                ref, slot.copying = slot.copying, None
                with contextlib.suppress(RayError):  # it comes again with the next checkpoint
                    tick, content = ray.get(ref)
                    if self._points.wants(shard, tick):
                        self._points.offer(shard, tick, content)
            elif not slot.restarting and self._points.wants(shard, slot.status.checkpoint_tick):
                slot.copying = slot.actor.checkpoint.remote()
        for shard, tick in self._points.pending().items():
            if self._slots[shard].restarting:
                continue  # its restart point stays until its carriers are placed
            telemetry, predictions = self._rows_before(self._slots[shard].plan, tick)
            if self._acknowledged(shard, "telemetry", telemetry) and self._acknowledged(
                shard, "predictions", predictions
            ):
                self._points.confirm(shard)

    def _acknowledged(self, shard: int, stream: Stream, row: int) -> bool:
        """Whether every sink has all rows of this log before `row`; with no sink, nothing ever is."""
        statuses = [c.status for c in self._companions if isinstance(c.status, ShipperStatus)]
        positions = [s.positions[stream, shard] for s in statuses if (stream, shard) in s.positions]
        return len(positions) == len(self._plan.targets) > 0 and min(positions) >= row

    def _measure(self) -> FleetStatus:
        shards = tuple(slot.status for slot in self._slots)
        made = {slot.plan.shard: slot.status.records for slot in self._slots}
        feeders = [c.status for c in self._companions if isinstance(c.status, FeederStatus)]
        records, predictions = sum(made.values()), sum(feeder.predictions for feeder in feeders)
        tick = min((status.tick for status in shards), default=0)
        simulated_s = tick * self._plan.step_s
        return FleetStatus(
            vehicles=self._plan.vehicles,
            tick=tick,
            simulated_s=simulated_s,
            elapsed_s=self._clock() - self._began,
            real_time_factor=self._rate(simulated_s),
            records=records,
            predictions=predictions,
            predictor_backlog=sum(made[shard] - read for feeder in feeders for shard, read in feeder.read.items()),
            prediction_latency_s=max((feeder.latency_s for feeder in feeders), default=0.0),
            prediction_latency_counts=_sum_of([feeder.latency_counts for feeder in feeders]),
            prediction_latency_sum_s=sum(feeder.latency_sum_s for feeder in feeders),
            restarts=self._restarts,
            cut_bytes=sum(status.cut_bytes for status in shards),
            shards=shards,
            sinks=self._sink_statuses(feeders),
            waiting=self._waiting(),
        )

    def _sink_statuses(self, feeders: list[FeederStatus]) -> tuple[SinkStatus, ...]:
        made: dict[tuple[Stream, int], int] = {("telemetry", s.plan.shard): s.status.records for s in self._slots}
        made |= {("predictions", shard): rows for feeder in feeders for shard, rows in feeder.made.items()}
        found = []
        for target in self._plan.targets:
            statuses: list[ShipperStatus] = [c.status for c in self._companions if c.name == target.name]
            cursors = {log: cursor for status in statuses for log, cursor in status.cursors.items()}
            oldest = {log: due_ns for status in statuses for log, due_ns in status.oldest_due_ns.items()}
            found.append(
                SinkStatus(
                    name=target.name,
                    logs=tuple(
                        LogStatus(
                            stream, shard, rows, cursors.get((stream, shard), Cursor()), oldest.get((stream, shard), 0)
                        )
                        for (stream, shard), rows in made.items()
                    ),
                    retries=sum(status.retries for status in statuses),
                    latency_counts=_sum_of([status.latency_counts for status in statuses]),
                    latency_sum_s=sum(status.latency_sum_s for status in statuses),
                )
            )
        return tuple(found)

    def _waiting(self) -> dict[str, str]:
        waiting = {c.name: c.status.waiting_for for c in self._companions if c.status.waiting_for}
        waiting |= {c.name: "its process to restart" for c in self._companions if c.unreachable}
        if self._pool_error:
            waiting["predictor"] = self._pool_error
        for slot in self._slots:
            if slot.status.waiting_for:
                waiting["fleet"] = slot.status.waiting_for
        return waiting

    def _rate(self, simulated_s: float) -> float:
        """Simulated over real time in the last seconds."""
        now = self._clock()
        self._history.append((now, simulated_s))
        while len(self._history) > 2 and now - self._history[1][0] > _RATE_WINDOW_S:
            self._history.pop(0)
        (then, was), (now, now_s) = self._history[0], self._history[-1]
        return (now_s - was) / (now - then) if now > then else 0.0


class Pacer:
    """Simulated time against the wall clock: the only place that looks at it."""

    def __init__(self, plan: FleetPlan, tick: int, clock: Callable[[], float]) -> None:
        self._pace, self._step_s, self._period = plan.pace, plan.step_s, plan.telemetry_ticks
        self._tick, self._clock, self._began = tick, clock, clock()

    def allowed_tick(self) -> int:
        """The newest step that may be done by now."""
        if math.isinf(self._pace):
            return 1 << 62
        return self._tick + int((self._clock() - self._began) * self._pace / self._step_s + 1e-9)

    def due_ns(self, tick: int) -> int:
        """When step `tick` is due on the wall clock [ns since 1970]."""
        due_in_s = (tick - self._tick) * self._step_s / self._pace - (self._clock() - self._began)
        return time.time_ns() + int(due_in_s * 1e9)

    def sleep_s(self, tick: int) -> float:
        """How long the supervisor may wait for a block before there is something new to hand out."""
        if math.isinf(self._pace):
            return _POLL_S
        next_tick = (tick // self._period + 1) * self._period
        due = self._began + (next_tick - self._tick) * self._step_s / self._pace
        return min(_POLL_S, max(0.001, due - self._clock()))


def _sum_of(histograms: list[list[int]]) -> list[int]:
    zero = np.zeros(len(LATENCY_BUCKETS_S) + 1, dtype=np.int64)
    return np.sum([zero, *histograms], axis=0).tolist()


def _first_cause(error: BaseException) -> str:
    """One line of what went wrong, out of Ray's wrappings."""
    cause = getattr(error, "cause", None) or error.__cause__ or error
    lines = [line.strip() for line in str(cause).strip().splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(cause).__name__
