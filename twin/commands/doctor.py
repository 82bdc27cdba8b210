"""`twin doctor`: one line for each part a run would use. It says whether the part works, its version and what to do."""

from __future__ import annotations

import math
import os
import platform
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

import typer

from actors.delivery.sinks import LIVE_SINKS
from actors.delivery.sinks.base import mask
from twin.errors import BadInput, TwinError
from twin.folders import ROOT, shadowed_folders
from twin.options import takes
from twin.settings import ADDRESSES, RUN_GROUPS, Given, RunSettings

EXAMPLE = "twin doctor --kafka 127.0.0.1:9092 --mqtt mqtt://127.0.0.1"

if TYPE_CHECKING:
    from actors.delivery.sinks import Target
    from actors.delivery.sinks.timescale import TimescaleTarget

RECORD_BYTES: Final = 40
"""A record in the sealed log takes 31 to 35 (docs/performance.md), and there is something beside it."""

_CLOCK_S = 1.0
_DAY_S = 86_400.0

AUTOGROUP = Path("/proc/sys/kernel/sched_autogroup_enabled")

_TAKEN = (
    "vehicles", "duration", "telemetry_every", "out", "log_max_size", "address", "cell", *ADDRESSES, "bundle",
    "predictor_model", "predictor_cache", "tracking_uri", "registry_model", "rest_port", "metrics_port", "tls_cert",
    "tls_key",
)  # fmt: skip


@takes(*RUN_GROUPS, only=_TAKEN)
def doctor(given: Given) -> None:
    """Check each part a run would use, and print one line for each."""
    wrong = 0
    for finding in examine(given.run()):
        sign = {True: "ok   ", False: "WRONG", None: "off  "}[finding.ok]
        wrong += finding.ok is False
        typer.echo(f"{sign} {finding.part:<10} {finding.says}")
    raise typer.Exit(1 if wrong else 0)


@dataclass(frozen=True)
class Finding:
    """`ok` is None for what is switched off."""

    part: str
    ok: bool | None
    says: str


def examine(settings: RunSettings) -> Iterator[Finding]:
    """Look at everything these settings would use."""
    import psycopg2

    from actors.delivery.sinks import SinkError
    from actors.delivery.sinks.timescale import TimescaleTarget
    from twin.servers import targets_of, tls_of

    yield _folders()
    yield _try("ray", lambda: _ray(settings.processes.address), TwinError)
    yield _disk(settings)
    yield _kernel(AUTOGROUP.read_text().strip() if AUTOGROUP.exists() else "0")
    yield _try("physics", lambda: _physics(settings), ValueError)
    yield _try("model", lambda: _model(settings), BadInput)
    yield _port("rest", settings.pool.rest_host, settings.pool.rest_port)
    if settings.processes.metrics_port:
        yield _port("metrics", settings.processes.metrics_host, settings.processes.metrics_port)
    if certificate := settings.encryption.tls_cert:
        usable = _try("tls", lambda: str(tls_of(settings.encryption)), BadInput)
        yield _certificate(certificate) if usable.ok else usable
    targets = {target.name: target for target in targets_of(settings.servers)}
    for name in LIVE_SINKS:
        if name in targets:
            yield _try(name, targets[name].check, SinkError)
        else:
            yield Finding(name, None, f"off; switch it on with --{name}")
    for target in targets.values():
        if isinstance(target, TimescaleTarget):
            with suppress(SinkError, psycopg2.Error):  # said above
                yield _clock(target)
        for file in _certificates_of(target):
            yield _certificate(file)


def _try(part: str, look: Callable[[], str], error_type: type[Exception]) -> Finding:
    try:
        return Finding(part, True, look())
    except error_type as error:
        return Finding(part, False, str(error))


def _folders() -> Finding:
    """Always good: if Python did not find ours first, the command line would have stopped earlier."""
    also = shadowed_folders()
    return Finding("folders", True, f"{ROOT}" + (f", before {', '.join(also)} of other projects" if also else ""))


def _kernel(autogroup: str) -> Finding:
    """Not wrong: only a fleet in real time, beside busy programs, is late by it."""
    if autogroup == "0":
        return Finding("kernel", True, "schedules each process by itself")
    says = "schedules each session as a group; for a live fleet beside busy programs: sysctl "
    return Finding("kernel", True, f"{says}kernel.sched_autogroup_enabled=0 (docs/performance.md, Latency)")


def _ray(address: str) -> str:
    """Who would run the actors. A cluster is joined for as long as it takes to ask."""
    import ray

    ours = f"Ray {ray.__version__}, Python {platform.python_version()}"
    if not address:
        return f"{ours}, started here with the run, on {os.cpu_count()} CPUs"
    from actors.fleet.ray_cluster import RayCluster
    from twin.fleet import join_cluster

    join_cluster(address)
    try:
        cluster = RayCluster()
        free, total = cluster.cpus()
        return f"{ours} there too, {cluster.live_nodes()} nodes alive, {free:g} of {total:g} CPUs free"
    finally:
        ray.shutdown()


def _disk(settings: RunSettings) -> Finding:
    """Whether the run's telemetry has room where its log goes."""
    out = (settings.log.out or Path("runs")).absolute()
    there = next(path for path in (out, *out.parents) if path.exists())
    free = shutil.disk_usage(there).free
    clock = settings.clock
    records = settings.population.vehicles * (clock.duration or _DAY_S) / clock.telemetry_s
    need = min(records * RECORD_BYTES, settings.log.log_max_size or math.inf)
    much = "a day" if clock.duration is None else "all"
    says = f"{free / 1e9:.3g} GB free at {there}; {much} of this run's telemetry takes about {need / 1e9:.1g} GB"
    if need < free:
        return Finding("disk", True, says)
    return Finding("disk", False, f"{says}; take another --out, or bound it with --log-max-size")


def _clock(target: TimescaleTarget) -> Finding:
    """Records carry this machine's time; latencies and retention compare it with the server's."""
    with closing(target.connect()) as connection, connection.cursor() as cursor:
        before = time.time()
        cursor.execute("SELECT extract(epoch FROM clock_timestamp())")
        [(theirs,)] = cursor.fetchall()
        ahead = (before + time.time()) / 2 - float(theirs)
    says = f"this machine's is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} the database's"
    if abs(ahead) < _CLOCK_S:
        return Finding("clock", True, says)
    return Finding("clock", False, f"{says}; let both follow one time server (NTP)")


def _certificates_of(target: Target) -> list[Path]:
    """The files of certificates that a peer's clients are given: ours, and the authorities they trust."""
    from actors.delivery.sinks.kafka import KafkaTarget
    from actors.delivery.sinks.mqtt import MqttTarget
    from actors.delivery.sinks.timescale import TimescaleTarget

    found: list[str | None] = []
    if isinstance(target, KafkaTarget):
        found = [*target.certificates()]
    elif isinstance(target, MqttTarget):
        found = [target.cafile, target.certfile]
    elif isinstance(target, TimescaleTarget):
        options = dict(parse_qsl(target.options))
        found = [options.get(name, os.environ.get(f"PG{name.upper()}")) for name in ("sslrootcert", "sslcert")]
    return [Path(name) for name in found if name and name != "system"]


def _certificate(file: Path) -> Finding:
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificates(file.read_bytes())
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or "no certificate in PEM is in it"
        return Finding("tls", False, f"{file}: {said}")
    ends = min(certificate.not_valid_after_utc for certificate in found)
    days = (ends - datetime.now(UTC)).days
    if days < 0:
        return Finding("tls", False, f"{file} ended on {ends:%Y-%m-%d}; renew it")
    return Finding("tls", True, f"{file} ends in {days} days, on {ends:%Y-%m-%d}")


def _physics(settings: RunSettings) -> str:
    from physics import load_cell, physics_version

    names = ", ".join(load_cell(name).name for name, _ in settings.population.cells())
    return f"cells {names}, version {physics_version()}"


def _model(settings: RunSettings) -> str:
    """A run would go on where the registry does not answer; a doctor says that it does not."""
    from twin.model import chosen_model

    chosen = chosen_model(settings)
    if chosen.notice:
        raise BadInput(chosen.notice)
    where = f", {chosen.plan.uri} of {mask(settings.registry.tracking_uri)}" if chosen.plan else ""
    return f"{chosen}, hashes match{where}"


def _port(part: str, host: str, port: int) -> Finding:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return Finding(part, False, f"{host}:{port} is taken ({error.strerror}); choose another with --{part}-port")
    return Finding(part, True, f"{host}:{port} is free")
