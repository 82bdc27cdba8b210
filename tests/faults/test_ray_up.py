"""`ray up` over ssh on three machines, a fleet as a job of theirs, one machine lost in mid-run, `ray down`."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest
import yaml

from tests.command import environment
from tests.faults.scene import Scene
from tests.services import Kafka, Mosquitto, Postgres
from tests.services.fixtures import needed
from tests.services.hosts import Hosts
from tests.support import HANG_S, wait_until
from twin.folders import ROOT

pytestmark = [pytest.mark.services, pytest.mark.cluster, pytest.mark.timeout(1200)]

# Three machines share the cores of one.
_CPUS = 6
_VEHICLES = 5000


@pytest.fixture
def hosts(kafka: Kafka, mosquitto: Mosquitto, postgres: Postgres, tmp_path: Path) -> Iterator[Hosts]:
    """Three machines from which the servers can be reached, and a desk."""
    with needed():
        Hosts.install()
    with Hosts(3, tmp_path / "hosts", [kafka.port, mosquitto.port, postgres.port]) as made:
        yield made


class Cluster:
    """What somebody does at the desk, in a checkout, with cluster/ray/on-premises.yaml filled in."""

    def __init__(self, hosts: Hosts, log: Path) -> None:
        self.hosts, self._log = hosts, log
        config = yaml.safe_load((ROOT / "cluster" / "ray" / "on-premises.yaml").read_text())
        addresses = [host.address for host in hosts.hosts]
        config["provider"] |= {"head_ip": addresses[0], "worker_ips": addresses[1:]}
        config["auth"]["ssh_user"] = "root"
        config["file_mounts"]["~/.pgpass"] = "~/.pgpass"
        for kind in ("head", "worker"):
            starts = config[f"{kind}_start_ray_commands"]
            starts[-1] = f"{starts[-1].strip()} --num-cpus={_CPUS}"
        (hosts.desk.home / "cluster.yaml").write_text(yaml.safe_dump(config, sort_keys=False))

    def _words(self, command: str) -> list[str]:
        told = f"export PATH={Path(sys.executable).parent}:$PATH RAY_AUTH_MODE=token PYTHONWARNINGS=ignore; cd {ROOT}; "
        return self.hosts.desk.command("env", "-u", "PYTHONPATH", "bash", "-c", told + command)

    def run(self, command: str) -> str:
        """A command to its end; what it said."""
        done = subprocess.run(
            self._words(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=2 * HANG_S, env=environment(),
        )  # fmt: skip
        with open(self._log, "a") as log:
            log.write(f"$ {command}\n{done.stdout}\n")
        assert done.returncode == 0, done.stdout
        return done.stdout

    def start(self, command: str) -> subprocess.Popen[bytes]:
        """A command that goes on; it says what it says into the log."""
        with open(self._log, "ab") as log:
            return subprocess.Popen(
                self._words(f"exec {command}"), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment()
            )

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def alive(self) -> int:
        """How many nodes the dashboard knows to be alive; 0 while there is none."""
        ask = (
            'curl -sf -H "Authorization: Bearer $(cat ~/.ray/auth_token)" http://127.0.0.1:8265/api/v0/nodes'
            ' | grep -o \'"state": "ALIVE"\' | wc -l'
        )
        return int(self.run(ask).strip() or 0)


def _records(database: str) -> int:
    with psycopg2.connect(database) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('telemetry') IS NOT NULL")
        if not cursor.fetchone()[0]:  # type: ignore[index]
            return 0
        cursor.execute("SELECT count(*) FROM telemetry")
        return int(cursor.fetchone()[0])  # type: ignore[index]


def test_a_fleet_on_machines_reached_by_ssh(scene: Scene, hosts: Hosts, postgres: Postgres, tmp_path: Path) -> None:
    cluster = Cluster(hosts, tmp_path / "desk.log")
    pgpass = hosts.desk.home / ".pgpass"
    pgpass.write_text(f"127.0.0.1:{postgres.port}:*:{postgres.user}:{postgres.password}\n")
    pgpass.chmod(0o600)
    scene.urls["kafka"] += f"/{scene.run_id}."
    scene.run = hosts.hosts[0].home / "run"
    began = time.monotonic()

    def took(what: str) -> None:
        scene.recoveries.append((what, time.monotonic() - began))

    cluster.run("ray get-auth-token --generate")
    cluster.run("RAY_UP_enable_autoscaler_v2=0 ray up -y ~/cluster.yaml")
    took("ray up: the head (since the beginning)")
    dashboard = cluster.start("ray dashboard ~/cluster.yaml")
    try:
        wait_until(lambda: cluster.alive() == 3, cluster.log, look_s=1.0)
        took("ray up: three nodes (since the beginning)")
        assert "Active" in cluster.run("ray exec ~/cluster.yaml 'ray status'")
        sinks = " ".join(scene.sinks).replace(f":{postgres.password}@", "@")
        job = cluster.start(
            "env RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265 ray job submit --working-dir . -- python -m twin run"
            f" --vehicles {_VEHICLES} --shards 3 --pace 1 --duration 1min --checkpoint-every 10s"
            f" --run-id {scene.run_id} --payload {scene.payload} --kafka-partitions 6 --metrics-port 0 --quiet"
            f" --out ~/run {sinks}"
        )
        wait_until(lambda: _records(scene.database) > 5 * _VEHICLES or job.poll() is not None, cluster.log, look_s=0.5)
        assert job.poll() is None, cluster.log()
        lost = next(host for host in hosts.hosts[1:] if any("ShardActor" in line for line in host.processes()))
        lost.kill()
        with scene.recovery("a machine of a Ray cluster switched off (until its shard is back)"):
            wait_until(lambda: "goes on at step" in cluster.log() or job.poll() is not None, cluster.log)
        assert job.wait(2 * HANG_S) == 0, cluster.log()
    finally:
        dashboard.terminate()
        dashboard.wait()
    assert "goes on at step" in cluster.log()
    [factor] = re.findall(r"([\d.]+)x real time", cluster.log())
    what = f"a live run of {_VEHICLES:,} vehicles on three nodes, one lost: real-time factor"
    scene.recoveries.append((what, float(factor)))
    scene.balance()
    assert postgres.password not in cluster.log()
    began = time.monotonic()
    cluster.run("ray down -y ~/cluster.yaml")
    left = [host for host in hosts.hosts if host is not lost]
    wait_until(
        lambda: not any("raylet" in line or "ray::" in line for host in left for line in host.processes()),
        lambda: [host.processes() for host in left],
        look_s=0.5,
    )
    took("ray down (until nothing of Ray runs)")
