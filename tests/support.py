"""Small makers that several tests use, and the one way to wait."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import numpy as np
import psycopg2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.delivery.sinks import Receipt, SinkOptions
from datasets.schema import FIELDS, SCHEMAS, Stream, vehicle_id
from physics import MODES

# The limit of every wait: longer than anything takes on a slow machine that does other things too, so only a hang
# reaches it; shorter than pytest's own limit, so that the wait itself says what did not come.
HANG_S = 240.0


def wait_until(
    holds: Callable[[], object], otherwise: Callable[[], object] = lambda: "it did not come", look_s: float = 0.02
) -> None:
    """Return as soon as it holds, looking every `look_s`; `otherwise` says what is the case where it never does."""
    deadline = time.monotonic() + HANG_S
    while not holds():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(look_s)


def listens(host: str, port: int) -> bool:
    """Whether somebody takes connections there."""
    with contextlib.suppress(OSError):
        socket.create_connection((host, port), timeout=1.0).close()
        return True
    return False


def real_data(*files: str) -> Path:
    """The folder that TWIN_REAL_DATA names, with these files of real measurements; the test is skipped without them."""
    folder = os.environ.get("TWIN_REAL_DATA")
    if folder is None:
        pytest.skip("TWIN_REAL_DATA names no folder of real measurements (docs/real-data.md)")
    for name in files:
        if not (Path(folder) / name).is_file():
            pytest.skip(f"there is no {name} in {folder} (docs/real-data.md)")
    return Path(folder)


def make_batch(
    vehicles: int, seqs: range, *, stream: Stream = "telemetry", run_id: str = "run-test", first_vehicle: int = 0
) -> pa.RecordBatch:
    """Plausible rows in the log's order (time, then vehicle); every value a function of (vehicle, seq)."""
    vehicle = np.tile(np.arange(first_vehicle, first_vehicle + vehicles), len(seqs))
    seq = np.repeat(np.arange(seqs.start, seqs.stop, dtype=np.int64), vehicles)
    columns = {
        "run_id": pa.array([run_id] * len(seq)).dictionary_encode(),
        "vehicle_id": pa.array([vehicle_id(int(v)) for v in vehicle]).dictionary_encode(),
        "seq": pa.array(seq),
        "ts": pa.array(1_780_000_000_000_000 + (seq + 1) * 2_000_000, pa.timestamp("us", tz="UTC")),
        "mode": pa.array([MODES[v % 3] for v in vehicle]).dictionary_encode(),
        "model_version": pa.array(["1.0.0"] * len(seq)).dictionary_encode(),
        "flags": pa.array(np.zeros(len(seq), np.int32)),
        "diagnostics": pa.array(np.zeros(len(seq), np.int32)),
    }
    for position, field in enumerate(FIELDS[stream]):
        if field.name not in columns:
            values = np.round(np.sin(vehicle + 0.001 * seq + position) * 10 + 0.1234567, field.decimals or 0)
            columns[field.name] = pa.array(values.astype(field.type.to_pandas_dtype()))
    schema = SCHEMAS[stream]
    return pa.record_batch([columns[name].cast(schema.field(name).type) for name in schema.names], schema=schema)


def records(run: Path, stream: Stream = "telemetry") -> pa.Table:
    """All sealed rows of a run, plain strings, in one order that does not depend on the sharding."""
    table = pq.read_table(run / stream, partitioning=None)
    columns = [
        column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        for column in table.columns
    ]
    plain = pa.table(columns, names=table.column_names)
    return plain.sort_by([("vehicle_id", "ascending"), ("seq", "ascending")])


class OwnSink:
    """A target that is its own sink and takes everything; a test says what it does instead."""

    name = "kafka"
    url = peer = "nowhere:1"
    batch_rows = 5000
    keeps_position = False
    rewind_s = 0.0

    @classmethod
    def parse(cls, address: str, options: SinkOptions) -> Self:
        return cls()

    def for_nodes(self, nodes: int) -> Self:
        return self

    def sink(self, log_id: str, stream: Stream, part: int = 0) -> Self:
        return self

    def check(self) -> str:
        return "a sink of a test"

    def open(self) -> None: ...

    def position(self, shard: int) -> int | None:
        return None

    def deliver(self, shard: int, batch: pa.RecordBatch, position: int) -> Receipt:
        return Receipt()

    def heard(self) -> float:
        return time.monotonic()

    def close(self) -> None: ...


def family(parents: dict[int, int], root: int) -> set[int]:
    """`root` and all that descends from it; `parents`: the parent of each process."""
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def records_in(database: str) -> int:
    """How much telemetry is stored there by now."""
    with contextlib.closing(psycopg2.connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('telemetry') IS NOT NULL")
        [(there,)] = cursor.fetchall()
        if not there:
            return 0
        cursor.execute("SELECT count(*) FROM telemetry")
        [(records,)] = cursor.fetchall()
        return int(records)
