"""A container engine of the tests' own, from Debian's packages, and images that stand in under the real names.

dockerd runs in namespaces of its own for processes, mounts and the network, without a route out. What it has loaded
and built stays in the cache folder, so only the first start is slow.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Final

from tests.services.base import (
    Service,
    ServiceFailed,
    ServiceUnavailable,
    apt_install,
    cache_folder,
    install_once,
    run,
)
from tests.services.kafka import VERSION, Kafka
from tests.services.namespace import ALONE, Namespace, remove_control_group

_HERE: Final = Path(__file__).parent
_ROOT: Final = _HERE.parents[2]
_SLIM: Final = (
    "ca-certificates,libbz2-1.0,libexpat1,libffi8,liblzma5,libncursesw6,libreadline8,libsqlite3-0,libssl3,libuuid1,"
    "netbase,tzdata,wget,zlib1g"
)
_SERVERS: Final = "ca-certificates,mosquitto,mosquitto-clients,openjdk-17-jre-headless,postgresql-15,wget"
_PLUGINS: Final = "docker-compose,docker-buildx,prometheus"
# As in Debian's slim images.
_LEAN: Final = [f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("doc", "info", "locale", "man")]
STAND_INS: Final = {
    "python": "python:3.12.12-slim-bookworm",
    "mosquitto": "eclipse-mosquitto:2.0.21",
    "prometheus": "prom/prometheus:v2.53.3",
    "timescaledb": "timescale/timescaledb:2.23.0-pg15",
    "redpanda": "docker.redpanda.com/redpandadata/redpanda:v24.2.4",
    "minio": "minio/minio:RELEASE.2025-04-22T22-12-26Z",
}
"""By the stage of stand-ins.Dockerfile."""


def wheels() -> Path:
    """The folder of what scripts/wheels.sh fetches."""
    target = cache_folder() / "wheels"
    dev = (_ROOT / "requirements-dev.lock").read_text().splitlines()
    recipe = (_ROOT / "requirements.lock").read_text() + next(line for line in dev if line.startswith("uv=="))
    with install_once(target, recipe.encode()) as folder:
        if folder is not None:
            try:
                run([str(_ROOT / "scripts" / "wheels.sh"), str(folder), sys.executable])
            except ServiceFailed as error:
                raise ServiceUnavailable(f"the wheels of requirements.lock could not be fetched: {error}") from error
    return target


class Docker(Service):
    """`docker(...)` and `compose(...)` are its command lines; `inside` goes before a command that is to see the ports
    that containers publish."""

    name = "docker"
    _filled = cache_folder() / "docker"

    def __init__(self, folder: Path = _filled) -> None:
        super().__init__()
        self._folder = folder
        self._lock: IO[str] | None = None
        self._namespace: Namespace | None = None

    def environment(self) -> dict[str, str]:
        return {
            "DOCKER_HOST": f"unix://{self.directory}/docker.sock",
            "DOCKER_CONFIG": str(self._folder / "config"),
            "DOCKER_BUILDKIT": "1",
        }

    @property
    def inside(self) -> list[str]:
        assert self._namespace is not None
        return self._namespace.entered

    @classmethod
    def install(cls) -> None:
        Namespace.install()
        for package, program in (("docker.io", "dockerd"), ("iptables", "iptables"), ("mmdebstrap", "mmdebstrap")):
            if shutil.which(program) is None:
                apt_install(package, f"the containers' {program}")
        if sys.version_info[:2] != (3, 12):
            raise ServiceUnavailable("the stand-in for Python's image is made of this Python, which has to be 3.12")
        Kafka.install()
        wheels()
        with install_once(cls._filled, cls._recipe()) as folder:
            if folder is not None:
                _fill(folder)

    @staticmethod
    def _recipe() -> bytes:
        parts = [path for path in sorted(_HERE.iterdir()) if path.is_file() and path.suffix != ".py"]
        return repr([STAND_INS, _SLIM, _SERVERS, _PLUGINS, _LEAN, VERSION, sys.version]).encode() + b"".join(
            path.read_bytes() for path in parts
        )

    def _prepare(self) -> None:
        self._lock = open(self._folder / ".in-use", "w")  # noqa: SIM115 - held while it runs
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._namespace = Namespace("docker")
        shares = Path("/sys/fs/cgroup/cpu") / self.directory.name / "cpu.shares"
        if shares.parent.parent.is_dir():
            # A group of control has by itself no more of a busy machine than one process outside has.
            shares.parent.mkdir()
            shares.write_text(str(20 * 1024))

    def _command(self) -> list[str]:
        # The processes of containers end with the first one of their namespace, dockerd, however that ends.
        return [
            *self.inside, *ALONE, "dockerd", f"--data-root={self._folder / 'data'}",
            f"--exec-root={self.directory / 'exec'}", f"--pidfile={self.directory / 'pid'}",
            f"--host=unix://{self.directory}/docker.sock", f"--cgroup-parent=/{self.directory.name}",
            "--bip=10.231.0.1/24", "--default-address-pool=base=10.232.0.0/16,size=24",
        ]  # fmt: skip

    def _wait_listening(self, deadline: float) -> None:
        """It listens on a socket of its folder."""

    def _check(self) -> None:
        self.docker("version")

    def stop(self) -> None:
        """End the engine, and all containers with it."""
        if self.running:
            os.killpg(self.pid, signal.SIGTERM)
            if not self._gone_within(self.stop_timeout_s):
                self.kill()
        self._forget()
        if self._namespace is not None:
            self._namespace.close()
            self._namespace = None
        for group in Path("/sys/fs/cgroup").glob(f"*/{self.directory.name}"):
            remove_control_group(group)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def docker(self, *arguments: object, stdin: IO[bytes] | None = None, env: Mapping[str, str] = os.environ) -> str:
        """What a command says. ServiceFailed with its complaint where it fails."""
        command = ["docker", *map(str, arguments)]
        done = subprocess.run(command, stdin=stdin, capture_output=True, text=True, env={**env, **self.environment()})
        if done.returncode:
            raise ServiceFailed(f"docker {arguments[0]} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout


class _Empty(Docker):
    """An engine without images, to be filled."""

    @classmethod
    def install(cls) -> None:
        pass


def _fill(folder: Path) -> None:
    """The plugins of docker's command line, and all images that stand in."""
    context = folder / "context"
    context.mkdir()
    engine = _Empty(folder)
    try:
        engine.start().wait_ready()
        work: list[Callable[[], None]] = [
            lambda: _debian(engine, "ev-twin-slim", _SLIM, *_LEAN),
            lambda: _debian(engine, "ev-twin-debian", _SERVERS),
            lambda: _plugins(folder, context),
            lambda: _files(context),
        ]
        with ThreadPoolExecutor(len(work)) as threads:
            for done in [threads.submit(part) for part in work]:
                done.result()
        for stage, name in STAND_INS.items():
            engine.docker("build", "-q", "-f", context / "stand-ins.Dockerfile", "--target", stage, "-t", name, context)
    finally:
        engine.remove()
        shutil.rmtree(context)


def _debian(engine: Docker, name: str, packages: str, *options: str) -> None:
    """An image of Debian 12 with these packages."""
    made = subprocess.Popen(
        ["mmdebstrap", "--quiet", "--variant=minbase", *options, f"--include={packages}", "bookworm", "-"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert made.stderr is not None
    with made:
        engine.docker("import", "-", f"{name}:latest", stdin=made.stdout)
        said = made.stderr.read().decode()
    if made.returncode:
        raise ServiceUnavailable(f"mmdebstrap could not make Debian 12: {said.strip().splitlines()[-1]}")


def _plugins(folder: Path, context: Path) -> None:
    """compose and buildx, and the newer Prometheus, of Debian 13: programs that need nothing else of it."""
    debian = context / "debian"
    command = ["mmdebstrap", "--quiet", "--variant=extract", f"--include={_PLUGINS}", "trixie", str(debian)]
    try:
        run(command)
    except ServiceFailed as error:
        raise ServiceUnavailable(f"mmdebstrap could not unpack Debian 13: {error}") from error
    shutil.copytree(debian / "usr/libexec/docker/cli-plugins", folder / "config" / "cli-plugins")
    shutil.copy(debian / "usr/bin/prometheus", context)
    shutil.rmtree(debian)


def _files(context: Path) -> None:
    """This folder's, Kafka's, rclone, and this interpreter."""
    shutil.copytree(_HERE, context, dirs_exist_ok=True)
    shutil.copytree(Kafka._jars, context / "kafka")
    shutil.copy(_HERE.parent / "kafka" / "log4j2.properties", context)
    shutil.copy(shutil.which("rclone", path=str(Path(sys.executable).parent)) or "rclone", context)
    prefix, python = Path(sys.base_prefix), context / "python"
    (python / "bin").mkdir(parents=True)
    shutil.copy(prefix / "bin" / "python3.12", python / "bin")
    left_out = shutil.ignore_patterns("test", "site-packages", "__pycache__", "config-*", "idlelib")
    shutil.copytree(prefix / "lib" / "python3.12", python / "lib" / "python3.12", ignore=left_out)
    for library in (prefix / "lib").glob("libpython3*"):
        shutil.copy(library, python / "lib", follow_symlinks=False)
