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
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.services.base import free_ports
from tests.services.namespace import ALONE, first_inside
from tests.support import listens, wait_until

_RAY = [sys.executable, "-m", "ray.scripts.scripts"]
_WATCH = """
import sys, time, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
while True:
    print(sum(node["Alive"] for node in ray.nodes()), flush=True)
    time.sleep(0.1)
"""


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
        host, _, port = self.address.partition(":")
        wait_until(lambda: listens(host, int(port)), lambda: "the head did not come up")
        with self._watched() as alive:
            self._start_workers(count, run_dir, alive)

    def _start_workers(self, count: int, run_dir: Path, alive: Callable[[], int]) -> None:
        wait_until(lambda: alive() == 1, lambda: "the head did not come up")
        worker = shlex.join([*_RAY, "start", "--address", self.address, "--num-cpus", "3", "--block"])
        script = f"mount -t tmpfs -o size=1g tmpfs {shlex.quote(str(run_dir))} && exec {worker}"
        self._alone = [*ALONE, "bash", "-c", script]
        for number in range(count):
            # One after the other: two that start at once on one address choose the same ports.
            self._workers.append(self._start(self._alone))
            wait_until(lambda: alive() == 2 + number, lambda: f"{2 + number} nodes did not come up")  # noqa: B023

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env=self.environment,
            start_new_session=True,
        )

    @property
    def head(self) -> int:
        """The head's process; all others of the head are below it."""
        return self._head.pid

    @property
    def workers(self) -> list[int]:
        """Of each worker node the process that all its others are below."""
        return [worker.pid for worker in self._workers]

    @contextlib.contextmanager
    def _watched(self) -> Iterator[Callable[[], int]]:
        """How many nodes are alive, by a process that looks all the time: it has to bear the cluster's token."""
        process = subprocess.Popen(
            [sys.executable, "-c", _WATCH, self.address],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=self.environment,
            text=True,
        )
        said = [0]

        def listen() -> None:
            assert process.stdout is not None
            said.extend(int(line) for line in process.stdout if line.strip().isdecimal())

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        try:
            yield lambda: said[-1]
        finally:
            process.kill()
            process.wait()
            listener.join()
            assert process.stdout is not None
            process.stdout.close()

    def kill(self, worker: int) -> None:
        """Power off: every process of the node at once, and its disk."""
        self._workers[worker].kill()
        self._workers[worker].wait()

    def renew(self, worker: int) -> None:
        """Another node, with an empty disk, in the place of one that was killed."""
        self._workers[worker] = self._start(self._alone)

    def on(self, worker: int, *words: str) -> subprocess.CompletedProcess[str]:
        """A command that sees the node's disk and processes."""
        first = first_inside(self._workers[worker].pid)
        into = ["nsenter", "--target", f"{first}", "--mount", "--pid", "--"]
        return subprocess.run([*into, *words], capture_output=True, text=True)

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
