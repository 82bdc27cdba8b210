"""A network of its own: what runs in it reaches nothing but itself and what a test lets in."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.services.base import ServiceUnavailable, apt_install, run

ALONE: Final = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
"""The words before a command that is to have mounts and processes of its own, which end with it and with us."""
_PREFIX = "ev-twin-"


def _sweep() -> None:
    """Remove what test runs left that were killed."""
    for path in Path("/run/netns").glob(f"{_PREFIX}*-*"):
        owner = path.name.removeprefix(_PREFIX).split("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            subprocess.run(["ip", "netns", "del", path.name], capture_output=True)


def first_inside(alone: int) -> int | None:
    """The first process of those that `ALONE`, as process `alone`, has begun; by its number outside. None before."""
    children = Path(f"/proc/{alone}/task/{alone}/children").read_text().split()
    return int(children[0]) if children else None


def remove_control_group(group: Path) -> None:
    """Remove a control group and those in it. One whose processes were just killed is busy for a moment."""
    deadline = time.monotonic() + 10.0
    for folder, _, _ in os.walk(group, topdown=False):
        while True:
            try:
                os.rmdir(folder)
                break
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise
            time.sleep(0.05)


class Namespace:
    """A network namespace with loopback and no route out; `close` removes it.

    `entered` goes before a command that is to run in it; `listener` is a socket in it for a thread of ours, so a server
    of the test's own network can be had at the same address inside: `Proxy(port, listener)`.
    """

    def __init__(self, label: str) -> None:
        self.install()
        _sweep()
        self.name = f"{_PREFIX}{os.getpid()}-{label}"
        run(["ip", "netns", "add", self.name])
        run(["ip", "-n", self.name, "link", "set", "lo", "up"])

    @classmethod
    def install(cls) -> None:
        """`ip` and `nsenter`, and the right to use them; ServiceUnavailable otherwise."""
        if os.geteuid() != 0:
            raise ServiceUnavailable("network namespaces need root")
        if shutil.which("ip") is None:
            apt_install("iproute2", "ip")
        allowed = subprocess.run([*ALONE, "--net", "true"], capture_output=True)
        if allowed.returncode:
            raise ServiceUnavailable(f"no right to unshare namespaces: {allowed.stderr.decode().strip()}")

    @property
    def _path(self) -> str:
        return f"/run/netns/{self.name}"

    @property
    def entered(self) -> list[str]:
        """The words before a command. Not `ip netns exec`, which hides the machine's control groups."""
        return ["nsenter", f"--net={self._path}", "--"]

    def listener(self, host: str, port: int) -> socket.socket:
        """A listening socket in the namespace. A socket stays where it was made: only its thread enters."""
        made: list[socket.socket | OSError] = []

        def make() -> None:
            namespace = os.open(self._path, os.O_RDONLY)
            try:
                os.setns(namespace, os.CLONE_NEWNET)
                made.append(socket.create_server((host, port)))
            except OSError as error:
                made.append(error)
            finally:
                os.close(namespace)

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if isinstance(made[0], OSError):
            raise made[0]
        return made[0]

    def close(self) -> None:
        """Remove it; processes in it go on with what they have."""
        run(["ip", "netns", "del", self.name])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()
