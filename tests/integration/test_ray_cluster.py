"""Clusters: what `ray up` reads is what Ray expects, and a run is a job of a cluster that lets in who has its token."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.command import Twin, environment
from tests.services.base import free_ports
from tests.support import HANG_S, listens, wait_until
from twin.folders import ROOT

CLUSTERS = sorted((ROOT / "cluster" / "ray").glob("*.yaml"))
_RAY = [sys.executable, "-m", "ray.scripts.scripts"]


def read(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(path.read_text())
    return config


@pytest.mark.parametrize("path", CLUSTERS, ids=lambda path: path.stem)
def test_ray_takes_the_configuration(path: Path) -> None:
    validate_config(prepare_config(read(path)))
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config(read(path) | {"max_wrokers": 1}))


@pytest.mark.parametrize("path", CLUSTERS, ids=lambda path: path.stem)
def test_a_cluster_asks_for_its_token_and_is_ours(path: Path) -> None:
    config = read(path)
    starts = [config[f"{kind}_start_ray_commands"][-1] for kind in ("head", "worker")]
    assert all("RAY_AUTH_MODE=token" in start and "RAY_worker_niceness=0" in start for start in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert config["file_mounts"]["~/.ray/auth_token"]
    assert (ROOT / "scripts" / "setup.sh").exists()
    assert config["setup_commands"][0] == "cd ~/ev-twin && scripts/setup.sh run"


@pytest.fixture
def cluster() -> Iterator[dict[str, str]]:
    """A head that asks for a token; the environment of who has it."""
    port, dashboard, agent, client = free_ports(4)
    told = environment() | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": uuid.uuid4().hex * 2,
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
    }
    folder = Path(f"/tmp/ray-{uuid.uuid4().hex[:8]}")  # sockets have short names, so not pytest's deep folder
    ports = ["--port", port, "--dashboard-port", dashboard, "--dashboard-agent-listen-port", agent,
             "--ray-client-server-port", client]  # fmt: skip
    options = ["--head", "--num-cpus", "8", "--temp-dir", folder, "--block", "--disable-usage-stats", *ports]
    node: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    head = subprocess.Popen(
        [*_RAY, "start", *map(str, options)], env=told, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: listens("127.0.0.1", dashboard) and listens(node, agent), look_s=0.2)
        yield told | {"RAY_ADDRESS": f"{node}:{port}"}
    finally:
        head.terminate()
        head.wait(HANG_S)


def submit(told: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*_RAY, "job", "submit", "--working-dir", ".", "--", "python", "-m", "twin", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=told, timeout=HANG_S)


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_a_run_is_a_job(cluster: dict[str, str], twin: Twin, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ("--vehicles", 40, "--duration", "20s", "--no-predict", "--metrics-port", 0, "--out", run)
    refused = submit(
        {name: value for name, value in cluster.items() if not name.startswith("RAY_AUTH")}, "run", *options
    )
    assert refused.returncode != 0
    assert "uthenti" in refused.stderr
    done = submit(cluster, "run", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "400 records" in done.stdout
    counted = twin("ledger", run, "--verify")
    assert counted.code == 0, counted.out
    doctor = [sys.executable, "-m", "twin", "doctor", "--rest-port", "65535", "--metrics-port", "0"]
    asked = subprocess.run(doctor, capture_output=True, text=True, cwd=ROOT, env=cluster, timeout=HANG_S)
    assert "1 nodes alive, 8 of 8 CPUs free" in asked.stdout, asked.stdout + asked.stderr
