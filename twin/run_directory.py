"""Directories of runs and results: where a new one goes, what run.json says, whether a run is still going on.

A result folder appears whole or not at all, because it is filled under another name and renamed at the end (`filling`).
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from actors.delivery.sinks.base import unmasked
from actors.fleet.plan import PopulationPlan
from datasets.log.durable import make_directory, publish_folder, replace_file, when_there_is_room
from twin.errors import BadInput
from twin.settings import PASSWORDS, SECRETS, RunSettings, load_settings


class RunLock:
    """Held while a run goes on. However its process ends, the lock ends too. BadInput where another one holds it."""

    def __init__(self, directory: Path) -> None:
        try:
            self._file = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise BadInput(f"cannot write to {directory}: {error.strerror}") from error
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise BadInput(f"the run in {directory} is still going on; stop that process first") from None

    def release(self) -> None:
        """The run is over."""
        os.close(self._file)


def load_run(directory: Path) -> dict[str, Any]:
    """What run.json says; BadInput where the directory holds no run."""
    path = in_utf8(directory) / "run.json"
    try:
        run = json.loads(path.read_text())
    except FileNotFoundError:
        raise BadInput(f"expected a run directory, but {directory} holds no run.json") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if not isinstance(run, dict) or not {"run_id", "settings", "versions", "period_s"} <= run.keys():
        raise BadInput(f"expected run_id, settings, versions and period_s in {path}; was it written by twin run?")
    return run


def save_run(directory: Path, run: Mapping[str, Any]) -> None:
    """Write run.json, whole. On a full volume it waits for room, and says so."""
    content = (json.dumps(run, indent=2) + "\n").encode()
    when_there_is_room(lambda: replace_file(directory / "run.json", content))


def shard_count(run: Mapping[str, Any]) -> int:
    """How many shards a run has; BadInput where run.json does not say."""
    shards = run["settings"].get("shards")
    if not isinstance(shards, int):
        raise BadInput(f"expected the number of shards in run.json, got {shards!r}; it was written by an older version")
    return shards


def population_plan(settings: RunSettings) -> PopulationPlan:
    """Which vehicles a run of these settings has."""
    who = settings.population
    return PopulationPlan(
        seed=who.seed,
        cells=who.cells(),
        use=who.use or None,
        oldest_years=settings.oldest_years,
        fault_share=who.fault_share,
        drains=who.drains,
        models=who.models(),
    )


def run_settings(directory: Path, run: Mapping[str, Any], flags: Mapping[str, Any] | None = None) -> RunSettings:
    """The settings a run was begun with, some of them replaced by `flags`.

    run.json holds no secrets. A password comes with a flag's URL or from the environment (`PASSWORDS`), a token from
    there, too (`SECRETS`).
    """
    base = {name: value for name, value in run["settings"].items() if value is not None and name != "out"}
    base = {name: unmasked(value) if isinstance(value, str) else value for name, value in base.items()}
    base |= {name: os.environ.get(variable, "") for name, variable in SECRETS.items() if base.get(name)}
    if "@" in base.get("tracking_uri", ""):  # its password was masked
        base["tracking_uri"] = os.environ.get("MLFLOW_TRACKING_URI", base["tracking_uri"])
    base["telemetry_every"] = run["period_s"]  # its default depends on the duration, which may have changed
    # The run decides who is in the fleet and where its records go, not the environment of this shell.
    environ = {name: value for name, value in os.environ.items() if name in PASSWORDS.values()}
    return load_settings({**(flags or {}), "out": str(directory)}, environ=environ, base=base)


def resumable_settings(directory: Path, flags: Mapping[str, Any]) -> tuple[dict[str, Any], RunSettings]:
    """run.json and the settings to go on with."""
    run = load_run(directory)
    RunLock(directory).release()
    from physics import physics_version  # loads a compiler, so imported late

    was, now = run["versions"].get("physics"), physics_version()
    if was != now:
        raise BadInput(
            f"the run in {directory} was made by physics {was}, but this is {now}, whose records would differ; "
            "use the version that began it, or start a new run"
        )
    settings = run_settings(directory, run, flags)
    if settings.clock.duration is None:
        raise BadInput(
            "--duration: expected how far to go, like --duration 6h, because the run was begun without a duration"
        )
    return run, settings


def new_directory(out: Path | None, default: str) -> Path:
    """Where results go: `out`, or runs/<default>. BadInput where something is there already, or nothing may be written.

    Creates nothing.
    """
    # Path.expanduser refuses ~name where nobody has that name; a shell takes it as it stands.
    folder = in_utf8(Path(os.path.expanduser(out or Path("runs") / default)).absolute())
    try:
        taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
        parent = next(path for path in (folder, *folder.parents) if path.exists())
    except OSError as error:
        raise BadInput(f"--out: cannot use {folder}: {error.strerror}") from error
    if taken:
        raise BadInput(
            f"--out: expected a new or empty directory, but {folder} already holds something; choose another"
        )
    if not os.access(parent, os.W_OK | os.X_OK) or not parent.is_dir():
        raise BadInput(f"--out: cannot write to {parent}; choose a directory you may write to")
    return folder


def in_utf8(path: Path) -> Path:
    """The path; BadInput where it holds other bytes, which Arrow and DuckDB do not take."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise BadInput(f"expected a path in UTF-8, got {os.fsencode(path)!r}") from None
    return path


def stamp() -> str:
    """The present time, as part of a folder's name."""
    return time.strftime("%Y-%m-%dT%H-%M-%S")


@contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, which takes its place when the body ends without an error."""
    try:
        make_directory(folder.parent)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise BadInput(f"--out: cannot write to {folder.parent}: {error.strerror}") from error
    try:
        yield temporary
        temporary.chmod(0o755)
        publish_folder(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
