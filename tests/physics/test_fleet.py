"""A fleet: the same results however it is divided, chunked or restored; sane vehicles; clear refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from physics import COLUMNS, FLAGS, MODES, FleetPhysics, Population, draw_population, load_cell, simulate_cell
from physics.modal import cell_model, instant_resistance

Make = Callable[..., FleetPhysics]
DRIVING, CHARGING = MODES.index("driving"), MODES.index("charging")


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray], of: slice | list[int] = slice(None)) -> bool:
    return all(np.array_equal(a[name][:, of], b[name]) for name in a)


def joined(*parts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def test_shard_of_one_equals_shard_of_a_thousand(make_fleet: Make) -> None:
    whole = make_fleet(range(1000)).advance(3600, 30)
    for vehicle in (0, 127, 128, 613, 999):
        assert same(whole, make_fleet([vehicle]).advance(3600, 30), [vehicle])
    assert same(whole, make_fleet(range(300, 700)).advance(3600, 30), slice(300, 700))


def test_chunks_do_not_matter(make_fleet: Make) -> None:
    whole = make_fleet(range(40)).advance(3600, 7)
    fleet = make_fleet(range(40))
    parts = [fleet.advance(ticks, 7) for ticks in (60, 60, 1, 6, 13, 997, 2400, 63)]
    assert fleet.tick == 3600
    assert same(whole, joined(*parts))


def test_sampling_does_not_disturb(make_fleet: Make) -> None:
    often, seldom = make_fleet(range(20)).advance(1200, 2), make_fleet(range(20)).advance(1200, 60)
    for name in often:
        if name != "flags":  # flags gather over the interval
            assert np.array_equal(often[name][29::30], seldom[name])


def test_restore_goes_on_bit_for_bit(make_fleet: Make) -> None:
    fleet = make_fleet(range(150), hour=5.0)
    fleet.advance(4001, 10)
    snapshot = fleet.snapshot()
    on = fleet.advance(3000, 10)
    other = make_fleet(range(150), hour=5.0)
    other.restore(snapshot)
    assert other.tick == 4001
    assert same(on, other.advance(3000, 10))
    fleet.restore(snapshot)  # the snapshot is a copy
    assert same(on, fleet.advance(3000, 10))


def test_restore_refuses_other_vehicles(make_fleet: Make) -> None:
    snapshot = make_fleet(range(10)).snapshot()
    with pytest.raises(ValueError, match="other vehicles"):
        make_fleet(range(1, 11)).restore(snapshot)
    with pytest.raises(ValueError, match="other vehicles or another version"):
        make_fleet(range(300)).restore(snapshot)


def test_two_days_of_three_hundred_vehicles(make_fleet: Make) -> None:
    """They drive, charge up to their limit, stay inside physical limits and use a plausible energy."""
    fleet = make_fleet(range(300), hour=0.0)
    days = fleet.advance(2 * 86400, 60)
    for name, values in days.items():
        assert np.all(np.isfinite(values)), name
    assert set(np.unique(days["mode"])) == {0, 1, 2, 3}
    assert days["soc"].min() >= 0.0
    assert days["soc"].max() <= 1.0
    assert days["cell_voltage_min"].min() > 2.49
    assert days["cell_voltage_max"].max() < 4.21
    assert days["battery_temperature"].min() > -40.0
    assert days["battery_temperature"].max() < 60.0
    assert np.all(np.diff(days["soh"], axis=0) <= 1.1e-6 + 1e-12)  # Newton is good to 1e-6, records to 1e-7
    assert np.all(np.diff(days["distance_traveled"], axis=0) >= 0.0)
    assert np.all(np.diff(days["charge_cycles"], axis=0) >= 0.0)
    standing = days["mode"] == MODES.index("parked")
    assert np.all((days["battery_current"][standing] > 0.0) & (days["battery_current"][standing] < 0.1))  # standby
    assert np.all(days["driving_speed"][days["mode"] != DRIVING] == 0.0)
    km = days["distance_traveled"][-1] - days["distance_traveled"][0]
    assert 20.0 < km.mean() / 2.0 < 100.0
    kwh = np.where(days["mode"] == DRIVING, days["power_consumption"], 0.0).sum() / 60.0
    assert 110.0 < 1000.0 * kwh / km.sum() < 220.0
    limit = draw_population(1, np.arange(300), fault_share=0.0).soc_limit
    charged = (days["mode"][:-1] == CHARGING) & (days["mode"][1:] != CHARGING) & (days["driving_speed"][1:] == 0.0)
    over = days["soc"][:-1] - limit
    assert over[charged].max() < 0.02
    assert np.median(np.abs(over[charged])) < 0.03  # the constant-voltage phase ends at C/60
    assert (days["flags"] & FLAGS["power_not_met"] != 0).mean() < 0.001
    assert 0.78 < days["soh"].min() < 0.88  # ten years in Singapore, filled to the brim
    assert days["soh"].max() > 0.995


def test_power_is_voltage_times_current(make_fleet: Make) -> None:
    hour = make_fleet(range(50)).advance(3600, 1)
    product = hour["battery_voltage"] * hour["battery_current"] / 1000.0
    assert hour["power_consumption"] == pytest.approx(product, abs=1e-3)


def test_columns_have_the_documented_resolution(make_fleet: Make) -> None:
    sample = make_fleet(range(64), hour=7.0).advance(600, 5)
    assert list(sample) == [column.name for column in COLUMNS]
    for name, decimals in ((column.name, column.decimals or 0) for column in COLUMNS):
        assert sample[name].shape == (120, 64)
        values = sample[name].ravel().tolist()
        assert values == [round(value, decimals) for value in values], name
    assert sample["mode"].dtype == np.int8
    assert sample["flags"].dtype == np.int32


def test_compact_columns_are_the_readings_in_their_types(make_fleet: Make) -> None:
    """And readings have the exact decimals again. Compact ones are in arrays that the next call fills."""
    readings, compact = make_fleet(range(300)), make_fleet(range(300))
    kept: dict[str, np.ndarray] = {}
    for _ in range(2):
        plain, small = readings.advance(600, 10), compact.advance(600, 10, compact=True)
        for column in COLUMNS:
            values = small[column.name]
            assert values.dtype == column.type
            assert np.array_equal(plain[column.name].astype(column.type), values), column.name
            assert column.name not in kept or np.shares_memory(values, kept[column.name])
        kept = small


def test_cells_that_share_a_fleet_do_not_matter(cycles: list[np.ndarray]) -> None:
    """Vehicles of one kind of cell are then not side by side among the samples."""
    cells = {"chen2020": 0.5, "prada2013": 0.5}

    def fleet(vehicles: np.ndarray) -> FleetPhysics:
        return FleetPhysics(draw_population(1, vehicles, cells), cycles=cycles, start_s=1_780_297_200)

    whole = fleet(np.arange(400)).advance(600, 30, compact=True)
    assert same(whole, fleet(np.array([7, 300])).advance(600, 30, compact=True), [7, 300])


@pytest.mark.parametrize("step_s", [0.5, 2.0, 7.0])
def test_other_steps_tell_the_same_story(make_fleet: Make, step_s: float) -> None:
    """Two hours at another step: the same trips, about the same charge used."""
    one = make_fleet(range(60)).advance(7200, 7200)
    other = make_fleet(range(60), step_s=step_s).advance(round(7200 / step_s), round(7200 / step_s))
    assert other["distance_traveled"] == pytest.approx(one["distance_traveled"], abs=0.6)
    assert other["soc"] == pytest.approx(one["soc"], abs=0.004 if step_s < 5.0 else 0.01)


def fields_of(population: Population, index: int) -> list[Any]:
    return [v[index].tolist() for v in vars(population).values() if isinstance(v, np.ndarray)]


def test_a_vehicle_is_drawn_alone() -> None:
    whole = draw_population(5, np.arange(500))
    some = draw_population(5, np.array([499, 3]))
    assert fields_of(whole, 499) == fields_of(some, 0)
    assert fields_of(whole, 3) == fields_of(some, 1)
    assert fields_of(whole, 3) != fields_of(draw_population(6, np.array([3])), 0)


def test_spread_of_the_population() -> None:
    many = draw_population(1, np.arange(5000))
    assert many.capacity_scale.std() == pytest.approx(0.012, rel=0.05)
    assert many.resistance_scale.std() == pytest.approx(0.05, rel=0.05)
    assert set(np.unique(many.city)) == set(range(8))
    assert many.initial_soc.min() > 0.4
    assert many.initial_soc.max() < 1.0


@pytest.mark.parametrize("bad", [np.array([], dtype=np.int64), np.array([-1]), np.array([1, 1]), np.array([0.5])])
def test_bad_vehicles_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="vehicle indices"):
        draw_population(1, bad)


def test_bad_arguments_are_refused(make_fleet: Make) -> None:
    fleet, population = make_fleet([0]), draw_population(1, np.array([0]))
    with pytest.raises(ValueError, match="sample_every"):
        fleet.advance(1, 0)
    with pytest.raises(ValueError, match="ticks"):
        fleet.advance(-1, 1)
    with pytest.raises(ValueError, match="step_s"):
        FleetPhysics(population, cycles=[np.zeros(3)], start_s=0, step_s=0.0)
    with pytest.raises(ValueError, match="at least one"):
        FleetPhysics(population, cycles=[], start_s=0)
    with pytest.raises(ValueError, match=r"cycles\[0\]"):
        FleetPhysics(population, cycles=[np.array([0.0, np.nan])], start_s=0)
    with pytest.raises(ValueError, match="unknown cell"):
        draw_population(1, np.array([1]), cells="lead")


def test_resistance_is_truth_of_its_own(make_fleet: Make) -> None:
    """It agrees with what the kernel shows in a pulse, and grows with the film."""
    truth = make_fleet(range(40)).truth()
    assert np.all((truth["soh_resistance"] > 0.3) & (truth["soh_resistance"] <= 1.0))
    assert np.corrcoef(truth["soh_resistance"], truth["sei_thickness_m"])[0, 1] < -0.6  # films differ in resistivity
    thick = 3e-7
    pulses = []
    for film in (None, thick):
        current = np.concatenate([np.zeros(60), np.full(1, 1.0)])
        run = simulate_cell("chen2020", current, step_s=1e-3, initial_soc=0.5, sei_thickness_m=film, plating=False)
        pulses.append(run.voltage_V[-2] - run.voltage_V[-1])
    model = cell_model(load_cell("chen2020"))
    one = np.ones(1)
    expected = [
        float(instant_resistance(model, film / model.sei_length * one, 0.0 * one, one, one, one)[0]) / model.area
        for film in (model.sei_initial, thick)
    ]
    assert pulses[1] - pulses[0] == pytest.approx(expected[1] - expected[0], rel=0.03)
    assert pulses[0] == pytest.approx(expected[0], rel=0.1)
