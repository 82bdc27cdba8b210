"""One line a service: reachable, which version, what is wrong and what to do."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from actors.sinks import SinkError
from models.bundle import BUNDLED, Bundle, BundleError
from physics import load_cell, physics_version
from twin.servers import targets_of
from twin.settings import RunSettings


@dataclass(frozen=True)
class Finding:
    """`ok` is None for what is switched off."""

    part: str
    ok: bool | None
    says: str


def examine(settings: RunSettings) -> Iterator[Finding]:
    """Look at everything these settings would use."""
    yield _try("physics", lambda: _physics(settings), ValueError)
    yield _try("model", lambda: _model(settings.bundle or BUNDLED), BundleError)
    yield _port("rest", settings.rest_host, settings.rest_port)
    if settings.metrics_port:
        yield _port("metrics", "127.0.0.1", settings.metrics_port)
    targets = {target.name: target for target in targets_of(settings)}
    for name in ("kafka", "mqtt", "timescale"):
        if name in targets:
            yield _try(name, targets[name].check, SinkError)
        else:
            yield Finding(name, None, f"off; switch it on with --{name}")


def _try(part: str, look: Callable[[], str], error_type: type[Exception]) -> Finding:
    try:
        return Finding(part, True, look())
    except error_type as error:
        return Finding(part, False, str(error))


def _physics(settings: RunSettings) -> str:
    names = ", ".join(load_cell(name).name for name, _ in settings.cells())
    return f"cells {names}, version {physics_version()}"


def _model(folder: Path) -> str:
    manifest = Bundle.load(folder).manifest
    return f"{manifest.name} {manifest.version}, hashes fit"


def _port(part: str, host: str, port: int) -> Finding:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return Finding(part, False, f"{host}:{port} is taken ({error.strerror}); choose another with --{part}-port")
    return Finding(part, True, f"{host}:{port} is free")
