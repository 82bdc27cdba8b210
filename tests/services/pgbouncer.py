"""PgBouncer before a PostgreSQL, with a pool for each transaction: any statement outside one meets any connection."""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from urllib.parse import quote

import psycopg2

from tests.services.base import HOST, Service, apt_install
from tests.services.postgres import Postgres


class PgBouncer(Service):
    """`url` is what clients want. `ignores`: startup parameters that it takes and forgets; others it refuses."""

    name = "pgbouncer"

    def __init__(self, postgres: Postgres, database: str, ignores: str = "") -> None:
        super().__init__()
        self._postgres, self._database, self._ignores = postgres, database, ignores
        self.run_as = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root

    @property
    def url(self) -> str:
        user, password = self._postgres.user, quote(self._postgres.password)
        return f"postgresql://{user}:{password}@{HOST}:{self.port}/{self._database}"

    def environment(self) -> dict[str, str]:
        return {}

    @classmethod
    def install(cls) -> None:
        if shutil.which("pgbouncer") is None:
            apt_install("pgbouncer", "PgBouncer")

    def _prepare(self) -> None:
        users, config = self.directory / "users", self.directory / "pgbouncer.ini"
        users.touch(mode=0o600)
        users.write_text(f'"{self._postgres.user}" "{self._postgres.password}"\n')
        config.write_text(
            f"[databases]\n{self._database} = host={HOST} port={self._postgres.port}\n[pgbouncer]\n"
            f"listen_addr = {HOST}\nlisten_port = {self.port}\nunix_socket_dir =\nauth_type = scram-sha-256\n"
            f"auth_file = {users}\npool_mode = transaction\ndefault_pool_size = 8\nserver_round_robin = 1\n"
            f"ignore_startup_parameters = {self._ignores}\n"
        )
        for file in (users, config):
            self._own(file)

    def _command(self) -> list[str]:
        return ["pgbouncer", str(self.directory / "pgbouncer.ini")]

    def _check(self) -> None:
        with closing(psycopg2.connect(self.url, connect_timeout=3)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")
