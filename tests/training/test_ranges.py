"""Range against temperature: the table from a small fleet, and what is told of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from physics.default_fleet import MODELS
from training.validation import ranges
from training.validation.ranges import MIDDLES, PUBLISHED, Ranges, drive_all_year, render_ranges
from twin.show import vehicle_study


@pytest.fixture(scope="module")
def driven() -> Ranges:
    return drive_all_year(400, months=(1, 7))


def test_range_falls_in_the_cold_as_published(driven: Ranges) -> None:
    """Within what fleets, test drives and dynamometers say of it, to 0.12: fleets, cars and cabins differ by more."""
    told = driven.relative("fleet")
    assert told[MIDDLES.index(-10.0)] < told[MIDDLES.index(0.0)] < told[MIDDLES.index(10.0)] < 1.0
    assert told[MIDDLES.index(35.0)] < told[MIDDLES.index(25.0)]
    for one in PUBLISHED:
        low, high = driven.at(one.air_C)
        if np.isnan(low):  # so cold is only a large fleet's winter
            assert one.air_C[0] == -15.0
            continue
        assert high > one.low - 0.12, one
        assert low < one.high + 0.12, one


def test_a_heat_pump_saves_range(driven: Ranges) -> None:
    cold = MIDDLES.index(0.0)
    assert driven.relative("small")[cold] > driven.relative("medium")[cold]


def test_every_model_is_there_and_too_little_driven_is_not_told(driven: Ranges) -> None:
    assert set(driven.Wh_km) == {*MODELS, "fleet"}
    assert all(len(used) == len(MIDDLES) for used in driven.Wh_km.values())
    few = drive_all_year(1, months=(7,), days=1)
    assert np.isnan(few.Wh_km["fleet"]).any()


def test_what_is_shown(driven: Ranges, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(vehicle_study, "drive_all_year", lambda: driven)
    said: list[str] = []
    folder = vehicle_study.validate_vehicle(out=tmp_path / "out", say=said.append)
    assert render_ranges(driven) in said[0]
    assert all(one.source in said[0] for one in ranges.PUBLISHED)
    facts = json.loads((folder / "vehicle.json").read_text())
    assert facts["ranges"]["Wh_km"]["fleet"][MIDDLES.index(20.0)] == pytest.approx(
        driven.Wh_km["fleet"][MIDDLES.index(20.0)]
    )
    assert (folder / "ranges.png").stat().st_size > 10_000
    assert not (folder / "vehicle.png").exists()
