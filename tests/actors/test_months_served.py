"""What the pool is asked with is what models were trained with: the months that a shard keeps, against the same days
folded as training does; however the shard was cut, killed or begun anew."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from actors.fleet.plan import PopulationPlan, ShardPlan
from actors.fleet.shard import Shard
from actors.prediction.past import ShardPast
from datasets.drive_cycles import drive_cycle_names, load_drive_cycle
from datasets.log.durable import LogFull, replace_file
from datasets.months import KEPT, MonthFold, known_month, known_s, month_path, months_directory
from models.features import WINDOWED, windows_of
from physics import FleetLives, FleetPhysics, draw_population
from physics.constants import DAY_S
from physics.sensors import PROFILES

FIRST, VEHICLES = 40, 6
START_S = 1_767_225_600  # 2026-01-01
CELLS = (("chen2020", 0.75), ("prada2013", 0.25))
FAST: dict[str, Any] = {
    "fast_forward": True,
    "step_s": 1.0,
    "telemetry_ticks": 86_400,
    "checkpoint_ticks": 300 * 86_400,
}
LIVE: dict[str, Any] = {"step_s": 20.0, "telemetry_ticks": 90, "checkpoint_ticks": 2_000}


def plan(run: Path, **changes: Any) -> ShardPlan:
    values: dict[str, Any] = {
        "run_dir": run, "run_id": "run-test", "shard": 0, "first_vehicle": FIRST, "vehicles": VEHICLES,
        "population": PopulationPlan(7, CELLS, None, 3.0, 0.02), "start_s": START_S, "predicted": True,
    }  # fmt: skip
    return ShardPlan(**(values | changes))


def trained(run: ShardPlan, ticks: int, vehicle: np.ndarray, time_s: np.ndarray) -> np.ndarray:
    """The windowed features as training makes them, from days of the same vehicles in one piece."""
    who = draw_population(
        7, np.arange(FIRST, FIRST + VEHICLES), dict(CELLS), oldest_years=3.0, fault_share=0.02, start_s=START_S
    )
    fleet = (FleetLives if run.fast_forward else FleetPhysics)(
        who, cycles=[load_drive_cycle(name).speed_mps for name in drive_cycle_names()], start_s=START_S,
        step_s=run.step_s, sensors=PROFILES["typical"], daily=True,
    )  # fmt: skip
    fleet.advance(ticks, run.telemetry_ticks)
    months = pd.DataFrame(MonthFold(who.vehicle).add(fleet.daily()))
    age = who.age_years[vehicle - FIRST] + (time_s - START_S) / (365.2425 * DAY_S)
    return windows_of(months, vehicle, time_s, age).astype(np.float32)


def moments(run: ShardPlan, ticks: int) -> tuple[np.ndarray, np.ndarray]:
    """(vehicle, time) of every telemetry record, in the order of the log."""
    seq = np.arange(ticks // run.telemetry_ticks)
    times = START_S + (seq + 1) * run.telemetry_ticks * run.step_s
    return np.tile(np.arange(FIRST, FIRST + VEHICLES), seq.size), np.repeat(times, VEHICLES)


def served(run: ShardPlan, ticks: int, cuts: int) -> np.ndarray:
    """What a feeder knows, asked in so many pieces."""
    windows = ShardPast(months_directory(run.run_dir, 0))
    parts = zip(*(np.array_split(values, cuts) for values in moments(run, ticks)), strict=True)
    return np.concatenate([windows.at(vehicle, time_s) for vehicle, time_s in parts])


LIFE = 960 * 86_400


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> ShardPlan:
    """Years of a shard in blocks of odd lengths, with a kill without a checkpoint and an end in order."""
    return lived(plan(tmp_path_factory.mktemp("life"), **FAST), LIFE)


def lived(run: ShardPlan, ticks: int) -> ShardPlan:
    shard = Shard(run)
    for k in range(1, 9):
        shard.advance(ticks * k // 8 // run.telemetry_ticks * run.telemetry_ticks)
        if k == 3:
            shard._log.close()
            shard = Shard(run)
        if k == 6:
            shard.close()
            shard = Shard(run)
    shard.close()
    return run


def check(run: ShardPlan, ticks: int) -> np.ndarray:
    """The features served, which are those trained with."""
    told = served(run, ticks, 97)
    vehicle, time_s = moments(run, ticks)
    np.testing.assert_allclose(told, trained(run, ticks, vehicle, time_s), rtol=2e-6)
    np.testing.assert_array_equal(served(run, ticks, 1), told)
    last = dict(zip(WINDOWED, told[-VEHICLES:].T, strict=True))
    assert (last["months"] == min(24, known_month(time_s[-1]) - known_month(START_S))).all()
    assert np.isfinite(last["soh_3"]).all()
    begun = dict(zip(WINDOWED, told[:VEHICLES].T, strict=True))
    assert (begun["months"] == 0).all()
    assert np.isfinite(begun["age_years"]).all()
    return told


def test_serving_knows_what_training_knew_of_lives(life: ShardPlan) -> None:
    check(life, LIFE)


def test_serving_knows_what_training_knew_of_a_live_fleet(tmp_path: Path) -> None:
    ticks = 40 * 4_320
    check(lived(plan(tmp_path, **LIVE), ticks), ticks)


def test_a_feeder_that_begins_later_and_a_record_that_comes_late_know_the_same(life: ShardPlan) -> None:
    whole = served(life, LIFE, 97)
    vehicle, time_s = moments(life, LIFE)
    since = 800 * VEHICLES
    again = ShardPast(months_directory(life.run_dir, 0))
    np.testing.assert_array_equal(again.at(vehicle[since:], time_s[since:]), whole[since:])
    turn = np.flatnonzero(np.diff(known_month(time_s[since:])))[0] + since + 1  # the first record of a new month
    late = ShardPast(months_directory(life.run_dir, 0))
    late.at(vehicle[turn : turn + 1], time_s[turn : turn + 1])
    np.testing.assert_array_equal(late.at(vehicle[turn - 9 : turn], time_s[turn - 9 : turn]), whole[turn - 9 : turn])


def test_months_on_disk_say_who_and_how_old(life: ShardPlan) -> None:
    first, days = int(known_month(START_S)), LIFE // 86_400
    last = int(known_month(START_S + days * DAY_S))
    files = sorted(int(path.stem) for path in months_directory(life.run_dir, 0).iterdir())
    assert files == list(range(first, last + 1))
    for month in files:
        table = pq.read_table(month_path(months_directory(life.run_dir, 0), month))
        assert table.schema.equals(KEPT)
        assert table.column("vehicle").to_pylist() == list(range(FIRST, FIRST + VEHICLES))
        assert set(table.column("month").to_pylist()) == {month}
        reported = set(table.column("days").to_pylist())
        assert reported == {0} if month == first else reported <= {6, 7} if month == first + 1 else reported == {30}
        age = table.column("age_years").to_numpy()
        assert ((age >= (known_s(month) - START_S) / (365.2425 * DAY_S) - 1e-9) & (age < 6.0)).all()


def test_without_room_for_a_month_its_records_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, full = plan(tmp_path, **FAST), {"now": True}

    def no_room(path: Path, content: Any) -> None:
        if full["now"] and path.stem != f"{int(known_month(START_S)):05d}":
            raise LogFull(28, "no room", str(path))
        replace_file(path, content)

    monkeypatch.setattr("datasets.months.replace_file", no_room)
    shard = Shard(run)
    assert "room on the volume" in shard.advance(60 * 86_400).waiting_for
    assert shard.status().records == 0
    full["now"] = False
    assert shard.advance(60 * 86_400).waiting_for == ""
    assert shard.status().records == 60 * VEHICLES
    shard.close()


def test_without_predictions_no_months_are_kept(tmp_path: Path) -> None:
    shard = Shard(plan(tmp_path, predicted=False, **FAST))
    shard.advance(100 * 86_400)
    shard.close()
    assert not (tmp_path / "months").exists()


def test_a_month_that_cannot_be_read_is_one_that_is_not_known(
    life: ShardPlan, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = replace(life, run_dir=Path(shutil.copytree(life.run_dir, tmp_path / "copy")))
    before = dict(zip(WINDOWED, served(life, LIFE, 3)[-1], strict=True))
    month = int(known_month(moments(life, LIFE)[1][-1]))
    month_path(months_directory(copy.run_dir, 0), month - 2).write_bytes(b"PAR1 no parquet")
    after = dict(zip(WINDOWED, served(copy, LIFE, 3)[-1], strict=True))
    assert after["months"] == before["months"] - 1
    assert after["age_years"] == before["age_years"]
    assert "cannot be read" in caplog.text
