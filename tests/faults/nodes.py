"""A Ray cluster of several nodes on one machine; each worker node has processes and a disk of its own.

A worker node lives in its own PID and mount namespaces, with a tmpfs where the run's directory is: killed, it is gone
with all its processes and all it had on its disk, as a machine is.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.services.base import free_ports

_RAY = [sys.executable, "-m", "ray.scripts.scripts"]


class Nodes:
    """A head without CPUs for the driver, and `count` workers. `address` for `twin run --address`."""

    def __init__(self, count: int, folder: Path, run_dir: Path) -> None:
        # Below 20000 are the ports of Ray's workers.
        port = next(port for port in free_ports(50) if port > 20_000)
        self.address = f"127.0.0.1:{port}"
        self.environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex * 2}
        self._log = open(folder / "nodes.log", "wb")  # noqa: SIM115
        run_dir.mkdir(exist_ok=True)
        # Sockets have short names, so not pytest's deep folder.
        self._temporary = Path(f"/tmp/ray-{uuid.uuid4().hex[:8]}")
        head = ["--head", "--port", f"{port}", "--num-cpus", "0", "--include-dashboard=false"]
        self._workers: list[subprocess.Popen[bytes]] = []
        self._head = self._start([*_RAY, "start", *head, "--temp-dir", str(self._temporary), "--block"])
        try:
            self._start_all(count, run_dir)
        except BaseException:
            self.close()
            raise

    def _start_all(self, count: int, run_dir: Path) -> None:
        self._wait_for(1)
        worker = shlex.join([*_RAY, "start", "--address", self.address, "--num-cpus", "3", "--block"])
        script = f"mount -t tmpfs -o size=1g tmpfs {shlex.quote(str(run_dir))} && exec {worker}"
        alone = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", script]
        for number in range(count):
            # One after the other: two that start at once on one address choose the same ports.
            self._workers.append(self._start(alone))
            self._wait_for(2 + number)

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env=self.environment,
            start_new_session=True,
        )

    def _wait_for(self, count: int, patience_s: float = 120.0) -> None:
        """Until so many nodes are alive."""
        ask = (
            f"import ray; ray.init(address='{self.address}', log_to_driver=False, logging_level='ERROR'); "
            "print(sum(n['Alive'] for n in ray.nodes()))"
        )
        deadline = time.monotonic() + patience_s
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                done = subprocess.run(
                    [sys.executable, "-c", ask], capture_output=True, text=True, env=self.environment, timeout=30
                )
                if done.stdout.strip() == f"{count}":
                    return
            assert time.monotonic() < deadline, f"{count} nodes did not come up"
            time.sleep(1.0)

    def kill(self, worker: int) -> None:
        """Power off: every process of the node at once, and its disk."""
        self._workers[worker].kill()
        self._workers[worker].wait()

    def close(self) -> None:
        """End all of it."""
        for process in (*self._workers, self._head):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        # The head's own children are not in its process group.
        subprocess.run(["pkill", "-9", "-f", str(self._temporary)], check=False)
        subprocess.run(["rm", "-rf", str(self._temporary)], check=False)
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()
