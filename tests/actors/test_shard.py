"""A shard without Ray: what makes it wait, where it begins again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.fleet.plan import PopulationPlan, ShardPlan
from actors.fleet.restart_points import RestartPoints
from actors.fleet.shard import Shard
from datasets.log import LogReader, LogWriter, extent, log_directory
from datasets.log.cursor import Cursor, CursorFile
from datasets.log.retention import Retention
from datasets.schema import SCHEMAS

VEHICLES = 20


def plan(run: Path, **changes: Any) -> ShardPlan:
    values: dict[str, Any] = {
        "run_dir": run, "run_id": "run-test", "shard": 0, "first_vehicle": 0, "vehicles": VEHICLES,
        "population": PopulationPlan(1, (("chen2020", 1.0),), None, 10.0, 0.02), "start_s": 1_780_300_800,
        "step_s": 1.0, "telemetry_ticks": 2, "checkpoint_ticks": 60,
    }  # fmt: skip
    return ShardPlan(**(values | changes))


def rows(run: Path, first: int = 0) -> pa.Table:
    batches = []
    with LogReader(log_directory(run, "telemetry", 0), first) as reader:
        while (frame := reader.read(1 << 20)) is not None:
            batches.append(frame.batch)
    return pa.Table.from_batches(batches).unify_dictionaries().combine_chunks()


def test_a_log_at_its_limit_waits_for_the_slowest_sink_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.fleet.shard._RETAIN_EVERY_S", 0.0)
    retention = Retention((("telemetry", ("kafka",)), ("predictions", ("kafka",))), max_bytes=200_000)
    shard = Shard(plan(tmp_path, retention=retention))
    tick = 0
    while not (status := shard.advance(tick := tick + 60)).waiting_for:
        assert tick < 60_000
    assert "a sink to take what fills the log up to its limit" in status.waiting_for
    waiting_at = status.tick
    assert shard.advance(tick + 60).tick == waiting_at, "it makes nothing while it waits"
    assert extent(log_directory(tmp_path, "telemetry", 0)).first == 0, "and drops nothing that is needed"
    CursorFile(tmp_path, "kafka", "telemetry", 0).save(Cursor(status.records))
    status = shard.advance(tick + 60)
    assert (status.waiting_for, status.tick) == ("", tick + 60)
    shard.close()
    kept = extent(log_directory(tmp_path, "telemetry", 0))
    assert kept.first > 0
    assert kept.end == status.records
    again = Shard(plan(tmp_path, retention=retention))
    assert again.status().records == kept.end, "a log without its beginning goes on like any other"
    again.close()


def test_always_means_that_each_block_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync

    def counted(descriptor: int) -> None:
        synced.append(descriptor)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", counted)
    counts = {}
    for policy in ("checkpoint", "always"):
        shard = Shard(plan(tmp_path / policy, fsync=policy, checkpoint_ticks=1000))
        synced.clear()
        for tick in range(2, 22, 2):
            shard.advance(tick)
        counts[policy] = len(synced)
        shard.close()
    assert counts["checkpoint"] == 0
    assert counts["always"] >= 10


def test_a_shard_whose_node_is_lost_makes_the_same_records_from_its_restart_point(tmp_path: Path) -> None:
    """Elsewhere, with nothing but the copy of a checkpoint: the same rows at the same positions."""
    first = Shard(plan(tmp_path / "lost"))
    for tick in range(60, 301, 60):
        first.advance(tick)
    tick, content = first.checkpoint()
    assert tick == 300
    first.advance(420)
    first.close()
    second = Shard(plan(tmp_path / "elsewhere", restart=content))
    assert second.status().tick == 300
    assert second.status().records == VEHICLES * 150
    second.advance(420)
    second.close()
    begin = VEHICLES * 150
    assert rows(tmp_path / "elsewhere", begin).equals(rows(tmp_path / "lost", begin))


def test_a_checkpoint_becomes_the_restart_point_only_when_it_is_confirmed(tmp_path: Path) -> None:
    points = RestartPoints(tmp_path)
    assert (points.tick(0), points.load(0)) == (0, b"")
    assert points.wants(0, 60)
    points.offer(0, 60, b"sixty")
    assert not points.wants(0, 120), "one after another: else a slow sink would never confirm one"
    assert (points.tick(0), points.load(0)) == (0, b"")
    points.confirm(0)
    assert (points.tick(0), points.load(0)) == (60, b"sixty")
    points.offer(0, 120, b"more")
    shutil.copytree(tmp_path, tmp_path / "died")
    died = RestartPoints(tmp_path / "died")
    assert (died.load(0), died.pending()) == (b"sixty", {}), "what waited when the driver died was not confirmed"
    points.confirm(0)
    assert RestartPoints(tmp_path).load(0) == b"more"
    assert len(list((tmp_path / "restart").iterdir())) == 1


def test_what_a_dead_driver_left_beside_the_restart_points_goes(tmp_path: Path) -> None:
    points = RestartPoints(tmp_path)
    for tick in (60, 120):
        points.offer(0, tick, b"at %d" % tick)
        points.confirm(0)
    points.offer(0, 180, b"not confirmed")
    (tmp_path / "restart" / "shard-0000.240.pending.tmp").write_bytes(b"half")
    (tmp_path / "restart" / "shard-0000.60.npz").write_bytes(b"at 60")  # as if killed before it was removed
    assert RestartPoints(tmp_path).load(0) == b"at 120"
    assert [path.name for path in (tmp_path / "restart").iterdir()] == ["shard-0000.120.npz"]


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    shard = Shard(plan(tmp_path / "run"))
    shard.advance(120)
    shard.close()
    path = tmp_path / "run" / "checkpoints" / "shard-0000.npz"
    path.write_bytes(path.read_bytes()[:200])
    again = Shard(plan(tmp_path / "run"))
    again.advance(180)
    again.close()
    whole = Shard(plan(tmp_path / "whole"))
    whole.advance(180)
    whole.close()
    assert rows(tmp_path / "run").equals(rows(tmp_path / "whole"))


def test_a_record_takes_no_more_room_in_a_large_shard(tmp_path: Path) -> None:
    """Blocks are short there: what a vehicle reported before is as many rows back as there are vehicles."""
    shard = Shard(plan(tmp_path, vehicles=30_000))
    for tick in (10, 20):
        shard.advance(tick)
    shard.close()
    segments = list(log_directory(tmp_path, "telemetry", 0).glob("*.parquet"))
    assert sum(path.stat().st_size for path in segments) / shard.status().records <= 42


def test_paced_blocks_are_sealed_into_row_groups_of_several_records(tmp_path: Path) -> None:
    shard = Shard(plan(tmp_path, vehicles=30_000))
    for tick in range(2, 18, 2):
        shard.advance(tick)
    shard.close()
    [segment] = log_directory(tmp_path, "telemetry", 0).glob("*.parquet")
    assert segment.stat().st_size / shard.status().records <= 42


@pytest.mark.parametrize("vehicles", [40, 70_000])
def test_a_sealed_segment_is_plain_parquet(tmp_path: Path, vehicles: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the encoding: other readers find the values that were appended, and the types of the schema."""
    monkeypatch.setattr("datasets.log.writer.DIRECT_ROWS", 1)
    appended: list[pa.RecordBatch] = []
    append = LogWriter.append

    def noted(self: LogWriter, batch: pa.RecordBatch, mark: int, due_ns: int | None = None) -> None:
        appended.append(batch)
        append(self, batch, mark, due_ns)

    monkeypatch.setattr(LogWriter, "append", noted)
    shard = Shard(plan(tmp_path, vehicles=vehicles))
    shard.advance(4)
    shard.close()
    [path] = log_directory(tmp_path, "telemetry", 0).glob("*.parquet")
    table = pq.read_table(path)
    assert table.schema.equals(SCHEMAS["telemetry"], check_metadata=False)
    assert table.combine_chunks().to_batches()[0].equals(appended[0])
    column = pq.ParquetFile(path).metadata.row_group(0).column
    encodings = {encoding for n in range(len(table.schema)) for encoding in column(n).encodings}
    assert encodings <= {"PLAIN", "RLE", "RLE_DICTIONARY", "BYTE_STREAM_SPLIT"}, "what every reader knows"
    for column_name in ("battery_voltage", "soh", "driving_speed", "distance_traveled"):
        found = duckdb.execute(f"SELECT {column_name} FROM '{path}'").fetchnumpy()[column_name]
        assert np.array_equal(found, table.column(column_name).to_numpy())
