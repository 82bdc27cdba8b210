"""PostgreSQL from its Debian package, with password authentication only (a wrong password is a real refusal)."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from tests.services.base import HOST, Service, ServiceUnavailable, apt_install, run

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

_PACKAGES = Path("/usr/lib/postgresql")
_SETTINGS = {
    "listen_addresses": HOST,
    "max_connections": "100",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
    "timezone": "UTC",
}


def _binaries() -> Path | None:
    """The folder of initdb and postgres, of the newest version there is."""
    versions = [path for path in _PACKAGES.glob("*/bin") if (path / "initdb").exists() and (path / "postgres").exists()]
    if versions:
        return max(versions, key=lambda path: float(path.parent.name))
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


class Postgres(Service):
    """User `twin` (no superuser; may create databases), a generated password, database `twin_data`."""

    name = "postgres"
    user = "twin"
    database = "twin_data"
    stop_signal = signal.SIGINT  # "fast": SIGTERM would wait for the clients to leave
    death_signal = "QUIT"

    def __init__(self, *, tied: bool = True, directory: Path | None = None, port: int | None = None) -> None:
        super().__init__(tied=tied, directory=directory, port=port)
        self.run_as = "postgres" if os.geteuid() == 0 else None  # the server refuses to run as root

    @property
    def password(self) -> str:
        return (self.directory / "password").read_text()

    def url(self, database: str | None = None) -> str:
        """postgresql://twin:...@127.0.0.1:port/database"""
        return f"postgresql://{self.user}:{quote(self.password)}@{HOST}:{self.port}/{database or self.database}"

    def environment(self) -> dict[str, str]:
        return {
            "PG_HOST": HOST,
            "PG_PORT": str(self.port),
            "PG_USER": self.user,
            "PG_PASSWORD": self.password,
            "PG_DATABASE": self.database,
        }

    @classmethod
    def install(cls) -> None:
        if _binaries() is None:
            apt_install("postgresql", "PostgreSQL")
        if os.geteuid() == 0:
            try:
                pwd.getpwnam("postgres")
            except KeyError as error:
                raise ServiceUnavailable("PostgreSQL refuses to run as root and there is no user postgres") from error

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def _program(self, name: str) -> str:
        folder = _binaries()
        assert folder is not None
        return str(folder / name)

    def _prepare(self) -> None:
        if (self._data / "PG_VERSION").exists():
            return
        secret = self.directory / "password"
        secret.touch(mode=0o600)
        secret.write_text(secrets.token_urlsafe(18))
        self._own(secret)
        initdb = [self._program("initdb"), "--no-sync", "--username=postgres", "--auth=scram-sha-256"]
        locale = ["--encoding=UTF8", "--locale=C.UTF-8"]
        run([*initdb, *locale, f"--pwfile={secret}", f"--pgdata={self._data}"], cwd=self.directory, run_as=self.run_as)

    def _command(self) -> list[str]:
        settings = _SETTINGS | {"port": str(self.port), "unix_socket_directories": str(self.directory)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [self._program("postgres"), "-D", str(self._data), *options]

    def _admin(self) -> Connection:
        import psycopg2

        connection = psycopg2.connect(
            host=HOST, port=self.port, user="postgres", password=self.password, dbname="postgres", connect_timeout=3
        )
        connection.autocommit = True
        return connection

    def _check(self) -> None:
        self._admin().close()

    def _settle(self) -> None:
        with closing(self._admin()) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (self.user,))
            if cursor.fetchone() is None:
                cursor.execute(f"CREATE ROLE {self.user} LOGIN CREATEDB PASSWORD %s", (self.password,))
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (self.database,))
            if cursor.fetchone() is None:
                cursor.execute(f"CREATE DATABASE {self.database} OWNER {self.user}")

    def create_database(self, name: str) -> str:
        """An empty database of `twin`; its URL."""
        with closing(self._admin()) as connection, connection.cursor() as cursor:
            cursor.execute(f'CREATE DATABASE "{name}" OWNER {self.user}')
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Remove it, even with clients still connected."""
        with closing(self._admin()) as connection, connection.cursor() as cursor:
            cursor.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
