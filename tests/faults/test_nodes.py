"""A whole node that dies, with its shards, its shippers, its disk."""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.faults.nodes import Nodes
from tests.faults.scene import VEHICLES, Scene
from tests.services.fixtures import unavailable
from tests.support import HANG_S, wait_until

pytestmark = [pytest.mark.services, pytest.mark.cluster, pytest.mark.timeout(600)]

_MINUTES = 7


def _may_unshare() -> bool:
    test = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "true"]
    return subprocess.run(test, capture_output=True).returncode == 0


def test_worker_node_killed(scene: Scene, tmp_path: Path) -> None:
    """The log of a shard is gone with its node: the shard begins at its restart point elsewhere, nothing is lost."""
    if not _may_unshare():
        unavailable("nodes of their own need the right to unshare namespaces")
    with Nodes(2, tmp_path, scene.run) as nodes:
        pace = ("--duration", f"{_MINUTES}min", "--pace", "15", "--checkpoint-every", "20s")
        run = scene.command("--address", nodes.address, *pace)
        driver = subprocess.Popen(run, stderr=subprocess.PIPE, text=True, env=nodes.environment)
        said: list[tuple[float, str]] = []

        def listen() -> None:
            assert driver.stderr is not None
            for line in driver.stderr:
                said.append((time.monotonic(), line))

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        wait_until(
            lambda: driver.poll() is not None or len(list(scene.run.glob("restart/shard-*.npz"))) == 2, lambda: said
        )
        assert driver.poll() is None, said
        nodes.kill(0)
        killed = time.monotonic()
        try:
            code = driver.wait(timeout=HANG_S)
        finally:
            driver.kill()
            listener.join()
            assert driver.stderr is not None
            driver.stderr.close()
    assert code == 0, said
    back = [then for then, line in said if "goes on at step" in line]
    assert back, said
    scene.recoveries.append(("Ray worker node killed, its disk lost (until its shard is back)", back[-1] - killed))
    ledger = scene.balance()
    made = {line.stream: line.made for line in ledger.lines}
    assert made["telemetry"] == VEHICLES // 2 * _MINUTES * 30
    assert made["predictions"] == VEHICLES // 2 * _MINUTES * 12
