"""A run: a directory, a plan, a supervisor. `Fleet` is what both the command line and Python code hold."""

from __future__ import annotations

import logging
import math
import os
import platform
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version as package_version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ray

from actors.exporter import Exporter
from actors.fleet.metrics import FleetCollector
from actors.fleet.placement import shards_of
from actors.fleet.plan import FleetPlan
from actors.fleet.ray_cluster import RayCluster, first_cause
from actors.fleet.ray_figures import RayFigures
from actors.fleet.status import FleetStatus
from actors.fleet.supervisor import FleetFailed, Supervisor
from actors.prediction.plan import READER, PoolPlan, pool_name
from actors.secret import Secret
from actors.traces import TracePlan, trace_plan
from datasets.log.durable import make_directory
from datasets.schema import vehicle_id, vehicle_index
from physics import Fault, load_cell, physics_version
from training.ray_local import init_ray
from twin import __version__
from twin.errors import BadInput, NotDelivered, RunFailed
from twin.model import chosen_model
from twin.page.process import Beside
from twin.run_directory import RunLock, new_directory, population_plan, save_run, stamp
from twin.servers import adopt_old_cursors, check_targets, start_exporter, targets_of, tls_of
from twin.settings import RunSettings, load_settings, parse_duration

_log = logging.getLogger(__name__)

_CONNECT_S = 5.0
_SAY_S = 10.0


class Vehicle:
    """A handle on one vehicle of a running fleet."""

    def __init__(self, supervisor: Supervisor, index: int) -> None:
        self._supervisor = supervisor
        self._index = index

    @property
    def id(self) -> str:
        """`EV-000042`."""
        return vehicle_id(self._index)

    def state(self) -> dict[str, Any]:
        """Its last telemetry record, as Python values by column name; {} before the first one."""
        return self._supervisor.vehicle_state(self._index)

    def inject(self, kind: str, severity: float, onset_s: float = 0.0) -> None:
        """Give the vehicle a fault of `physics.FAULTS`, at once or from simulated time `onset_s` [s since 1970].

        `physics.faults.SEVERITIES` has the units of `severity`. A new fault acts besides those that the vehicle has; of
        the same kind, instead of it. An injected fault is not part of the run's identity, although it changes the
        records.
        """
        try:
            fault = Fault(kind, onset_s, severity)
        except ValueError as error:
            raise BadInput(str(error)) from None
        self._supervisor.inject(self._index, fault.kind, fault.onset_s, fault.severity)


class Fleet:
    """A fleet on Ray. Keyword arguments are the settings of `twin run`, by name (`twin/settings.py`).

    with Fleet(vehicles=1000, seed=1) as fleet:
        fleet.run("10min")

    Leaving the block delivers what was made, seals the log and writes `run.json`.
    """

    def __init__(self, settings: RunSettings | None = None, **keywords: Any) -> None:
        if settings is None:
            # A fleet in Python runs as often and as long as it is told to, so it has no duration.
            defaults = {"duration": "1d", "metrics_port": 0}
            settings = load_settings(defaults | keywords, environ={})
            if "duration" not in keywords:
                settings = replace(settings, clock=settings.clock.model_copy(update={"duration": None}))
        self._set_up(settings)
        self.directory = new_directory(settings.log.out, stamp())

    @classmethod
    def resume(cls, directory: Path, flags: Mapping[str, Any] | None = None) -> Self:
        """The fleet of a run that was stopped or killed: the same vehicles, identities and records, from where its log
        ends. `flags` replace settings that do not decide the records (pace, sinks, ports, a longer duration).

        BadInput where the directory holds no run, the run is still going on, this version would make different records,
        or nothing is left to do.
        """
        from twin.books.ledger import Books
        from twin.run_directory import resumable_settings

        run, settings = resumable_settings(directory, flags or {})
        duration = settings.clock.duration
        assert duration is not None
        done = run.get("state") == "finished" and duration <= run["counts"]["simulated_s"]
        if done and not Books(directory, flags).ledger().waiting:
            raise BadInput(f"the run in {directory} is finished and delivered; to go on, give a longer --duration")
        fleet = cls.__new__(cls)
        fleet._set_up(settings)
        fleet.directory = directory.absolute()
        fleet._resumed = run
        fleet.run_id = run["run_id"]
        adopt_old_cursors(fleet.directory, run)
        return fleet

    def _set_up(self, settings: RunSettings) -> None:
        self.settings = settings
        self.run_id: str = settings.identity(physics_version())
        self.warnings: list[str] = []
        self._resumed: dict[str, Any] | None = None
        self._run_lock: RunLock | None = None
        self._targets = targets_of(settings.servers)
        self._tls = tls_of(settings.encryption)
        self._traces("")  # a variable that does not fit is told before there is a directory
        self._fed_page = next((target for target in self._targets if target.name == "mqtt"), None)
        if not settings.page.page_port:
            self._fed_page = None
        elif self._fed_page is None:
            raise BadInput("--page-port: expected a broker that feeds the page: --mqtt mqtt://host:port or MQTT_HOST")
        try:
            for name, _ in settings.population.cells():
                load_cell(name)
        except ValueError as error:
            raise BadInput(f"--cell: {error}") from None
        self._model = chosen_model(settings) if settings.pool.predict else None
        if self._model is not None and self._model.notice:
            self.warnings.append(self._model.notice)
        self._supervisor: Supervisor | None = None
        self._figures: RayFigures | None = None
        self._exporter: Exporter | None = None
        self._page: Beside | None = None
        self._owns_ray = False
        self._goal_tick = 0
        self._last: FleetStatus | None = None
        self._closed = False

    # ---- life

    def show_page(self) -> str:
        """Start the live page, if there is to be one. Returns its address, "" for none. `start` calls it, too."""
        if self._fed_page is None:
            return ""
        if self._page is None:
            self._page = Beside.start(self._fed_page, self.settings.page, self._tls)
        return f"{self.settings.encryption.scheme}://{self.settings.page.place}"

    def start(self) -> Self:
        """Check the sinks, make the run directory, start Ray and the shards. Called by `with`."""
        away = check_targets(self._targets)
        self.warnings += [f"{reason.rstrip('?.')}: the run goes on, and its records wait in the log" for reason in away]
        _make_directory(self.directory)
        self._run_lock = RunLock(self.directory)
        before = self._resumed or {}
        log_id = before.get("log_id") or uuid.uuid4().hex[:16]
        plan = self._plan(log_id)
        self._run = {
            "run_id": self.run_id,
            "log_id": log_id,
            "state": "running",
            "settings": self.settings.shown() | {"shards": plan.shards},
            "seed": self.settings.population.seed,
            "period_s": self.settings.clock.telemetry_s,
            "versions": _versions() | {"model": self._model.bundle.manifest.version if self._model else None},
            "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()},
            "started": before.get("started") or datetime.now(UTC).isoformat(timespec="seconds"),
            "resumed": [
                *before.get("resumed", []),
                *([datetime.now(UTC).isoformat(timespec="seconds")] * bool(before)),
            ],
        }
        save_run(self.directory, self._run)
        self._supervisor = Supervisor(plan, RayCluster())
        try:
            self.show_page()
            self._start_ray()
            self._figures = RayFigures(self.run_id, log_id)
            status = self._supervisor.status
            collector = FleetCollector(status, self.directory)
            self._exporter = start_exporter(self.settings.processes, collector, lambda: status().waiting, self._tls)
            with _ray_failures(self.directory):
                self._supervisor.start()
        except FleetFailed as error:
            self._stop_ray()
            raise RunFailed(str(error)) from error
        except BaseException:
            self._stop_ray()
            raise
        return self

    def _plan(self, log_id: str) -> FleetPlan:
        who, clock, log = self.settings.population, self.settings.clock, self.settings.log
        return FleetPlan(
            run_dir=self.directory,
            run_id=self.run_id,
            log_id=log_id,
            vehicles=who.vehicles,
            shards=shards_of(who.vehicles, self.settings.processes.shards, os.cpu_count() or 1),
            population=population_plan(self.settings),
            sensors=self.settings.reporting.profile(),
            transmission=self.settings.reporting.transmission(),
            fast_forward=clock.fast_forward,
            start_s=int(clock.start.timestamp()),
            step_s=clock.step,
            telemetry_ticks=clock.ticks(clock.telemetry_s),
            predict_ticks=clock.ticks(clock.prediction_s),
            checkpoint_ticks=max(1, clock.ticks(clock.checkpoint_every)),
            pace=clock.pace,
            targets=self._targets,
            pool=self._pool_plan(log_id),
            fsync=log.log_fsync,
            log_max_age_s=math.inf if log.log_max_age is None else log.log_max_age,
            log_max_bytes=math.inf if log.log_max_size is None else log.log_max_size,
            accept_loss=log.accept_loss,
            traces=self._traces(log_id),
        )

    @staticmethod
    def _traces(log_id: str) -> TracePlan | None:
        try:
            return trace_plan(os.environ, log_id)
        except ValueError as error:
            raise BadInput(str(error)) from None

    def _pool_plan(self, log_id: str) -> PoolPlan | None:
        pool = self.settings.pool
        if self._model is None:
            return None
        return PoolPlan(
            name=pool_name(log_id),
            bundle=self._model.folder,
            model=self._model.plan,
            replicas=(pool.min_replicas, pool.replicas),
            queue=pool.rest_queue,
            host=pool.rest_host,
            port=pool.rest_port,
            token=Secret(pool.api_token, "TWIN_API_TOKEN") if pool.api_token else None,
            tls=self._tls,
            rate=pool.rest_rate,
            shared=bool(self.settings.processes.address) or ray.is_initialized(),
        )

    def _start_ray(self) -> None:
        if ray.is_initialized():
            return
        shards = self.settings.processes.shards or os.cpu_count() or 1
        if address := self.settings.processes.address:
            join_cluster(address)
        else:
            if math.isfinite(self.settings.clock.pace):
                # By default Ray gives its workers low priority (niceness), but a live fleet has to be on time.
                os.environ.setdefault("RAY_worker_niceness", "0")
            # Enough logical CPUs for every actor on a small machine; the operating system shares the real ones.
            cpus = shards + self.settings.pool.replicas + (os.cpu_count() or 1)
            # Not a cluster that already runs on this machine, as that is not ours.
            _start_local(lambda: init_ray("local", num_cpus=cpus, include_dashboard=False))
        self._owns_ray = True

    def _stop_ray(self) -> None:
        if self._exporter is not None:
            self._exporter.close()
            self._exporter = None
        self._close_page()
        if self._owns_ray:
            ray.shutdown()
            self._owns_ray = False

    def _close_page(self) -> None:
        if self._page is not None:
            self._page.close()
            self._page = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if kind is None:
                self.deliver()
        finally:
            self.close("failed" if kind else "finished")

    # ---- running

    def run(
        self,
        duration: str | float,
        on_status: Callable[[FleetStatus], None] = lambda status: None,
        stop: threading.Event | None = None,
    ) -> FleetStatus:
        """Simulate `duration` more ("10min", or seconds). Returns when it is simulated and logged."""
        assert self._supervisor is not None, "use `with Fleet(...) as fleet`"
        stop = stop or threading.Event()
        try:
            seconds = parse_duration(duration)
            self.settings.clock.check_end(self._goal_tick * self.settings.clock.step + seconds)
        except ValueError as error:
            raise BadInput(str(error)) from None
        if self.settings.clock.fast_forward and seconds % 86400.0:
            raise BadInput(f"expected whole days where telemetry is daily or rarer, got {duration}")
        self._goal_tick += self.settings.clock.ticks(seconds)
        try:
            with _ray_failures(self.directory):
                self._supervisor.run(self._goal_tick, self._told(on_status), stop.is_set)
        except FleetFailed as error:
            raise RunFailed(f"{error}; what was made is in {self.directory}") from error
        return self._supervisor.status()

    def deliver(
        self, on_status: Callable[[FleetStatus], None] = lambda status: None, stop: threading.Event | None = None
    ) -> None:
        """Wait until every record is predicted and in every sink. NotDelivered where a sink makes no progress."""
        assert self._supervisor is not None
        stop = stop or threading.Event()
        try:
            with _ray_failures(self.directory):
                done = self._supervisor.drain(self._told(on_status), self.settings.servers.drain_timeout, stop.is_set)
        except FleetFailed as error:
            raise RunFailed(f"{error}; what was made is in {self.directory}") from error
        status = self._supervisor.status()
        if not done and not stop.is_set():
            raise NotDelivered(f"{describe_backlog(status)}; the records are in {self.directory}")

    def _told(self, on_status: Callable[[FleetStatus], None]) -> Callable[[FleetStatus], None]:
        """Who is told each status: Ray, and the caller."""
        figures = self._figures
        assert figures is not None

        def told(status: FleetStatus) -> None:
            figures.tell(status)
            on_status(status)

        return told

    def vehicle(self, name: str) -> Vehicle:
        """A handle by id (`EV-000042`)."""
        assert self._supervisor is not None
        index = vehicle_index(name)
        if index >= self.settings.population.vehicles:
            last = vehicle_id(self.settings.population.vehicles - 1)
            raise ValueError(f"expected a vehicle from EV-000000 to {last}, got {name}")
        return Vehicle(self._supervisor, index)

    def processes(self) -> dict[str, list[int]]:
        """Process ids by role: `shard`, `predictor` (feeds the pool), `page`, each sink's name (one a node)."""
        assert self._supervisor is not None
        page = {"page": [self._page.pid]} if self._page is not None else {}
        return self._supervisor.processes() | page

    def status(self) -> FleetStatus:
        """The fleet at this moment; after `close`, at its end."""
        if self._last is not None:
            return self._last
        assert self._supervisor is not None
        return self._supervisor.status()

    def close(self, state: str = "finished") -> None:
        """Seal the log, save the cursors, write the counts into run.json."""
        if self._closed or self._supervisor is None:
            self._close_page()
            return
        self._closed = True
        try:
            status = self._last = self._supervisor.close()
            self._run |= {
                "state": state,
                "ended": datetime.now(UTC).isoformat(timespec="seconds"),
                "counts": _counts(status),
            }
            save_run(self.directory, self._run)
        finally:
            self._stop_ray()
            if self._run_lock is not None:
                self._run_lock.release()


def _start_local(start: Callable[[], object]) -> None:
    """Start Ray here; once more if it was too slow. RunFailed where it does not start."""
    for again in (False, True):
        try:
            with _said_if_slow("Ray to start"):
                start()
            return
        except Exception as error:  # as above
            ray.shutdown()
            if again:
                raise RunFailed(
                    f"Ray did not start on this machine: {_said(error)}; if it is very busy or short of memory, try "
                    "later, or give --address of a running cluster"
                ) from error
            _log.warning("Ray did not start (%s); starting it once more", _said(error))


def expect_cluster(address: str | None) -> None:
    """RunFailed where nothing listens at the address of a Ray cluster: the one given, else RAY_ADDRESS."""
    if asked := address or os.environ.get("RAY_ADDRESS"):
        try:
            _expect_listener(asked)
        except OSError as error:
            raise _no_cluster(asked, error) from error


def join_cluster(address: str) -> None:
    """Connect this process to the Ray cluster there. RunFailed where it cannot, in one line."""
    try:
        _expect_listener(address)
        with _said_if_slow(f"Ray at {address}"):
            init_ray(address)
    except Exception as error:  # Ray raises many kinds, bare Exception among them
        raise _no_cluster(address, error) from error


def _no_cluster(address: str, error: Exception) -> RunFailed:
    return RunFailed(f"expected a Ray cluster at {address}: {_said(error)}; does `ray status` show one there?")


def _expect_listener(address: str) -> None:
    """OSError where nothing listens at host:port. Ray would try again for ever, and say nothing."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()


@contextmanager
def _said_if_slow(what: str) -> Iterator[None]:
    """Say what is waited for, again and again."""
    ended = threading.Event()

    def say() -> None:
        while not ended.wait(_SAY_S):
            _log.warning("waiting for %s", what)

    threading.Thread(target=say, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


@contextmanager
def _ray_failures(directory: Path) -> Iterator[None]:
    """What Ray raises besides what the supervisor knows: its own processes are gone, or overloaded."""
    try:
        yield
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise RunFailed(
            f"Ray cannot go on: {first_cause(error)}; what was made is in {directory}, and `twin resume` goes on"
        ) from error


def _counts(status: FleetStatus) -> dict[str, Any]:
    return {
        "vehicles": status.vehicles,
        "steps": status.tick,
        "simulated_s": status.simulated_s,
        "elapsed_s": round(status.elapsed_s, 3),
        "telemetry": status.records,
        "predictions": status.predictions,
        "shards": len(status.shards),
        "shard_restarts": status.restarts,
        "compute_s": round(sum(shard.compute_s for shard in status.shards), 3),
        "sinks": {
            sink.name: {
                "delivered": sink.delivered,
                "waiting": sink.backlog,
                "duplicates_refused": sink.duplicates,
                "dead_letters": sink.dead_letters,
                "lost": sink.lost,
                # The ledger needs them when the logs and their cursors are on other nodes than this file.
                "logs": [
                    {"stream": log.stream, "shard": log.shard, "made": log.made, "cursor": vars(log.cursor)}
                    for log in sink.logs
                ],
            }
            for sink in status.sinks
        },
        "log_cut_bytes": status.cut_bytes,
        "transmission": vars(status.sent),
    }


def describe_backlog(status: FleetStatus) -> str:
    """What is not yet delivered or predicted, in one line."""
    parts = [
        f"{sum(sink.backlog.values()):,} records have not reached {sink.name}"
        + (f" ({status.waiting[sink.name]})" if sink.name in status.waiting else "")
        for sink in status.sinks
        if any(sink.backlog.values())
    ]
    if status.predictor_backlog:
        reason = status.waiting.get(READER, "the pool is behind")
        parts.append(f"{status.predictor_backlog:,} records wait for the predictor ({reason})")
    return "; ".join(parts)


def _make_directory(out: Path) -> None:
    try:
        make_directory(out)
        probe = out / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise BadInput(f"--out: cannot write to {out}: {error.strerror}") from error


def _versions() -> dict[str, str]:
    names = ("ray", "numpy", "numba", "pyarrow", "xgboost-cpu", "confluent-kafka", "paho-mqtt", "psycopg2-binary")
    return {"twin": __version__, "physics": physics_version()} | {name: package_version(name) for name in names}
