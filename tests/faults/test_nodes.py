"""A whole node that dies, with its shards, its shippers, its disk."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.faults.nodes import Nodes
from tests.faults.scene import VEHICLES, Scene
from tests.services.fixtures import unavailable
from tests.support import HANG_S, wait_until

pytestmark = [pytest.mark.services, pytest.mark.cluster, pytest.mark.timeout(600)]


# It simulates until it is told to stop, however late restart points come on a slow machine: they wait for the sinks.
_DRIVER = """
import json, logging, sys
from twin import Fleet
from twin.signals import stopped_by_signals
logging.basicConfig(level=logging.WARNING)
with stopped_by_signals() as stop, Fleet(**json.loads(sys.argv[1])) as fleet:
    fleet.run("1d", stop=stop)
    fleet.deliver()
"""


def _may_unshare() -> bool:
    test = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "true"]
    return subprocess.run(test, capture_output=True).returncode == 0


def test_worker_node_killed(scene: Scene, tmp_path: Path) -> None:
    """The log of a shard is gone with its node: the shard begins at its restart point elsewhere, nothing is lost.

    The run is stopped before the shard is where it was: it still owes the records that sinks may have from before.
    """
    if not _may_unshare():
        unavailable("nodes of their own need the right to unshare namespaces")
    with Nodes(2, tmp_path, scene.run) as nodes:
        settings = scene.settings | {"address": nodes.address, "pace": 15, "checkpoint_every": "20s"}
        run = [sys.executable, "-c", _DRIVER, json.dumps(settings)]
        driver = subprocess.Popen(run, stderr=subprocess.PIPE, text=True, env=nodes.environment)
        said: list[tuple[float, str]] = []

        def listen() -> None:
            assert driver.stderr is not None
            for line in driver.stderr:
                said.append((time.monotonic(), line))

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()

        def back() -> list[float]:
            return [then for then, line in said if "goes on at step" in line]

        try:
            wait_until(
                lambda: driver.poll() is not None or len(list(scene.run.glob("restart/shard-*.npz"))) == 2, lambda: said
            )
            assert driver.poll() is None, said
            nodes.kill(0)
            killed = time.monotonic()
            wait_until(lambda: driver.poll() is not None or back(), lambda: said)
            assert driver.poll() is None, said
            driver.send_signal(signal.SIGINT)
            code = driver.wait(timeout=HANG_S)
        finally:
            driver.kill()
            driver.wait()
            listener.join()
            assert driver.stderr is not None
            driver.stderr.close()
    assert code == 0, said
    scene.recoveries.append(("Ray worker node killed, its disk lost (until its shard is back)", back()[-1] - killed))
    ledger = scene.balance()
    for stream in ("telemetry", "predictions"):
        assert {line.shard for line in ledger.lines if line.stream == stream and line.made > VEHICLES} == {0, 1}
