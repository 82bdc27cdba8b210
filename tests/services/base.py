"""What all servers share: a folder, a free port, a child process, a wait until it answers, an end.

Errors: `ServiceUnavailable` says in one line what this machine lacks and what to install; `ServiceFailed` is a server
that was there and did not come up, with the end of its log.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Self

HOST = "127.0.0.1"
_PREFIX = "ev-twin-services-"
_POLL_S = 0.05
_LOG_LINES = 15
# The kernel's death signal fires when the *thread* that forked ends, so all servers are started by one that stays.
_PARENT = ThreadPoolExecutor(1, thread_name_prefix="services")


class ServiceUnavailable(Exception):
    """A prerequisite is missing: one line, what and what to install."""


class ServiceFailed(Exception):
    """The server is installed, but did not start, answer or stop."""


def cache_folder() -> Path:
    """Where downloads stay between runs, one per user."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "ev-battery-fleet-twin" / "services"


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nothing uses, below the ephemeral range.

    Binding port 0 would give an ephemeral one. While a server is down, such a port can be taken as the local end of any
    outgoing connection, even of a client that keeps trying to reach that very port (TCP connects it to itself): then
    `restart` on the same port fails, once in some thousand tries.
    """
    try:
        ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        ephemeral = 49152
    if ephemeral < 15000:
        candidates = [0] * (count + 50)
    else:
        # Below 20000 are the ports of Ray's workers.
        candidates = random.sample(range(20000 if ephemeral > 25000 else 10000, ephemeral), count + 50)
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        for candidate in candidates:
            probe = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind((HOST, candidate))
                ports.append(probe.getsockname()[1])
            if len(ports) == count:
                return ports
    raise ServiceFailed(f"found no {count} free ports on {HOST}")


@contextlib.contextmanager
def install_once(target: Path, recipe: bytes) -> Iterator[Path | None]:
    """Yield an empty folder to fill, moved to `target` afterwards, or None if `target` was made by the same recipe.

    A lock keeps two test runs from installing at once; a run killed half-way leaves no `target`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    stamp, expected = target / ".recipe", hashlib.sha256(recipe).hexdigest()
    with open(target.parent / f".{target.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == expected:
            yield None
            return
        fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            yield fresh
            (fresh / ".recipe").write_text(expected)
            shutil.rmtree(target, ignore_errors=True)
            fresh.rename(target)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


def run(command: list[str], *, cwd: Path | None = None, run_as: str | None = None) -> None:
    """Run to its end; ServiceFailed with the last lines it said otherwise."""
    done = subprocess.run(
        command,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **_identity(run_as),
    )
    if done.returncode:
        said = "\n".join(done.stdout.strip().splitlines()[-_LOG_LINES:])
        raise ServiceFailed(f"{command[0]} ended with {done.returncode}:\n{said}")


def tied(
    command: list[str], log: IO[bytes], death_signal: str | None = "KILL", **options: Any
) -> subprocess.Popen[bytes]:
    """Start a process that gets a signal when this one ends, however that happens; None: it outlives us."""
    setpriv = shutil.which("setpriv")
    # setpriv and not preexec_fn: Python warns of that, for good reasons, as soon as the process has threads.
    if death_signal and setpriv is not None:
        command = [setpriv, "--pdeathsig", death_signal, "--", *command]
    return _PARENT.submit(
        lambda: subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **options
        )
    ).result()


def npm_install(what: str, recipe: Sequence[Path], folder: Path) -> None:
    """Fetch the packages of package.json and its lock, which are of `recipe`, into a folder, with what else is of it.
    ServiceUnavailable when that is not possible."""
    if shutil.which("npm") is None:
        raise ServiceUnavailable(f"{what} comes through npm; install it with: apt-get install npm")
    for path in recipe:
        shutil.copy(path, folder)
    try:
        run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder)
    except ServiceFailed as error:
        raise ServiceUnavailable(f"{what} could not be fetched through npm: {error}") from error


def apt_install(package: str, purpose: str) -> None:
    """Install a Debian package when we may; ServiceUnavailable otherwise. Does not start the system's own service."""
    wanted = f"{purpose} is not installed; install it with: apt-get install {package}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise ServiceUnavailable(wanted)
    # RUNLEVEL=1 keeps the package's scripts from starting a daemon on the standard port.
    apt = ["env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1", "apt-get", "-q", "-y"]
    install = [*apt, "install", "--no-install-recommends", package]
    cache_folder().mkdir(parents=True, exist_ok=True)
    with open(cache_folder() / ".apt.lock", "w") as lock:  # two test processes may want something at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            run(install)
        except ServiceFailed:
            try:
                run([*apt, "update"])
                run(install)
            except ServiceFailed as error:
                raise ServiceUnavailable(f"{wanted} (tried: {str(error).splitlines()[-1]})") from error


def _identity(run_as: str | None) -> dict[str, Any]:
    """The arguments of Popen that make the child run as another user; none where that is not asked or not possible."""
    if run_as is None or os.geteuid() != 0:
        return {}
    user = pwd.getpwnam(run_as)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _command_line(pid: int) -> str:
    """The command line of a process; "" for one that is dead or a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        pass
    if Path("/proc/self").exists():
        return ""
    return subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True).stdout


class Service(ABC):
    """One server process. `directory` holds its data, configuration and log, and marks its command line as ours.

    `tied`: the server dies with the process that started it, however that ends (the kernel sends the signal).
    """

    name: str
    run_as: str | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal = "KILL"
    ready_timeout_s = 180.0
    stop_timeout_s = 20.0

    def __init__(self, *, tied: bool = True, directory: Path | None = None, port: int | None = None) -> None:
        self.tied = tied
        self._directory = directory
        self._port = port
        self._pid: int | None = None
        self._child: subprocess.Popen[bytes] | None = None

    # What a server says about itself.

    @classmethod
    @abstractmethod
    def install(cls) -> None:
        """Get what is needed to start; nothing to do the second time. ServiceUnavailable when that is not possible."""

    @abstractmethod
    def _prepare(self) -> None:
        """Write configuration; make the data folder unless it is there (a restart keeps its data)."""

    @abstractmethod
    def _command(self) -> list[str]:
        """The server's command line; it must name `directory`."""

    @abstractmethod
    def _check(self) -> None:
        """One round-trip of the real protocol; any exception means not yet."""

    @abstractmethod
    def environment(self) -> dict[str, str]:
        """The variables by which the application finds this server."""

    def _variables(self) -> dict[str, str]:
        """What the server finds in its environment, besides ours."""
        return {}

    def _settle(self) -> None:  # noqa: B027 - most have nothing to do
        """What is to be done once the server answers for the first time."""

    # The life of the process.

    @property
    def directory(self) -> Path:
        if self._directory is None:
            _sweep()
            self._directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-{self.name}-"))
            self._own(self._directory)
        return self._directory

    @property
    def port(self) -> int:
        if self._port is None:
            [self._port] = free_ports(1)
        return self._port

    @property
    def pid(self) -> int:
        if self._pid is None:
            raise ServiceFailed(f"{self.name} was not started")
        return self._pid

    @property
    def log(self) -> Path:
        return self.directory / "log"

    def start(self) -> Self:
        """Start the server; returns at once, see `wait_ready`."""
        if self.running:
            raise ServiceFailed(f"{self.name} is already running, pid {self._pid}")
        self.install()
        self._prepare()
        with open(self.log, "ab") as log:
            child = tied(
                self._command(),
                log,
                self.death_signal if self.tied else None,
                cwd=self.directory,
                env=os.environ | self._variables(),
                **_identity(self.run_as),
            )
        self._child, self._pid = child, child.pid
        return self

    def wait_ready(self, timeout_s: float | None = None) -> Self:
        """Wait until the server answers its own protocol."""
        deadline = time.monotonic() + (self.ready_timeout_s if timeout_s is None else timeout_s)
        self._wait_listening(deadline)
        while True:
            try:
                self._check()
                break
            except (ImportError, Warning):
                raise
            except Exception as error:
                self._give_up_after(deadline, error)
            time.sleep(_POLL_S)
        if not self.running:
            # Something answers on our port, but it is not our server.
            self._give_up_after(deadline, ServiceFailed("its port belongs to another process"))
        self._settle()
        return self

    def _wait_listening(self, deadline: float) -> None:
        while True:
            try:
                socket.create_connection((HOST, self.port), timeout=1.0).close()
                return
            except OSError as error:
                self._give_up_after(deadline, error)
            time.sleep(_POLL_S)

    def _give_up_after(self, deadline: float, error: Exception) -> None:
        if self.running and time.monotonic() < deadline:
            return
        what = "is not ready in time" if self.running else "ended while starting"
        lines = self.log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        raise ServiceFailed("\n".join([f"{self.name} {what} ({error}); end of its log:", *lines])) from error

    @property
    def running(self) -> bool:
        """Whether the process of our pid lives and is really ours (pids are used again)."""
        if self._pid is None:
            return False
        if self._child is not None and self._child.poll() is not None:
            return False
        # Just after the start the line is still our own, until the child has called exec: a child is ours in any case.
        return self._child is not None or str(self.directory) in _command_line(self._pid)

    def stop(self) -> None:
        """End it in order, by force if that takes too long; its data stay until `remove`."""
        if self.running:
            os.kill(self.pid, self.stop_signal)
            if not self._gone_within(self.stop_timeout_s):
                self.kill()
        self._forget()

    def kill(self) -> None:
        """SIGKILL to the process and its children, as a crash would be."""
        if self.running:
            os.killpg(self.pid, signal.SIGKILL)
            if not self._gone_within(10.0):
                raise ServiceFailed(f"{self.name}, pid {self.pid}, survived SIGKILL")
        self._forget()

    def restart(self) -> Self:
        """Start again on the same port with the same data; stops it first if it runs."""
        self.stop()
        return self.start().wait_ready()

    def remove(self) -> None:
        """Stop it and remove its folder."""
        self.stop()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def adopt(self, pid: int) -> Self:
        """Take over a process that an earlier command started (see `running` for what makes it ours)."""
        self._pid = pid
        return self

    def let_go(self) -> Self:
        """Leave the process to itself: from now on we know it by its pid only, and it may outlive us."""
        if self._child is not None:
            self._child.returncode = 0  # or Popen would warn that it still runs
            self._child = None
        return self

    def _gone_within(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while self.running:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def _forget(self) -> None:
        if self._child is not None:
            self._child.wait()
        self._child = self._pid = None

    def _own(self, path: Path) -> None:
        """Give a path to the user the server runs as."""
        if self.run_as is not None and os.geteuid() == 0:
            shutil.chown(path, self.run_as, pwd.getpwnam(self.run_as).pw_gid)


def _sweep() -> None:
    """Remove the folders of test runs that were killed; the servers died with them."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        owner = path.name.removeprefix(_PREFIX).split("-")[0]
        if owner.isdigit() and not _command_line(int(owner)) and not (path / "keep").exists():
            shutil.rmtree(path, ignore_errors=True)
