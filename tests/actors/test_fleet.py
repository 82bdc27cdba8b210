"""The fleet on Ray: the same records on any number of shards, after any shard's death, with or without the pool."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
import ray

from actors.fleet.status import FleetStatus
from datasets.schema import SCHEMAS, vehicle_id
from models.bundle import Bundle
from models.features import is_predicted
from tests.support import records
from twin import Fleet
from twin.errors import RunFailed

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]

VEHICLES, RECORDS = 45, 300  # ten minutes at a record every 2 s


def fleet_of(out: Path, shards: int, **settings: Any) -> Fleet:
    return Fleet(vehicles=VEHICLES, seed=7, shards=shards, out=out, predict=False, **settings)


def run_fleet(
    out: Path, shards: int, on_status: Callable[[FleetStatus], None] = lambda status: None, **settings: Any
) -> Path:
    with fleet_of(out, shards, **settings) as fleet:
        fleet.run("10min", on_status)
    return out


@pytest.fixture(scope="module")
def undisturbed(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    return records(run_fleet(tmp_path_factory.mktemp("fleet") / "one", 1))


def test_the_log_holds_exactly_the_records_made(undisturbed: pa.Table) -> None:
    assert undisturbed.num_rows == VEHICLES * RECORDS
    assert undisturbed.column_names == SCHEMAS["telemetry"].names
    vehicles = undisturbed.column("vehicle_id").to_pylist()
    assert vehicles[::RECORDS] == [vehicle_id(i) for i in range(VEHICLES)]
    assert undisturbed.column("seq").to_pylist() == list(range(RECORDS)) * VEHICLES
    ts = undisturbed.column("ts").cast(pa.int64()).to_numpy().reshape(VEHICLES, RECORDS)
    assert (np.diff(ts, axis=1) == 2_000_000).all()
    for name in ("soc", "battery_voltage", "battery_temperature", "soh"):
        values = undisturbed.column(name).to_numpy()
        assert np.isfinite(values).all()
        assert values.std() > 0


@pytest.mark.parametrize("shards", [2, 7])
def test_any_number_of_shards_makes_the_same_records(undisturbed: pa.Table, tmp_path: Path, shards: int) -> None:
    assert records(run_fleet(tmp_path / "run", shards)).equals(undisturbed)


def test_actors_have_names_that_a_person_can_read(tmp_path: Path) -> None:
    """In Ray's dashboard; and two fleets at once do not take each other's."""
    with fleet_of(tmp_path / "a", 2) as one, fleet_of(tmp_path / "b", 2) as other:
        one.run("1min")
        other.run("1min")
        names = [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)]
        ours = sorted(name for name in names if name.startswith(f"{one.run_id}-shard-"))
    assert one.run_id == other.run_id
    assert [re.sub("-[0-9a-f]{8}$", "", name) for name in ours] == [
        f"{one.run_id}-shard-{number:04d}" for number in (0, 0, 1, 1)
    ]


def test_a_killed_shard_makes_the_same_records(undisturbed: pa.Table, tmp_path: Path) -> None:
    """kill -9 twice in mid-run, with a checkpoint between: none missing, none twice, none different."""
    killed: dict[int, int] = {}
    run, half = tmp_path / "run", 300

    def kill(status: FleetStatus) -> None:
        victim = status.shards[1]
        which = status.tick // half
        if which not in killed and victim.tick > which * half + 60 and victim.pid not in killed.values():
            os.kill(victim.pid, signal.SIGKILL)
            killed[which] = victim.pid

    # At a pace, so that each kill comes while the shard works; in two halves, so that it is back before the second.
    with fleet_of(run, 2, pace=60, checkpoint_every="1min") as fleet:
        for _ in range(2):
            fleet.run(half, kill)
    assert len(killed) == 2
    counts = json.loads((run / "run.json").read_text())["counts"]
    assert counts["shard_restarts"] == 2
    assert counts["telemetry"] == VEHICLES * RECORDS
    assert records(run).equals(undisturbed)


def test_a_shard_that_cannot_live_ends_the_run_with_a_reason(tmp_path: Path) -> None:
    fleet = Fleet(vehicles=3, shards=1, out=tmp_path / "run", predict=False).start()
    (tmp_path / "run" / "checkpoints").write_text("in the way")
    with pytest.raises(RunFailed, match=r"shard 0 .*what was made is in"):
        fleet.run("20min")
    fleet.close("failed")


def test_vehicles_are_addressable_while_the_fleet_runs(tmp_path: Path) -> None:
    with Fleet(vehicles=10, seed=3, shards=3, out=tmp_path / "run", predict=False) as fleet:
        assert fleet.vehicle("EV-000007").state() == {}
        fleet.run("1min")
        state = fleet.vehicle("EV-000007").state()
        fleet.run(60)
        later = fleet.vehicle("EV-000007").state()
        with pytest.raises(ValueError, match="expected a vehicle from EV-000000 to EV-000009"):
            fleet.vehicle("EV-000010")
    assert (state["vehicle_id"], state["seq"], later["seq"]) == ("EV-000007", 29, 59)
    found = duckdb.sql(
        "SELECT soc, soh, battery_voltage, mode FROM "
        f"'{tmp_path}/run/telemetry/**/*.parquet' WHERE vehicle_id = 'EV-000007' AND seq = 29"
    )
    assert found is not None
    [row] = found.fetchall()
    assert row[:3] == pytest.approx([state[name] for name in ("soc", "soh", "battery_voltage")], rel=1e-6)
    assert row[3] == state["mode"]


def test_pace_is_kept(tmp_path: Path) -> None:
    """A paced fleet never runs ahead of the clock: a lower bound, so a slow machine cannot fail it."""
    began = time.monotonic()
    with Fleet(vehicles=5, shards=1, pace=10, out=tmp_path / "run", predict=False) as fleet:
        fleet.run("20s")
        assert time.monotonic() - began >= 2.0
        assert fleet.status().records == 50


def test_predictions_are_made_once_for_every_due_record(tmp_path: Path, free_port: int) -> None:
    """Replicas that die meanwhile: `tests/faults/test_fleet_parts.py`."""
    run = tmp_path / "run"
    with Fleet(vehicles=20, seed=3, shards=2, out=run, rest_port=free_port) as fleet:
        fleet.run("20min")
    telemetry, predictions = records(run), records(run, "predictions")
    wanted = is_predicted(telemetry.column("seq").to_numpy(), 2, 5)
    expected = telemetry.filter(pa.array(wanted)).select(["run_id", "vehicle_id", "seq", "ts"])
    assert predictions.select(["run_id", "vehicle_id", "seq", "ts"]).equals(expected)
    assert set(predictions.column("model_version").to_pylist()) == {Bundle.load().manifest.version}
    low, rul, high = (predictions.column(name).to_numpy() for name in ("rul_low", "rul", "rul_high"))
    assert (low <= rul).all()
    assert (rul <= high).all()


def test_a_tail_without_anything_to_predict_is_read_all_the_same(tmp_path: Path, free_port: int) -> None:
    """The last blocks hold no due record: the run ends delivered, it does not wait for them."""
    run = tmp_path / "run"
    with Fleet(vehicles=20, shards=1, pace=600, predict_every="50min", out=run, rest_port=free_port) as fleet:
        fleet.run("70min")
        fleet.deliver()
        assert fleet.status().predictor_backlog == 0
    assert records(run, "predictions").num_rows == 20
