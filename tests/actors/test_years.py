"""A fleet over years, its faults and its ground truth, through actors and log."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.fleet.status import FleetStatus
from actors.prediction.past import ShardPast
from datasets.months import months_directory
from datasets.schema import vehicle_index
from models.bundle import Bundle
from models.features import WINDOWED, input_matrix
from tests.support import records
from twin import Fleet
from twin.errors import BadInput

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]

VEHICLES, DAYS = 16, 400


def years(out: Path, shards: int, on_status: Callable[[FleetStatus], None] = lambda status: None) -> pa.Table:
    settings: dict[str, Any] = {
        "telemetry_every": "1d",
        "cell": "chen2020:0.5,prada2013:0.5",
        "fault_share": 0.3,
        "sensors": "ideal",
    }
    with Fleet(vehicles=VEHICLES, seed=11, shards=shards, out=out, predict=False, **settings) as fleet:
        fleet.run(f"{DAYS}d", on_status)
    return records(out)


@pytest.fixture(scope="module")
def undisturbed(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    return years(tmp_path_factory.mktemp("years") / "one", 1)


def test_every_day_of_every_vehicle_is_there(undisturbed: pa.Table) -> None:
    assert undisturbed.num_rows == VEHICLES * DAYS
    assert undisturbed.column("seq").to_pylist() == list(range(DAYS)) * VEHICLES
    soh = undisturbed.column("soh").to_numpy().reshape(VEHICLES, DAYS)
    assert (soh[:, 0] > 0.99).all(), "a fleet that lives years begins new"
    assert (soh[:, -1] < soh[:, 0] - 0.005).all()


def test_years_do_not_depend_on_the_sharding(undisturbed: pa.Table, tmp_path: Path) -> None:
    assert years(tmp_path / "run", 5).equals(undisturbed)


def test_a_killed_shard_lives_the_same_years(undisturbed: pa.Table, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill(status: FleetStatus) -> None:
        if not killed:
            os.kill(status.shards[0].pid, signal.SIGKILL)
            killed.append(status.shards[0].pid)

    assert years(tmp_path / "run", 2, kill).equals(undisturbed)
    assert killed


def truth_of(run: Path) -> pd.DataFrame:
    """The last row of each vehicle, in their order."""
    rows = pd.read_parquet(run / "truth").astype({"vehicle_id": str})
    last: pd.DataFrame = rows[rows["ts"] == rows["ts"].max()]
    return last.sort_values("vehicle_id", ignore_index=True)


def test_the_ground_truth_of_each_vehicle_is_written(undisturbed: pa.Table, tmp_path: Path) -> None:
    run = tmp_path / "run"
    years(run, 2)
    truth = truth_of(run)
    assert len(truth) == VEHICLES
    every_day = pq.read_table(run / "truth", partitioning=None)
    assert every_day.num_rows == VEHICLES * (DAYS + 1), "and one at the start"
    assert set(truth["cell"]) == {"chen2020", "prada2013"}
    assert (truth["lli"] > 0.003).all()
    assert (truth["lam_ne"] > 0.0).all()
    listed = {vehicle: json.loads(text) for vehicle, text in zip(truth["vehicle_id"], truth["faults"], strict=True)}
    assert any(listed.values())
    assert all(onset_s >= 0.0 for faults in listed.values() for _, onset_s, _ in faults)


def test_an_injected_fault_acts_and_is_known(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with Fleet(vehicles=4, seed=3, shards=2, out=run, predict=False, fault_share=0.0) as fleet:
        fleet.run("1min")
        fleet.vehicle("EV-000003").inject("voltage_offset", 3.0)
        with pytest.raises(BadInput, match="expected a fault of internal_short"):
            fleet.vehicle("EV-000003").inject("gremlins", 1.0)
        fleet.run("1min")
    with Fleet(vehicles=4, seed=3, shards=1, out=tmp_path / "sound", predict=False, fault_share=0.0) as fleet:
        fleet.run("2min")
    broken, sound = (
        records(folder).column("battery_voltage").to_numpy().reshape(4, 60) for folder in (run, tmp_path / "sound")
    )
    assert (broken[:3] == sound[:3]).all()
    assert (broken[3, :30] == sound[3, :30]).all()
    assert broken[3, 30:] - sound[3, 30:] == pytest.approx(3.0, abs=0.01)
    assert truth_of(run)["fault"].tolist() == ["none", "none", "none", "voltage_offset"]


def test_predictions_of_a_run_over_years_read_the_past(tmp_path: Path, free_port: int) -> None:
    run = tmp_path / "run"
    with Fleet(vehicles=8, seed=5, shards=2, telemetry_every="1d", out=run, rest_port=free_port) as fleet:
        fleet.run(f"{DAYS}d")
    telemetry, predictions = records(run), records(run, "predictions")
    due = telemetry.join(predictions.select(["vehicle_id", "seq"]), ["vehicle_id", "seq"], join_type="inner")
    due = due.sort_by([("vehicle_id", "ascending"), ("seq", "ascending")]).combine_chunks()
    told = predictions.sort_by([("vehicle_id", "ascending"), ("seq", "ascending")])
    assert due.num_rows == told.num_rows == 8 * 13
    rows = due.to_batches()[0]
    inputs, bundle = input_matrix(rows), Bundle.load()
    vehicle = np.array([vehicle_index(name) for name in rows.column("vehicle_id").to_pylist()])
    time_s = rows.column("ts").cast(pa.int64()).to_numpy() * 1e-6
    of_shard = ((0, vehicle < 4), (1, vehicle >= 4))
    past = np.concatenate(
        [ShardPast(months_directory(run, shard)).at(vehicle[of], time_s[of]) for shard, of in of_shard]
    )
    expected = bundle.predict(np.hstack([inputs, past]))
    rul = told.column("rul").to_numpy()
    np.testing.assert_allclose(rul, expected.rul, rtol=1e-3, atol=0.01)
    assert past[:, WINDOWED.index("months")].max() >= 12
    without = bundle.predict(inputs).rul
    assert np.mean(np.abs(rul - without) > 1.0) > 0.5
