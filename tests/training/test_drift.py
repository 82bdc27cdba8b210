"""Drift rings for other vehicles and not for the same; coverage counts what is decided, and only that."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from models.features import FEATURES
from training.drift import COVERAGE_ALARM, PSI_ALARM, coverage, drift, reference_of, stability
from training.samples import Samples
from training.train import Trained


def fleet(vehicles: int, seed: int, *, fade: float = 0.02, warmer: float = 0.0, moments: int = 12) -> Samples:
    """Vehicles of several ages, of two kinds of car, each fading in its own way."""
    generator = np.random.default_rng(seed)
    vehicle = np.repeat(np.arange(vehicles), moments)
    pace, cells = generator.uniform(20, 90, vehicles)[vehicle], generator.integers(0, 2, vehicles)[vehicle]
    years = np.tile(np.linspace(0.5, 8.0, moments), vehicles)
    own = np.exp(generator.normal(0.0, 0.2, vehicles))[vehicle]
    soc = generator.uniform(0.1, 0.9, vehicle.size)
    inputs = np.full((vehicle.size, len(FEATURES)), np.nan, np.float32)
    told = {
        "SoC": soc,
        "SoH": 1.0 - fade * own * np.sqrt(years * pace / 50.0) + generator.normal(0.0, 0.01, vehicle.size),
        "Battery_Voltage": 330.0 + 40.0 * soc + 25.0 * cells + generator.normal(0.0, 3.0, vehicle.size),
        "Charge_Cycles": years * pace,
        "Battery_Temperature": generator.normal(18.0 + warmer, 9.0, vehicle.size),
    }
    for name, values in told.items():
        inputs[:, FEATURES.index(name)] = values
    nothing = np.zeros(vehicle.size)
    flags = np.zeros(vehicle.size, np.int8)
    return Samples(inputs, vehicle, nothing, nothing, nothing, nothing, flags > 0, flags, flags)


def rows(samples: Samples) -> pd.DataFrame:
    return pd.DataFrame(samples.inputs, columns=list(FEATURES)).assign(vehicle=samples.vehicle)


REFERENCE = reference_of(fleet(400, 1), 0.8)


def rings(samples: pd.DataFrame, days: float = 400.0) -> set[str]:
    return {one.name for one in drift(REFERENCE, samples, days) if one.rings}


@pytest.mark.parametrize("vehicles", [30, 100, 500])
def test_the_same_population_does_not_ring(vehicles: int) -> None:
    for seed in range(2, 12):
        assert not rings(rows(fleet(vehicles, seed)))


def test_a_younger_fleet_is_the_same_population() -> None:
    young = fleet(200, 2, moments=24)
    assert not rings(rows(young.at(young.column("Charge_Cycles") < 150.0)))


@pytest.mark.parametrize("vehicles", [60, 200])
def test_another_population_rings(vehicles: int) -> None:
    assert rings(rows(fleet(vehicles, 2, fade=0.05))) == {"SoH"}
    assert rings(rows(fleet(vehicles, 2, warmer=12.0))) == {"Battery_Temperature"}
    others = rows(fleet(vehicles, 2))
    assert rings(others.assign(Battery_Voltage=others["Battery_Voltage"] + 40.0)) == {"Battery_Voltage"}


def test_a_season_is_no_drift_and_a_few_vehicles_tell_nothing() -> None:
    hot = rows(fleet(200, 2, warmer=12.0))
    assert not rings(hot, days=30.0)
    assert "once a year has passed" in str(drift(REFERENCE, hot, 30.0)[-1])
    few = drift(REFERENCE, rows(fleet(5, 2, fade=0.05)), 400.0)
    assert not any(one.rings for one in few)
    assert str(few[0]) == "SoH needs 20 vehicles, got 5"


def test_stability_is_zero_for_equal_shares_and_large_for_others() -> None:
    even, one = np.full(10, 0.1), np.eye(10)[0]
    assert stability(even, even, 100, 100) == pytest.approx(0.0)
    assert stability(one, even, 1000, 1000) > 10 * PSI_ALARM


def test_a_bundle_carries_its_reference(trained: Trained) -> None:
    manifest = json.loads((trained.folder / "manifest.json").read_text())
    assert "reference.json" in manifest["sha256"]
    assert 30 <= trained.bundle.reference["vehicles"] <= trained.bundle.seen["train"].size
    assert set(trained.bundle.reference["inputs"]) == {"SoH", "Battery_Voltage", "Battery_Temperature"}


def test_coverage_counts_decided_predictions_and_each_vehicle_once() -> None:
    generator = np.random.default_rng(3)
    life = generator.lognormal(6.5, 0.4, 4000)
    low, high = np.exp(6.5 + 0.4 * np.array([-1.645, 1.645]))
    watched = generator.uniform(0.0, 2.5 * high, life.size)
    told = pd.DataFrame({"vehicle": np.arange(life.size), "rul_low": low, "rul_high": high, "seen": watched})
    told["left"] = np.where(life <= watched, life, np.nan)
    found = coverage(told, int((life <= watched).sum()))
    assert found.share == pytest.approx(0.9, abs=0.02)
    assert not found.rings
    # Of those that have ended within a short time alone, too few would be covered: they are the early ones.
    short = told[life <= 1.2 * low].assign(seen=1.2 * low)
    assert ((short["rul_low"] <= short["left"]) & (short["left"] <= short["rul_high"])).mean() < 0.7
    assert coverage(short, len(short)).share is None
    narrow = coverage(told.assign(rul_low=500.0, rul_high=800.0), found.ended)
    assert narrow.share is not None
    assert narrow.share < COVERAGE_ALARM
    assert narrow.rings
    assert not coverage(told.assign(rul_low=500.0, rul_high=800.0).iloc[:15], 9).rings
    nothing = coverage(told.assign(seen=1.0), 0)
    assert nothing.share is None
    assert not nothing.rings
    assert "cannot be told yet" in str(nothing)
