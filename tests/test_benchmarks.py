"""Every benchmark runs, small and once: what it says is not looked at, only that it says it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.services import TimescaleDB
from tests.services.fixtures import needed

ROOT = Path(__file__).parents[1]
FILES = sorted(path for path in (ROOT / "benchmarks").glob("*.py") if path.stem != "__init__")
SERVERS, RAY = pytest.mark.services, pytest.mark.cluster
# By file: what it starts. They start their servers and Ray themselves, as they do when a person calls them.
NEEDS: dict[str, tuple[pytest.MarkDecorator, ...]] = {
    "cluster": (SERVERS, RAY),
    "consume": (SERVERS,),
    "dashboards": (SERVERS,),
    "days": (),
    "fleet": (RAY,),
    "kernel": (),
    "latency": (SERVERS, RAY),
    "live": (SERVERS, RAY),
    "lives": (),
    "log": (),
    "page": (SERVERS, RAY),
    "payload": (RAY,),
    "pool": (RAY,),
    "sinks": (SERVERS,),
    "start": (),
    "supervisor": (),
}


def test_no_benchmark_is_forgotten() -> None:
    assert [path.stem for path in FILES] == sorted(NEEDS)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("file", [pytest.param(f, id=f.stem, marks=NEEDS.get(f.stem, (SERVERS, RAY))) for f in FILES])
def test_it_runs_and_writes_what_it_measured(file: Path, tmp_path: Path) -> None:
    if file.stem == "sinks":
        with needed():
            TimescaleDB.install()
    command = [sys.executable, str(file), "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout.splitlines()[-1]
    assert said.startswith("written to ")
    written = Path(said.removeprefix("written to "))
    assert written == tmp_path / f"{file.stem}.json"
    assert json.loads(written.read_text())
