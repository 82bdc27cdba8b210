"""`twin doctor`: one line for each part a run would use. It says whether the part works, its version and what to do."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import typer

from actors.delivery.sinks import LIVE_SINKS
from actors.delivery.sinks.base import mask
from twin.errors import BadInput
from twin.folders import ROOT, shadowed_folders
from twin.options import takes
from twin.settings import ADDRESSES, RUN_GROUPS, Given, RunSettings

EXAMPLE = "twin doctor --kafka 127.0.0.1:9092 --mqtt mqtt://127.0.0.1"

AUTOGROUP = Path("/proc/sys/kernel/sched_autogroup_enabled")

_TAKEN = (
    "cell", *ADDRESSES, "bundle", "predictor_model", "predictor_cache", "tracking_uri", "registry_model", "rest_port",
    "metrics_port",
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
    from actors.delivery.sinks import SinkError
    from twin.servers import targets_of

    yield _folders()
    yield _kernel(AUTOGROUP.read_text().strip() if AUTOGROUP.exists() else "0")
    yield _try("physics", lambda: _physics(settings), ValueError)
    yield _try("model", lambda: _model(settings), BadInput)
    yield _port("rest", settings.pool.rest_host, settings.pool.rest_port)
    if settings.processes.metrics_port:
        yield _port("metrics", settings.processes.metrics_host, settings.processes.metrics_port)
    targets = {target.name: target for target in targets_of(settings.servers)}
    for name in LIVE_SINKS:
        if name in targets:
            yield _try(name, targets[name].check, SinkError)
        else:
            yield Finding(name, None, f"off; switch it on with --{name}")


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
