"""python -m tests.services install | start | stop | status

`start` leaves the servers running for a person or another program: source `.services/env`; one pid file each.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tests.services import (
    ALL,
    Alertmanager,
    Chromium,
    Docker,
    GrafanaSchema,
    Service,
    ServiceFailed,
    ServiceUnavailable,
)

if TYPE_CHECKING:
    from tests.services.hosts import Hosts
    from tests.services.kubernetes import Manifests

_PROJECT = Path(__file__).resolve().parents[2]
# What the application's three sinks need; TimescaleDB is a bonus for whoever has Node.js.
_REQUIRED = ("kafka", "mosquitto", "postgres")


class Desk:
    """The folder `.services`: who runs where, between two commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._state = folder / "state.json"

    def known(self) -> dict[str, Service]:
        """The services of an earlier `start`, running or not."""
        if not self._state.exists():
            return {}
        kinds = {kind.name: kind for kind in ALL}
        services = {}
        for name, entry in json.loads(self._state.read_text()).items():
            service = kinds[name](tied=False, directory=Path(entry["directory"]), port=entry["port"])
            services[name] = service.adopt(entry["pid"])
        return services

    def write(self, services: dict[str, Service]) -> None:
        """Pid files, the environment (it holds a password: only for its owner) and our own state."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state, lines = {}, []
        for path in self.folder.glob("*.pid"):
            path.unlink()
        for name in sorted(services):
            service = services[name]
            state[name] = {"pid": service.pid, "port": service.port, "directory": str(service.directory)}
            lines += [f"export {key}={value}" for key, value in service.environment().items()]
            (self.folder / f"{name}.pid").write_text(f"{service.pid}\n")
        self._write_private(self._state, json.dumps(state, indent=1))
        self._write_private(self.folder / "env", "".join(f"{line}\n" for line in lines))

    @staticmethod
    def _write_private(path: Path, text: str) -> None:
        path.unlink(missing_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)

    def clear(self) -> None:
        for path in [self._state, self.folder / "env", *self.folder.glob("*.pid")]:
            path.unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()


type Kind = type[Service] | type[Chromium] | type[GrafanaSchema] | type[Hosts] | type[Manifests]


def install(_: Desk, __: Sequence[str]) -> int:
    # They need more than the standard library, which is all that the other commands want.
    from tests.services.hosts import Hosts
    from tests.services.kubernetes import Manifests
    from tests.services.pgbouncer import PgBouncer
    from tests.services.replicated import Etcd, Patroni
    from tests.services.schema_registry import SchemaRegistry

    kinds: tuple[Kind, ...] = (
        *ALL, Alertmanager, Chromium, GrafanaSchema, Docker, Etcd, Patroni, PgBouncer, SchemaRegistry, Hosts, Manifests,
    )  # fmt: skip
    return _for_each(kinds, lambda kind: kind.install() or "installed")


def start(desk: Desk, names: Sequence[str]) -> int:
    services = desk.known()
    already = {name for name, service in services.items() if service.running}
    launched: list[str] = []

    def launch(kind: type[Service]) -> str:
        if kind.name in already:
            return _where(services[kind.name], "already running")
        # One that died comes back on its port with its data, so that what was sourced from env stays true.
        service = services.get(kind.name)
        if service is None or not service.directory.exists():
            service = kind(tied=False)
        services.pop(kind.name, None)
        service.start()
        services[kind.name] = service
        (service.directory / "keep").touch()
        launched.append(kind.name)
        return ""

    code = _for_each([kind for kind in ALL if not names or kind.name in names], launch)
    desk.write(services)  # before the wait: whatever happens in it, `stop` finds them
    for name in launched:
        try:
            print(_where(services[name].wait_ready().let_go(), "started"), flush=True)
        except ServiceFailed as error:
            print(f"{name}: {error}", file=sys.stderr)
            services.pop(name).remove()
            code = 1
    desk.write(services)
    print(f"environment: source {_short(desk.folder / 'env')}")
    return code


def stop(desk: Desk, _: Sequence[str]) -> int:
    services = desk.known()
    for name, service in services.items():
        running = service.running
        service.remove()
        print(f"{name}: {'stopped' if running else 'was not running'}", flush=True)
    if not services:
        print("no services were started")
    desk.clear()
    return 0


def status(desk: Desk, _: Sequence[str]) -> int:
    services = desk.known()
    for kind in ALL:
        service = services.get(kind.name)
        if service is None:
            print(f"{kind.name}: not started")
        else:
            print(_where(service, "running") if service.running else f"{kind.name}: died, see {service.log}")
    return 0 if all(name in services and services[name].running for name in _REQUIRED) else 1


def _for_each[K: (type[Service], Kind)](kinds: Sequence[K], action: Callable[[K], str]) -> int:
    """Do it for each of these kinds, one line each; 1 if a required one is not to be had."""
    code = 0
    for kind in kinds:
        try:
            said = action(kind)
            if said:
                print(said if said.startswith(kind.name) else f"{kind.name}: {said}", flush=True)
        except (ServiceUnavailable, ServiceFailed) as error:
            optional = kind.name not in _REQUIRED
            print(f"{kind.name}: {'left out, ' if optional else ''}{error}", file=sys.stderr)
            code = code if optional else 1
    return code


def _where(service: Service, what: str) -> str:
    return f"{service.name}: {what} on 127.0.0.1:{service.port}, pid {service.pid}, log {service.log}"


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.services", description=__doc__.splitlines()[-1])
    parser.add_argument("command", choices=["install", "start", "stop", "status"])
    parser.add_argument("names", nargs="*", choices=[kind.name for kind in ALL], help="start only these")
    parser.add_argument("--folder", type=Path, default=_PROJECT / ".services", help="where env and the pid files go")
    options = parser.parse_args(arguments)
    commands = {"install": install, "start": start, "stop": stop, "status": status}
    return commands[options.command](Desk(options.folder.absolute()), options.names)


if __name__ == "__main__":
    sys.exit(main())
