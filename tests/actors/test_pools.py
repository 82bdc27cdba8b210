"""Fleets with predictions that share a cluster: each has a pool of its own, and leaves nothing behind."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from models.bundle import BUNDLED, Bundle
from tests.command import environment
from tests.support import HANG_S, records, wait_until
from twin import Fleet

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
VEHICLES = 6


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A bundle that predicts the same and says another version."""
    folder = Path(shutil.copytree(BUNDLED, tmp_path / "other"))
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"version": "other"}))
    return folder


def actors() -> set[str]:
    """Classes of the actors that live on the cluster, but for those that Ray Data keeps there for all its users."""
    found: Any = ray._private.state.actors()
    alive = {actor["ActorClassName"] for actor in found.values() if actor["State"] != "DEAD"}
    return alive - {"_AutoscalingCoordinatorActor", "_StatsActor"}


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    assert not actors()
    yield
    wait_until(lambda: not actors(), actors)


def versions(run: Path) -> set[str]:
    return set(records(run, "predictions").column("model_version").to_pylist())


def test_two_fleets_have_their_own_predictions(tmp_path: Path, other: Path, free_port: int) -> None:
    """Both at once, then one of them alone: its pool outlives the other's."""
    one, two = (tmp_path / name for name in ("one", "two"))
    settings: dict[str, Any] = {"vehicles": VEHICLES, "shards": 1, "replicas": 1, "rest_port": free_port}
    found: list[tuple[Path, dict[str, Any]]] = []
    with Fleet(out=one, **settings) as first:
        with Fleet(out=two, bundle=other, **settings) as second:
            for fleet in (first, second):
                fleet.run("10min")
                fleet.deliver()
            for run, version in ((one, Bundle.load().manifest.version), (two, "other")):
                assert asked(free_port, run)["version"] == version
                vehicle = asked(free_port, run, "vehicles/EV-000003")
                found.append((run, vehicle))
                assert vehicle["model_version"] == version
        first.run("10min")
        first.deliver()
        assert asked(free_port, one)["version"] == Bundle.load().manifest.version
    assert versions(one) == {Bundle.load().manifest.version}
    assert versions(two) == {"other"}
    for run, vehicle in found:
        logged = [
            row["rul"]
            for row in records(run, "predictions").to_pylist()
            if (row["vehicle_id"], row["seq"]) == ("EV-000003", vehicle["seq"])
        ]
        assert logged == pytest.approx([vehicle["rul"]], rel=1e-4, abs=0.01)
    assert records(one, "predictions").num_rows == 2 * records(two, "predictions").num_rows > 0


def asked(port: int, run: Path, what: str = "model") -> dict[str, Any]:
    """What the run's pool says over REST."""
    route = f"/predictor-{json.loads((run / 'run.json').read_text())['log_id']}/{what}"
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{route}", timeout=HANG_S) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def started(out: Path, port: int, *more: str) -> subprocess.Popen[str]:
    command = [
        sys.executable, "-m", "twin", "run", "--address", ray.get_runtime_context().gcs_address, "--vehicles", "4",
        "--shards", "1", "--replicas", "1", "--out", str(out), "--rest-port", str(port), "--metrics-port", "0",
        "--quiet", "--no-report", *more,
    ]  # fmt: skip
    return subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True)


def test_a_run_on_a_cluster_leaves_nothing_there(tmp_path: Path, free_port: int) -> None:
    run = started(tmp_path / "run", free_port, "--duration", "2min")
    _, complaint = run.communicate(timeout=HANG_S)
    assert run.returncode == 0, complaint
    assert records(tmp_path / "run", "predictions").num_rows == 4 * 24


@pytest.mark.parametrize("when", ["the pool starts", "it predicts"])
def test_a_run_that_is_stopped_leaves_nothing_there(tmp_path: Path, free_port: int, when: str) -> None:
    out = tmp_path / "run"
    run = started(out, free_port, "--duration", "1d", "--pace", "10")
    made = "telemetry" if when == "the pool starts" else "predictions"
    wait_until(lambda: run.poll() is not None or any(file.stat().st_size for file in out.glob(f"{made}/*/*.open")))
    run.send_signal(signal.SIGINT)
    _, complaint = run.communicate(timeout=HANG_S)
    assert run.returncode == 130, complaint


def test_a_run_that_fails_leaves_nothing_there(tmp_path: Path, free_port: int) -> None:
    """Its pool cannot start: the port is taken."""
    with socket.create_server(("127.0.0.1", free_port)):
        run = started(tmp_path / "run", free_port, "--duration", "2min", "--drain-timeout", "1s")
        _, complaint = run.communicate(timeout=HANG_S)
    assert run.returncode in (1, 3), complaint
    assert "Traceback" not in complaint
