"""Machines that are reached by ssh: each has a network address, processes, a home and a /tmp of its own.

They share the rest of the file system, and so the interpreter and what is installed. Their network leads to each other
and nowhere else.
"""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.services.base import ServiceFailed, apt_install, run, tied
from tests.services.namespace import ALONE, Namespace, first_inside
from tests.services.proxy import Proxy

_ROOT = Path(__file__).resolve().parents[2]
_HOME = Path(pwd.getpwuid(os.geteuid()).pw_dir)
# The desk's address; a host has the same with its number.
_NETWORK = "10.99.0."
_DESK = f"{_NETWORK}254"
_SSHD = """\
Port 22
HostKey {ssh}/host_key
AuthorizedKeysFile {ssh}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
"""
# What a machine has at its start. $1: its folder, $2: its name, $3: what runs in it until its end.
_INIT = """\
set -euo pipefail
hostname "$2"
{binds}
mount --rbind "$1/home" {home}
mount -t tmpfs -o size=8g tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mkdir -p /run/sshd
mount --rbind "$1/tmp" /tmp
cd {home}
exec $3
"""


class Host:
    """One machine; `folder` holds its disk (`home`, `tmp`) and outlives it."""

    def __init__(self, name: str, address: str, folder: Path, network: Namespace, servers: Iterable[int]) -> None:
        self.name, self.address, self.folder, self.network = name, address, folder, network
        self._servers = [Proxy(port, network.listener("127.0.0.1", port)) for port in servers]
        self._process: subprocess.Popen[bytes] | None = None
        self._runs = ""
        for part in ("tmp", "home/.cache", "home/.ssh"):
            (folder / part).mkdir(parents=True, exist_ok=True)

    @property
    def home(self) -> Path:
        """Its home as it is seen from outside."""
        return self.folder / "home"

    def start(self, runs: str = "") -> None:
        """Switch it on; `runs` is its first process and ends with it, "" for the same as before."""
        from physics.compiled import cache_folder

        self._runs = runs or self._runs
        places = {self.home / "ev-twin" / ".venv": Path(sys.prefix)}
        places[self.home / ".cache" / "ev-battery-twin"] = cache_folder().parent
        for path in {_ROOT, Path(sys.prefix), Path(sys.base_prefix)}:  # where its own folders would hide them
            for hidden, ours in ((_HOME, self.home), (Path("/tmp"), self.folder / "tmp")):
                if path.is_relative_to(hidden):
                    places[ours / path.relative_to(hidden)] = path
        for place in places:
            place.mkdir(parents=True, exist_ok=True)
        binds = "\n".join(shlex.join(["mount", "--bind", str(path), str(place)]) for place, path in places.items())
        # What is installed here is of an older lock file where a machine's set-up wants to change it.
        kept = shlex.quote(str(self.home / "ev-twin" / ".venv"))
        binds += f"\nmount -o remount,bind,ro {kept}"
        script = _INIT.format(home=shlex.quote(str(_HOME)), binds=binds)
        first = ["bash", "-c", script, "init", str(self.folder), self.name, self._runs]
        with open(self.folder / "log", "ab") as log:
            self._process = tied([*self.network.entered, *ALONE, "--uts", *first], log)

    @property
    def _init(self) -> int:
        """The first process of the machine, by the number that it has outside."""
        assert self._process is not None
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self._process.poll() is None:
            first = first_inside(self._process.pid)
            # Until its last command, it has yet to mount.
            if first is not None and b"init" not in Path(f"/proc/{first}/cmdline").read_bytes().split(b"\0"):
                return first
            time.sleep(0.05)
        raise ServiceFailed(f"{self.name} did not start: {(self.folder / 'log').read_text()}")

    def command(self, *words: object) -> list[str]:
        """A command on the machine, in its home."""
        into = ["nsenter", "--target", str(self._init), "--mount", "--uts", "--net", "--pid", f"--wdns={_HOME}"]
        return [*into, "--", *map(str, words)]

    def processes(self) -> list[str]:
        """The command lines of what runs on it, but for its first and our own."""
        listed = subprocess.run(self.command("ps", "-wweo", "pid=,args="), capture_output=True, text=True, check=True)
        lines = [line.strip().split(None, 1) for line in listed.stdout.splitlines()]
        return [line for pid, line in lines if pid != "1" and not line.startswith("ps -ww")]

    def kill(self) -> None:
        """Power off: all its processes at once."""
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def close(self) -> None:
        """Switch it off, and what led from it to the servers."""
        self.kill()
        for proxy in self._servers:
            proxy.close()


def _new_key(path: Path) -> None:
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)])


class Hosts:
    """`count` machines that a key opens, and the desk before them; `servers` are ports of this machine's loopback that
    each has on its own loopback too."""

    name = "hosts"

    def __init__(self, count: int, folder: Path, servers: Iterable[int] = ()) -> None:
        self.install()
        ports = list(servers)
        self._networks: list[Namespace] = []
        self.desk: Host
        self.hosts: list[Host] = []
        try:
            self._build(count, folder, ports)
        except BaseException:
            self.close()
            raise

    @classmethod
    def install(cls) -> None:
        """An ssh server, rsync and namespaces; ServiceUnavailable otherwise."""
        Namespace.install()
        for program, package in (("sshd", "openssh-server"), ("ssh", "openssh-client"), ("rsync", "rsync")):
            if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None:
                apt_install(package, program)

    def _build(self, count: int, folder: Path, servers: list[int]) -> None:
        hub = self._network("desk")
        run(["ip", "-n", hub.name, "link", "add", "hosts", "type", "bridge"])
        run(["ip", "-n", hub.name, "addr", "add", f"{_DESK}/24", "dev", "hosts"])
        run(["ip", "-n", hub.name, "link", "set", "hosts", "up"])
        self.desk = Host("desk", _DESK, folder / "desk", hub, [])
        _new_key(self.desk.home / ".ssh" / "id_ed25519")
        self.desk.start("sleep infinity")
        for number in range(1, count + 1):
            network = self._network(f"host{number}")
            cable = ["type", "veth", "peer", "name", "eth0", "netns", network.name]
            run(["ip", "-n", hub.name, "link", "add", f"to{number}", *cable])
            run(["ip", "-n", hub.name, "link", "set", f"to{number}", "master", "hosts", "up"])
            run(["ip", "-n", network.name, "addr", "add", f"{_NETWORK}{number}/24", "dev", "eth0"])
            run(["ip", "-n", network.name, "link", "set", "eth0", "up"])
            # Machines have one, and Ray takes the address that it starts from. The desk passes nothing on.
            run(["ip", "-n", network.name, "route", "add", "default", "via", _DESK])
            host = Host(f"host{number}", f"{_NETWORK}{number}", folder / f"host{number}", network, servers)
            self.hosts.append(host)
            shutil.copy(self.desk.home / ".ssh" / "id_ed25519.pub", host.home / ".ssh" / "authorized_keys")
            _new_key(host.home / ".ssh" / "host_key")
            (host.home / ".ssh" / "sshd_config").write_text(_SSHD.format(ssh=_HOME / ".ssh"))
            host.start("/usr/sbin/sshd -D -e -f .ssh/sshd_config")

    def _network(self, name: str) -> Namespace:
        network = Namespace(name)
        self._networks.append(network)
        return network

    def close(self) -> None:
        """Switch everything off."""
        for host in [*self.hosts, *([self.desk] if hasattr(self, "desk") else [])]:
            host.close()
        for network in self._networks:
            network.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()
