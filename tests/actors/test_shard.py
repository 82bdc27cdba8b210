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
from datasets.log import LogDamaged, LogFull, LogReader, LogWriter, extent, log_directory
from datasets.log.cursor import Cursor, CursorFile
from datasets.log.durable import replace_file
from datasets.log.retention import Retention
from datasets.schema import SCHEMAS
from datasets.transmission import Transmission
from datasets.truth import TRUTH_SCHEMA, TruthWriter, truth_directory, truth_times
from tests.support import records

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


# --- truth ------------------------------------------------------------------------------------------------------------

DAY = 86_400
ODD = Transmission(on_change=True, sleep_after_s=600.0, drop=0.05, late=0.1, repeat=0.05, clock_error_s=1.0)


def truth(run: Path) -> pa.Table:
    table = pq.read_table(run / "truth", partitioning=None)
    ids = table.column("vehicle_id").cast(pa.string())
    return table.set_column(1, "vehicle_id", ids).sort_by([("ts", "ascending"), ("vehicle_id", "ascending")])


def plain(table: pa.Table) -> list[dict[str, Any]]:
    return list(table.to_pylist())


def daily(run: Path, **changes: Any) -> ShardPlan:
    return plan(run, **{"telemetry_ticks": 600, "checkpoint_ticks": 7200} | changes)


def test_truth_is_told_at_the_start_each_day_and_the_end(tmp_path: Path) -> None:
    shard = Shard(daily(tmp_path))
    shard.advance(2 * DAY + 6000)
    shard.close()
    rows = truth(tmp_path)
    times = sorted(set(rows.column("ts").cast(pa.int64()).to_pylist()))
    assert [t // 1_000_000 - 1_780_300_800 for t in times] == [0, DAY, 2 * DAY, 2 * DAY + 6000]
    assert rows.num_rows == 4 * VEHICLES
    assert rows.column_names == TRUTH_SCHEMA.names


def test_truth_does_not_depend_on_blocks_or_on_a_kill(tmp_path: Path) -> None:
    """Two runs: one in one block, one in odd blocks, left without closing in the middle of a day, and gone on with."""
    whole = Shard(daily(tmp_path / "whole"))
    whole.advance(3 * DAY)
    whole.close()
    killed = Shard(daily(tmp_path / "killed"))
    for tick in (7000, DAY - 1, DAY + 5000, 2 * DAY + 100):
        killed.advance(tick)
    killed._log.close()  # as a killed process leaves it: no checkpoint of the last part, no truth of it
    again = Shard(daily(tmp_path / "killed"))
    again.advance(3 * DAY)
    again.close()
    assert plain(truth(tmp_path / "killed")) == plain(truth(tmp_path / "whole"))


@pytest.mark.parametrize("vehicles", [20, 600, 7000])
def test_truth_files_stay_few_and_small(tmp_path: Path, vehicles: int) -> None:
    keys = {"run_id": ["run-test"] * vehicles, "vehicle_id": [f"EV-{k:06d}" for k in range(vehicles)]}
    arrays = {name: pa.array(values).dictionary_encode() for name, values in keys.items()}
    writer = TruthWriter(truth_directory(tmp_path, 0), arrays, 0)
    values = {field.name: np.zeros(vehicles) for field in TRUTH_SCHEMA}
    values |= {name: np.full(vehicles, "none", object) for name in ("fault", "faults", "cell")}
    values["outside_valid_range"] = np.zeros(vehicles, dtype=np.bool_)
    for day in range(40):
        writer.add(day * DAY * 1_000_000, values)
    writer.write()
    files = list((tmp_path / "truth").glob("**/*.parquet"))
    assert len(files) == {20: 1, 600: 2, 7000: 40}[vehicles]
    assert sum(pq.read_metadata(file).num_rows for file in files) == 40 * vehicles
    assert truth_times(truth_directory(tmp_path, 0))[0] == 40 * vehicles


def test_damaged_truth_is_not_written_over(tmp_path: Path) -> None:
    """It is said in one line which file it is and what to do; the rows before it are not dropped in silence."""
    shard = Shard(daily(tmp_path))
    shard.advance(DAY)
    shard.close()
    [file] = (tmp_path / "truth").glob("**/*.parquet")
    file.write_bytes(file.read_bytes()[:200])
    for look in (lambda: Shard(daily(tmp_path)), lambda: truth_times(file.parent)):
        with pytest.raises(LogDamaged, match=r"cannot be read .*; move it away to go on") as error:
            look()
        assert str(file) in str(error.value)
        assert "\n" not in str(error.value)
    assert file.stat().st_size == 200


def test_truth_waits_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk at the end of a day: the shard waits, and nothing of the truth is missing afterwards."""
    shard = Shard(daily(tmp_path, checkpoint_ticks=600))
    shard.advance(DAY - 600)
    full = {"now": True}

    def no_room(path: Path, content: Any) -> None:
        if full["now"]:
            raise LogFull(28, f"no room for {path}")
        replace_file(path, content)

    monkeypatch.setattr("datasets.truth.replace_file", no_room)
    assert "room on the volume" in shard.advance(DAY).waiting_for
    full["now"] = False
    assert shard.advance(DAY + 600).waiting_for == ""
    shard.close()
    assert truth(tmp_path).num_rows == 3 * VEHICLES


# --- transmission -----------------------------------------------------------------------------------------------------


def test_what_is_sent_does_not_depend_on_blocks_or_on_a_kill(tmp_path: Path) -> None:
    options: dict[str, Any] = {"transmission": ODD, "telemetry_ticks": 10, "checkpoint_ticks": 600}
    whole = Shard(plan(tmp_path / "whole", **options))
    status = whole.advance(7200)
    whole.close()
    assert status.sent.never > 0
    assert status.records - status.sent.repeated + status.sent.held + status.sent.never == VEHICLES * 720
    killed = Shard(plan(tmp_path / "killed", **options))
    for tick in (610, 1300, 3333, 4000):
        killed.advance(tick)
    killed._log.close()
    again = Shard(plan(tmp_path / "killed", **options))
    assert again.advance(7200).sent == status.sent
    again.close()
    assert rows(tmp_path / "killed").equals(rows(tmp_path / "whole"))


def test_what_shards_took_is_counted_where_they_stop_at_different_moments(tmp_path: Path) -> None:
    """A run that is stopped leaves each shard where it was."""
    options: dict[str, Any] = {"transmission": ODD, "telemetry_ticks": 10, "vehicles": 10, "shards": 2}
    found = []
    for number, ticks in enumerate((3600, 3610)):
        shard = Shard(plan(tmp_path, **options, shard=number, first_vehicle=10 * number))
        found.append(shard.advance(ticks))
        shard.close()
    sent = found[0].sent + found[1].sent
    assert sent.taken == 10 * (360 + 361)
    assert sent.taken == sum(status.records for status in found) - sent.repeated + sent.held + sent.never


def test_shards_together_send_what_one_sends(tmp_path: Path) -> None:
    options: dict[str, Any] = {"transmission": ODD, "telemetry_ticks": 10}
    one = Shard(plan(tmp_path / "one", **options))
    one.advance(3600)
    one.close()
    for shard, first in enumerate((0, 8)):
        part = plan(tmp_path / "two", **options, shard=shard, first_vehicle=first, vehicles=(8, 12)[shard])
        half = Shard(part)
        half.advance(3600)
        half.close()
    order = [("vehicle_id", "ascending"), ("seq", "ascending")]
    assert plain(records(tmp_path / "two").sort_by(order)) == plain(records(tmp_path / "one").sort_by(order))


def test_hot_vehicles_are_those_that_measured_it_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.fleet.shard.HOT_C", 21.0)
    shard = Shard(plan(tmp_path))
    assert shard.status().hot == 0, "nobody has measured anything"
    hot = shard.advance(600).hot
    shard.close()
    last = rows(tmp_path).column("battery_temperature").to_numpy()[-VEHICLES:]
    assert hot == (last > 21.0).sum()
    assert 0 < hot < VEHICLES
