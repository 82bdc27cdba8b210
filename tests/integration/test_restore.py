"""Backups that are restored: a run's directory in another place, a database from its dump. Then it is counted."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import psycopg2
import pytest

from tests.command import Twin
from tests.services import Postgres
from twin.folders import ROOT

pytestmark = [pytest.mark.services, pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]

_FLEET = ("--vehicles", 20, "--shards", 2, "--no-predict", "--metrics-port", 0, "--quiet", "--checkpoint-every", "1min")


def test_what_was_backed_up_is_restored_and_goes_on(
    twin: Twin, postgres: Postgres, postgres_database: str, tmp_path: Path
) -> None:
    run, copy, dump = tmp_path / "run", tmp_path / "elsewhere" / "run", tmp_path / "dump"
    sink = ("--timescale", postgres_database)
    assert twin("run", *_FLEET, *sink, "--duration", "2min", "--out", run).code == 0
    subprocess.run([postgres._program("pg_dump"), "-Fc", "-f", dump, postgres_database], check=True, cwd=ROOT)
    assert twin("resume", run, *sink, "--duration", "4min", "--metrics-port", 0).code == 0

    shutil.copytree(run, copy)
    shutil.rmtree(run)
    name = postgres_database.rpartition("/")[2]
    postgres.drop_database(name)
    postgres.create_database(name)
    restored: list[str | Path] = [postgres._program("pg_restore"), "--no-owner", "-d", postgres_database, dump]
    subprocess.run(restored, check=True, env=os.environ | {"PGOPTIONS": "-c client_min_messages=warning"})

    lost = twin("ledger", copy, *sink, "--verify")
    assert lost.code == 4, "the backup is older than the run"
    assert "1,200 missing" in lost.err, lost.err
    assert twin("replay", copy, *sink, "--to", "timescale", "--pace", "inf").code == 0
    assert twin("ledger", copy, *sink, "--verify").code == 0
    # And a run that goes on brings what is missing along by itself.
    with psycopg2.connect(postgres_database) as connection, connection.cursor() as cursor:
        cursor.execute("TRUNCATE telemetry, sink_cursors")
    assert twin("resume", copy, *sink, "--duration", "5min", "--metrics-port", 0).code == 0
    counted = twin("ledger", copy, *sink, "--verify")
    assert counted.code == 0, counted.out + counted.err
    assert "3,000" in counted.out
