"""The head of a Ray cluster is switched off in mid-run and comes back; it keeps Ray's tables on its disk."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.command import environment
from tests.faults.scene import VEHICLES, Scene
from tests.services import Kafka, Mosquitto, Postgres
from tests.services.fixtures import needed
from tests.services.hosts import Host, Hosts
from tests.support import HANG_S, records_in, wait_until
from twin.folders import ROOT

pytestmark = [pytest.mark.services, pytest.mark.cluster, pytest.mark.timeout(900)]

_PORT = 6379


@pytest.fixture
def hosts(kafka: Kafka, mosquitto: Mosquitto, postgres: Postgres, tmp_path: Path) -> Iterator[Hosts]:
    with needed():
        Hosts.install()
    with Hosts(2, tmp_path / "hosts", [kafka.port, mosquitto.port, postgres.port]) as made:
        yield made


def test_a_run_beside_the_head_goes_on_without_it(
    scene: Scene, hosts: Hosts, postgres: Postgres, tmp_path: Path
) -> None:
    """Its driver is on another machine, as is all it has."""
    head, worker = hosts.hosts
    log, scene.run = tmp_path / "log", worker.home / "run"
    told = {
        "PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin", "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": scene.run_id.encode().hex().ljust(64, "0"), "RAY_gcs_rpc_server_reconnect_timeout_s": "120",
        "RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": "/tmp/ray-tables", "PYTHONPATH": f"{ROOT}",
    }  # fmt: skip

    def start(host: Host, *words: object) -> subprocess.Popen[bytes]:
        variables = [f"{name}={value}" for name, value in told.items()]
        with open(log, "ab") as said:
            process = subprocess.Popen(
                host.command("env", *variables, *words), stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                env=environment(),
            )  # fmt: skip
        stack.callback(process.wait)
        stack.callback(process.kill)
        return process

    def up() -> bool:
        looked = worker.command("bash", "-c", f"< /dev/tcp/{head.address}/{_PORT}")
        return subprocess.run(looked, stderr=subprocess.DEVNULL).returncode == 0

    def start_head() -> None:
        (head.folder / "tmp" / "ray-tables").mkdir(exist_ok=True)
        address = ("--node-ip-address", head.address, "--port", _PORT)
        start(head, "ray", "start", "--head", *address, "--num-cpus", 0, "--include-dashboard=false", "--block")
        wait_until(up, log.read_text, look_s=0.2)

    with ExitStack() as stack:
        start_head()
        joins = ("--address", f"{head.address}:{_PORT}", "--node-ip-address", worker.address)
        start(worker, "ray", "start", *joins, "--num-cpus", 6, "--block")
        wait_until(lambda: any("raylet/raylet" in line for line in worker.processes()), log.read_text, look_s=0.2)
        run = start(
            worker, sys.executable, "-m", "twin", "run", "--vehicles", VEHICLES, "--shards", 2, "--pace", 1, "--quiet",
            "--duration", "40s", "--checkpoint-every", "5s", "--run-id", scene.run_id, "--payload", scene.payload,
            "--metrics-port", 0, "--no-report", "--address", "auto", "--out", scene.run.relative_to(worker.home),
            *scene.sinks,
        )  # fmt: skip

        def more(records: int) -> None:
            """So many of each vehicle arrive from now on."""
            goal = records_in(scene.database) + records * VEHICLES
            wait_until(lambda: records_in(scene.database) >= goal or run.poll() is not None, log.read_text)
            assert run.poll() is None, log.read_text()

        more(3)
        head.kill()
        more(4)
        with scene.recovery("the head is back (until its Ray answers)"):
            head.start()
            start_head()
        assert run.wait(HANG_S) == 0, log.read_text()
    assert "restarts" not in log.read_text()
    scene.balance()
