"""Our own processes that die: shards, replicas, the driver."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray

from actors.fleet.status import FleetStatus
from tests.faults.scene import PACE, VEHICLES, Scene
from tests.support import wait_until

pytestmark = [
    pytest.mark.services,
    pytest.mark.cluster,
    pytest.mark.usefixtures("ray_cluster"),
    pytest.mark.timeout(600),
]


def test_shard_actor_killed(scene: Scene) -> None:
    with scene.fleet() as running:
        victim = running.fleet.status().shards[1]
        os.kill(victim.pid, signal.SIGKILL)
        with scene.recovery("shard actor killed (SIGKILL)"):
            running.until(
                "the shard's return",
                lambda s: s.shards[1].pid != victim.pid and s.shards[1].tick >= s.shards[0].tick - PACE,
            )
        assert running.fleet.status().restarts == 1
    scene.balance()


def test_shard_actor_killed_while_vehicles_send_as_real_ones_do(scene: Scene) -> None:
    """On change, lost, late, twice, with clocks that are off: each sink has what was sent, and the rest is counted."""
    real: dict[str, Any] = {
        "send_on_change": True,
        "drop": 0.05,
        "late": 0.1,
        "late_by": "1min",
        "repeat": 0.1,
        "clock_error": "2s",
    }
    with scene.fleet(**real) as running:
        victim = running.fleet.status().shards[1]
        os.kill(victim.pid, signal.SIGKILL)
        running.until("the shard's return", lambda s: s.shards[1].pid != victim.pid)
        running.on(300.0)
    ledger = scene.balance()
    assert ledger.transmission is not None
    assert ledger.transmission.balanced
    assert min(ledger.transmission.unchanged, ledger.transmission.dropped, ledger.transmission.repeated) > 0


def _kill_replicas() -> list[str]:
    """SIGKILL-like end of every predictor replica that runs now; their names."""
    killed = []
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["name"].startswith("SERVE_REPLICA"):
            ray.kill(ray.get_actor(actor["name"], namespace=actor["namespace"]))
            killed.append(actor["name"])
    return killed


def test_predictor_replica_killed(scene: Scene) -> None:
    with scene.fleet(pace=20) as running:
        running.until("predictions", lambda s: s.predictions > 0)
        assert _kill_replicas()
        before = running.fleet.status().predictions
        with scene.recovery("predictor replica killed"):
            running.until("predictions again", lambda s: s.predictions > before + 10 * VEHICLES)
            running.predicting()
    scene.balance()


def test_all_predictor_replicas_gone_for_a_while(scene: Scene) -> None:
    """Telemetry goes on; the predictions of that time are made up from the log."""
    with scene.fleet(pace=20) as running:
        running.until("predictions", lambda s: s.predictions > 0)
        killed: set[str] = set()

        def gone_for_a_while(status: FleetStatus) -> bool:
            """Also those that were to take the first one's place."""
            killed.update(_kill_replicas())
            return len(killed) >= 2 and status.predictor_backlog > VEHICLES * 60

        running.until("a backlog of the predictor", gone_for_a_while)
        with scene.recovery("all predictor replicas gone for a while"):
            running.predicting()
    ledger = scene.balance()
    made = {line.stream: line.made for line in ledger.lines if line.sink == "kafka" and line.shard == 0}
    assert made["predictions"] > 0


def test_driver_killed_then_resumed(scene: Scene, tmp_path: Path) -> None:
    """kill -9 of `twin run`; `twin resume` makes the records it would have made, and the sinks have each of them."""
    minutes = 24
    run = scene.command("--duration", f"{minutes}min", "--pace", "30", "--checkpoint-every", "1min")
    driver = subprocess.Popen(run)
    begun = ("cursors/timescale@*/*.json", "checkpoints/*.npz")
    wait_until(lambda: driver.poll() is not None or all(list(scene.run.glob(files)) for files in begun))
    assert driver.poll() is None
    driver.kill()
    driver.wait()
    with scene.recovery("driver killed (SIGKILL), then twin resume to its end"):
        again = subprocess.run(
            [
                sys.executable,
                "-m",
                "twin",
                "resume",
                str(scene.run),
                "--pace",
                "max",
                "--quiet",
                "--no-report",
                *scene.sinks,
            ],
            capture_output=True,
            text=True,
        )
    assert again.returncode == 0, again.stderr
    ledger = scene.balance()
    assert {line.made for line in ledger.lines if line.stream == "telemetry"} == {VEHICLES // 2 * minutes * 30}
