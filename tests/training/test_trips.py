"""A real car's trips: the table from the real data where they are, and what can be known without them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from physics.constants import GRAVITY
from physics.vehicle import DRIVE_EFFICIENCY, REGENERATION_EFFICIENCY
from tests.support import real_data
from training.validation.trips import BMW_I3, FILE, Trip, compare, drive_again, read_trips, slope_of, trip_tables
from twin.errors import BadInput
from twin.show.vehicle_study import validate_vehicle


def cruise(speed_mps: float, slope: float, seconds: int = 600) -> Trip:
    """A made-up trip at one speed on one slope; what it measured is nothing."""
    one = np.ones(seconds)
    return Trip(
        name="made up",
        heater_frozen=False,
        speed_mps=speed_mps * one,
        elevation_m=500.0 + slope * speed_mps * np.arange(seconds, dtype=np.float64),
        consumers_W=1000.0 * one,
        ambient_C=25.0 * one,
        voltage_V=360.0 * one,
        current_A=30.0 * one,
        temperature_C=25.0 * one,
        soc=0.8 * one,
        motor_W=0.0 * one,
    )


@pytest.mark.parametrize("slope", [0.0, 0.03, -0.06])
def test_power_on_a_slope_is_the_sum_of_its_forces(slope: float) -> None:
    speed = 20.0
    trip = cruise(speed, slope)
    ours = drive_again(trip)
    drag = 0.5 * 353.0 / 298.15 * np.exp(-trip.elevation_m.mean() / 8430.0) * BMW_I3.drag_area_m2 * speed**2
    wheel = speed * (drag + (BMW_I3.rolling_25C + slope) * GRAVITY * BMW_I3.mass_kg)
    at_motor = wheel / DRIVE_EFFICIENCY if wheel > 0.0 else wheel * REGENERATION_EFFICIENCY
    middle = slice(100, -100)  # the smoothing flattens the ends
    assert ours.wheel_W[middle] == pytest.approx(wheel, rel=1e-3)
    assert ours.power_W[middle].mean() == pytest.approx(at_motor + BMW_I3.auxiliary_W + 1000.0, rel=0.005)
    drawn_Ah = ours.current_A.sum() / 3600.0
    assert ours.soc[-1] == pytest.approx(0.8 - drawn_Ah / (BMW_I3.capacity_Ah * 5.153 / 5.0), abs=2e-3)
    assert compare(trip, ours).ours_kWh == pytest.approx(ours.power_W.sum() / 3.6e6)


def test_steps_of_elevation_and_drift_at_rest_make_no_slopes() -> None:
    speed = np.concatenate([np.full(300, 15.0), np.zeros(120), np.full(300, 15.0)])
    along = np.concatenate([[0.0], np.cumsum(0.5 * (speed[1:] + speed[:-1]))])
    truth = 0.02
    noise = np.random.default_rng(3).normal(0.0, 1.0, speed.size)
    drift = np.where(speed == 0.0, np.linspace(0.0, 4.0, speed.size), 0.0)
    slope = slope_of(speed, np.round(truth * along + noise + drift))
    assert np.abs(slope[60:-60] - truth).max() < 0.015
    assert np.gradient(np.round(truth * along + noise), along + np.arange(along.size) * 1e-6).std() > 0.05
    climbed = float((slope * speed).sum())
    assert climbed == pytest.approx(truth * along[-1], rel=0.1)


def recorded(trips: int = 1, rows: int = 120, **columns: object) -> pd.DataFrame:
    values: dict[str, object] = {
        "speed_kmh": 36.0, "elevation_m": 500.0, "voltage_V": 380.0, "current_A": -20.0, "battery_temp_C": 20.0,
        "soc_pct": 80.0, "heating_power_kW": 0.0, "aircon_power_kW": 0.5, "ambient_C": 20.0, "motor_torque_Nm": 10.0,
    }  # fmt: skip
    names = [f"T{k}" for k in range(trips)]
    return pd.DataFrame({"trip": np.repeat(names, rows), "t_s": np.tile(np.arange(rows), trips)} | values | columns)


def test_a_frozen_heater_does_not_count(tmp_path: Path) -> None:
    table = recorded(trips=3)
    heating = np.zeros(360)
    heating[:120] = 5.32
    heating[240:] = np.linspace(1.0, 2.0, 120)
    table["heating_power_kW"] = heating
    table.to_parquet(tmp_path / FILE)
    trips = read_trips(tmp_path)
    assert [trip.heater_frozen for trip in trips] == [True, False, False]
    assert trips[0].consumers_W.max() == 500.0
    assert trips[2].consumers_W.max() == pytest.approx(2500.0)
    assert trips[0].current_A[0] == 20.0  # positive discharges
    tables = trip_tables(trips)
    assert tables.frozen == ("T0",)
    alone = trip_tables(trips[1:])
    assert tables.variants == alone.variants
    wrong = replace(tables.variants[0], energy_error_percent=float("nan"), temperature_K=1.6)
    assert len(replace(tables, variants=(wrong,)).missed()) == 2


def test_what_is_wrong_with_a_file_is_one_line(tmp_path: Path) -> None:
    def refused() -> str:
        with pytest.raises(BadInput) as caught:
            validate_vehicle(data=tmp_path, out=tmp_path / "out", say=lambda _: None)
        assert not (tmp_path / "out").exists()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "cannot read it" in refused()
    (tmp_path / FILE).write_text("no table")
    assert "expected a CSV file" in refused()
    recorded().drop(columns="ambient_C").to_parquet(tmp_path / FILE)
    assert "expected the columns ambient_C" in refused()
    recorded(rows=30).to_parquet(tmp_path / FILE)
    assert "expected at least 60 rows of rising t_s in trip T0" in refused()
    recorded(speed_kmh=np.nan).to_parquet(tmp_path / FILE)
    assert "expected numbers in speed_kmh of trip T0" in refused()


def test_the_trips_of_a_real_car() -> None:
    tables = trip_tables(read_trips(real_data(FILE)))
    assert len(tables.rows) == 32
    assert tables.frozen == ("TripA03", "TripA05", "TripA06", "TripA13", "TripA18")
    first = tables.variants[0]
    # Not the goal of 10 %, which is missed, but what is reached; docs/real-data.md says why.
    assert -18.0 < first.energy_percent < -14.0
    assert first.temperature_K < 1.5
    assert np.median([row.voltage_V for row in tables.rows]) < 12.0
    assert max(abs(row.km - 23.5) for row in tables.rows if row.trip == "TripA02") < 0.1
    assert len(tables.missed()) == 1
