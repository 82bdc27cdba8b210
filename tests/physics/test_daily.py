"""Statistics of days: what per-step telemetry says, whoever else is there, however the span is cut, in lives too."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from physics import DAILY, FleetLives, FleetPhysics, Population, draw_population
from physics.accumulate import window_of
from physics.cells import load_cell
from physics.climate import CITIES
from physics.columns import MODES
from physics.daily import HIGH_SOC, HOT_C, HOW
from physics.layout import A_GAIN, V_GAIN
from physics.modal import cell_model
from physics.sensors import PROFILES

MIDNIGHT = 1_767_225_600
DAY = 86_400
STEP_S = 10.0
STEPS = round(DAY / STEP_S)
MINUTE = 6
START_S = MIDNIGHT + 13 * 3600
BOTH = {"chen2020": 0.6, "prada2013": 0.4}
KEYS = ("vehicle", "day")
Cycles = list[np.ndarray]
Columns = dict[str, np.ndarray]
Windows = list[tuple[float, float]]


def drawn(vehicles: Any = range(30)) -> Population:
    return draw_population(5, np.asarray(vehicles), BOTH, fault_share=0.3, start_s=MIDNIGHT)


def stepped(cycles: Cycles, vehicles: Any = range(30), sensors: str = "ideal", **options: Any) -> FleetPhysics:
    given = {"start_s": START_S, "step_s": STEP_S, "daily": True, **options}
    return FleetPhysics(drawn(vehicles), cycles=cycles, sensors=PROFILES[sensors], **given)


def lives(cycles: Cycles, vehicles: Any = range(30), **options: Any) -> FleetLives:
    given = {"drive_step_s": 5.0, "daily": True, **options}
    return FleetLives(drawn(vehicles), cycles=cycles, start_s=MIDNIGHT, **given)


def ordered(*parts: Columns) -> Columns:
    """Rows of several calls, by vehicle and day."""
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.lexsort((whole["day"], whole["vehicle"]))
    assert np.unique(np.stack([whole[name] for name in KEYS]), axis=1).shape[1] == order.size  # each day once
    return {name: values[order] for name, values in whole.items()}


def of_vehicles(rows: Columns, vehicles: Any) -> Columns:
    return {name: values[np.isin(rows["vehicle"], vehicles)] for name, values in rows.items()}


def hours(rows: Columns) -> np.ndarray:
    return np.sum([rows[f"time_{mode}"] for mode in MODES], axis=0)


def assert_same(one: Columns, other: Columns) -> None:
    assert one.keys() == other.keys()
    for name, values in one.items():
        assert np.array_equal(values, other[name]), name


def test_the_table_is_what_comes_out(cycles: Cycles) -> None:
    rows = stepped(cycles, [3]).daily()
    assert list(rows) == [column.name for column in DAILY]
    assert all(rows[column.name].dtype == column.type for column in DAILY)
    assert all(values.shape == (0,) for values in rows.values())
    assert {column.how for column in DAILY} == set(HOW)


# --- in steps ---------------------------------------------------------------------------------------------------------


def window_charge(told: Columns, steps: np.ndarray, step_s: float, window_V: tuple[float, float]) -> float:
    """By numpy, from the records of one vehicle: the charge [Ah] in its last charge of the day that passed the window,
    between looks each minute and at the end of the day."""
    looks = sorted({int(step) for step in steps if (step + 1) % MINUTE == 0} | {int(steps[-1])})
    found, volts, charges, charge, step = 0.0, [], [], 0.0, int(steps[0])
    for look in [*looks, -1]:
        if look >= 0:
            inside = told["mode"][step : look + 1] == MODES.index("charging")
            charge += float(np.sum(-told["battery_current"][step : look + 1] * inside)) * step_s / 3600.0
            step = look + 1
        if look >= 0 and inside[-1]:
            volts.append(0.5 * (told["cell_voltage_min"][look] + told["cell_voltage_max"][look]))
            charges.append(charge)
            continue
        if len(volts) > 1 and volts[0] < window_V[0] and volts[-1] >= window_V[1]:
            assert np.all(np.diff(volts) > 0.0)
            found = float(np.interp(window_V[1], volts, charges) - np.interp(window_V[0], volts, charges))
        volts, charges, charge = [], [], 0.0
    return found


def counted(told: Columns, k: int, on_day: np.ndarray, step_s: float, window_V: Windows) -> dict[str, float]:
    """A day of one vehicle by numpy, from telemetry of every step; `on_day`, shape (steps,)."""
    at = {name: values[on_day, k] for name, values in told.items()}
    looks = np.flatnonzero(on_day)[(np.flatnonzero(on_day) + 1) % MINUTE == 0]
    seen = {name: values[looks, k] for name, values in told.items()}
    power, mode = at["power_consumption"], [MODES[m] for m in at["mode"]]
    kWh = power * step_s / 3600.0
    driving = np.array([m == "driving" for m in mode])
    figures = {
        "energy_out": kWh[power > 0.0].sum(),
        "energy_charged": -kWh[(power < 0.0) & ~driving].sum(),
        "energy_recuperated": -kWh[(power < 0.0) & driving].sum(),
        "current_out_max": max(at["battery_current"].max(), 0.0),
        "current_in_max": max(-at["battery_current"].min(), 0.0),
        "soc_min": seen["soc"].min(),
        "soc_mean": seen["soc"].mean(),
        "soc_max": seen["soc"].max(),
        "time_soc_high": np.sum(seen["soc"] >= HIGH_SOC) / 60.0,
        "time_hot": np.sum(seen["battery_temperature"] >= HOT_C) / 60.0,
        "temperature_min": seen["cell_temperature_min"].min(),
        "temperature_mean": seen["battery_temperature"].mean(),
        "temperature_max": seen["cell_temperature_max"].max(),
        "cell_voltage_spread": (seen["cell_voltage_max"] - seen["cell_voltage_min"]).max(),
        "diagnostics": np.bitwise_or.reduce(seen["diagnostics"]),
    }
    for number, name in enumerate(MODES):
        figures[f"time_{name}"] = np.sum(at["mode"] == number) * step_s / 3600.0
    of_cell = {name: values[:, k] for name, values in told.items()}
    figures["window_charge"] = window_charge(of_cell, np.flatnonzero(on_day), step_s, window_V[k])
    before = np.flatnonzero(on_day)[0] - 1
    for name, of in (("cycles", "charge_cycles"), ("distance", "distance_traveled")):
        figures[name] = at[of][-1] - told[of][before, k] if before >= 0 else np.nan
    return figures | {name: at[name][-1] for name in ("resistance_25", "soh", "charge_cycles", "distance_traveled")}


def test_a_day_is_what_telemetry_of_every_step_says(cycles: Cycles) -> None:
    """Ideal sensors, 2.5 days from 13:00 UTC in eight cities, so each local day begins at another step."""
    fleet = stepped(cycles)
    told = fleet.advance(5 * STEPS // 2, 1)
    rows = ordered(fleet.daily())
    offset = np.array([city.utc_offset_s for city in CITIES])[drawn().city]
    assert np.unique(offset).size > 4
    end_s = START_S + STEP_S * np.arange(1, 1 + 5 * STEPS // 2)
    checked = passed = 0
    at = {cell: cell_model(load_cell(cell)) for cell in BOTH}
    population = drawn()
    window_V = [window_of(at[population.cells[cell]]) for cell in population.cell]
    for row in range(rows["day"].size):
        k, day = int(rows["vehicle"][row]), int(rows["day"][row])
        local = end_s + offset[k]
        on_day = (local > DAY * day) & (local <= DAY * (day + 1))
        for name, expected in counted(told, k, on_day, STEP_S, window_V).items():
            if not np.isnan(expected):
                # Telemetry has power in steps of 0.1 W, over a day up to 1.2 Wh, and current in steps of 1 mA.
                within = {"energy": 1.2e-3, "current": 6e-4}.get(name.split("_")[0], 2e-5)
                assert rows[name][row] == pytest.approx(expected, rel=1e-4, abs=within), (name, k, day)
                checked += 1
                passed += name == "window_charge" and expected > 0.0
        first = on_day[0]
        assert hours(rows)[row] == pytest.approx(np.sum(on_day) * STEP_S / 3600.0 if first else 24.0, rel=1e-5)
        assert rows["lived"][row] == 1
    assert checked > 20 * 60
    assert passed >= 5
    assert rows["day"].size == sum(
        (MIDNIGHT + 13 * 3600 + round(2.5 * DAY) + o) // DAY - (START_S + o) // DAY for o in offset
    )


def test_looks_are_reports(cycles: Cycles) -> None:
    """With sensors that err, each day's extremes are those of the telemetry at its minutes, noise and all."""
    fleet = stepped(cycles, sensors="typical")
    told = fleet.advance(2 * STEPS, MINUTE)
    rows = ordered(fleet.daily())
    offset = np.array([city.utc_offset_s for city in CITIES])[drawn().city]
    end_s = START_S + 60.0 * np.arange(1, 1 + told["soc"].shape[0])
    for row in range(rows["day"].size):
        k, day = int(rows["vehicle"][row]), int(rows["day"][row])
        at = (end_s + offset[k] > DAY * day) & (end_s + offset[k] <= DAY * (day + 1))
        assert rows["soc_min"][row] == np.float32(told["soc"][at, k].min())
        assert rows["soc_mean"][row] == pytest.approx(told["soc"][at, k].mean(), rel=1e-5)
        assert rows["temperature_max"][row] == np.float32(told["cell_temperature_max"][at, k].max())
        assert rows["soh"][row] == told["soh"][at, k][-1]
        assert rows["charge_cycles"][row] == told["charge_cycles"][at, k][-1]


def test_counted_figures_carry_the_gains_of_the_sensors(cycles: Cycles) -> None:
    # Deliveries that charge until they are full: what is counted does not decide where charging ends.
    who = replace(drawn(), use=np.ones(30, dtype=np.int64), soc_limit=np.ones(30))
    right, wrong = (
        FleetPhysics(who, cycles=cycles, start_s=START_S, step_s=STEP_S, sensors=PROFILES[name], daily=True)
        for name in ("ideal", "poor")
    )
    for fleet in (right, wrong):
        fleet.advance(2 * STEPS, 2 * STEPS)
    volts, amperes = np.ones(30), np.ones(30)
    for group in wrong._groups:
        volts[group.of], amperes[group.of] = 1.0 + group.row(V_GAIN), 1.0 + group.row(A_GAIN)
    one, other = ordered(right.daily()), ordered(wrong.daily())
    for names, gain in (
        (("energy_out", "energy_charged", "energy_recuperated"), volts * amperes),
        (("cycles", "current_out_max", "current_in_max"), amperes),
        (("distance", "time_driving", "time_charging"), np.ones(30)),
    ):
        for name in names:
            assert other[name] == pytest.approx(one[name] * gain[one["vehicle"]], rel=1e-5, abs=1e-6), name
    assert np.abs(amperes - 1.0).max() > 0.005


def test_a_step_that_divides_no_minute(cycles: Cycles) -> None:
    """Days end with the first step that reaches midnight, also next to vehicles of other cities."""
    options: dict[str, Any] = {"start_s": START_S + 17, "step_s": 7.0}
    whole, alone = stepped(cycles, **options), stepped(cycles, [11], **options)
    for fleet in (whole, alone):
        fleet.advance(2 * DAY // 7, 600)
    rows = ordered(whole.daily())
    assert_same(of_vehicles(rows, [11]), ordered(alone.daily()))
    full = rows["day"] > rows["day"].min() + 1
    assert np.all(np.abs(hours(rows)[full] - 24.0) <= 7.0 / 3600.0 + 1e-4)


# --- both kinds of fleet ----------------------------------------------------------------------------------------------


@pytest.fixture(params=[stepped, lives])
def make(request: pytest.FixtureRequest) -> Any:
    return request.param


def ahead(fleet: FleetPhysics, days: int) -> Columns:
    ticks = fleet.day_ticks if isinstance(fleet, FleetLives) else STEPS
    return fleet.advance(days * ticks, ticks)


def span(fleet: FleetPhysics) -> int:
    return 40 if isinstance(fleet, FleetLives) else 4


def test_neither_shards_nor_calls_nor_snapshots_matter(cycles: Cycles, make: Any) -> None:
    whole = make(cycles)
    ahead(whole, span(whole))
    expected = ordered(whole.daily())
    for vehicles, cuts in (([0], [1]), ([3, 29], [2, 1]), (range(30), [1, 1, 2])):
        fleet, parts, left = make(cycles, vehicles), [], span(whole)
        for cut in (*cuts, left - sum(cuts)):
            ahead(fleet, cut)  # in steps this is 13:00 UTC, in the middle of each local day
            parts.append(fleet.daily())
            saved, fleet = fleet.snapshot(), make(cycles, vehicles)
            fleet.restore(saved)
        assert_same(of_vehicles(expected, list(vehicles)), ordered(*(part for part in parts)))


def test_counting_changes_nothing_and_takes_nothing_when_off(cycles: Cycles, make: Any) -> None:
    counting, plain = make(cycles), make(cycles, daily=False)
    assert_same(ahead(counting, span(plain)), ahead(plain, span(plain)))
    assert np.array_equal(counting.snapshot()["blocks"], plain.snapshot()["blocks"])
    assert counting.bytes_a_vehicle == plain.bytes_a_vehicle
    assert set(plain.snapshot()) == {"tick", "blocks"} | ({"lives"} if isinstance(plain, FleetLives) else set())
    with pytest.raises(ValueError, match="daily=True"):
        plain.daily()
    with pytest.raises(ValueError, match="snapshot"):
        plain.restore(counting.snapshot())


def test_a_fork_goes_on_with_the_day_under_way(cycles: Cycles, make: Any) -> None:
    fleet = make(cycles)
    ahead(fleet, 2)
    fork = fleet.fork(of=[2, 7, 29])
    assert fork.daily()["day"].size == 0
    ahead(fleet, 3)
    ahead(fork, 3)
    assert_same(of_vehicles(ordered(fleet.daily()), [2, 7, 29]), ordered(fork.daily()))


# --- lives ------------------------------------------------------------------------------------------------------------


def test_days_of_lives_agree_with_those_in_steps(cycles: Cycles) -> None:
    """The same days of the same vehicles, three weeks. A life begins parked: the first day does not count."""
    who = range(24)
    fine = stepped(cycles, who, start_s=MIDNIGHT, step_s=2.0)
    fine.advance(22 * DAY // 2, DAY // 2)
    coarse = lives(cycles, who, longest_jump=0, drive_step_s=2.0, sensors=PROFILES["ideal"])
    ahead(coarse, 22)
    one, other = ordered(fine.daily()), ordered(coarse.daily())
    first = max(one["day"].min(), other["day"].min()) + 2
    last = min(one["day"].max(), other["day"].max()) - 1
    one, other = (
        {name: v[(rows["day"] >= first) & (rows["day"] <= last)] for name, v in rows.items()} for rows in (one, other)
    )
    assert_same({name: one[name] for name in KEYS}, {name: other[name] for name in KEYS})
    assert one["day"].size > 24 * 17
    for name, most in (
        ("cycles", 0.03), ("distance", 1e-3), ("energy_out", 0.02), ("energy_charged", 0.04),
        ("energy_recuperated", 0.02), ("time_parked", 0.01), ("time_driving", 5e-3), ("time_charging", 0.04),
        ("soc_mean", 0.02), ("soc_min", 0.03), ("soc_max", 0.02), ("current_out_max", 0.03), ("current_in_max", 0.03),
    ):  # fmt: skip
        assert other[name].sum() == pytest.approx(one[name].sum(), rel=most), name
    for name in ("temperature_min", "temperature_mean", "temperature_max"):
        assert np.abs(other[name] - one[name]).mean() < 1.0, name
    assert np.median(np.abs(other["cell_voltage_spread"] - one["cell_voltage_spread"])) < 0.002
    assert other["lived"].all()


def test_skipped_days_are_like_the_nearer_lived_one_and_counters_run_on(cycles: Cycles) -> None:
    fleet = lives(cycles, end_soh=0.5)
    told = ahead(fleet, 150)
    rows = ordered(fleet.daily())
    shape = (30, 150)
    lived = rows["lived"].reshape(shape) == 1
    assert 30 < lived.sum() < 0.4 * lived.size
    assert fleet.days_lived - lived.sum() >= 0  # some have lived a day ahead of the tick; others jumped back
    for name in ("soh", "charge_cycles", "distance_traveled"):
        assert np.array_equal(rows[name].reshape(shape), told[name].T), name
    counted = [column.name for column in DAILY if column.how not in ("key", "end")]
    for k in range(30):
        days = np.flatnonzero(lived[k])
        for day in range(days[-1]):
            apart = np.abs(days - day)
            near = days[np.flatnonzero(apart == apart.min())[-1]]  # the later one of two
            for name in counted:
                assert rows[name].reshape(shape)[k, day] == rows[name].reshape(shape)[k, near], name
    assert hours(rows) == pytest.approx(24.0, abs=1e-4)


def test_a_lived_day_does_not_count_the_mending_of_its_jump(cycles: Cycles) -> None:
    """Distance and cycles of a lived day are those that the same day has in a life without jumps."""
    jumped, full = lives(cycles), lives(cycles, longest_jump=0)
    for fleet in (jumped, full):
        ahead(fleet, 60)
    one, other = ordered(jumped.daily()), ordered(full.daily())
    lived = one["lived"] == 1
    full_power = lived & (np.minimum(one["soc_min"], other["soc_min"]) > 0.1)  # near empty, speed is held back
    assert full_power.sum() > 0.9 * lived.sum()
    assert one["distance"][full_power] == pytest.approx(other["distance"][full_power], rel=1e-6)
    drives = other["distance"] > 10.0
    ratio = one["cycles"][lived & drives] / other["cycles"][lived & drives]
    assert np.median(np.abs(ratio - 1.0)) < 0.1


def test_no_day_after_the_end(cycles: Cycles) -> None:
    fleet = lives(cycles, end_soh=0.97)
    ahead(fleet, 200)
    ends, rows = fleet.ends(), ordered(fleet.daily())
    assert (ends["reason"] == "capacity").sum() > 3
    days = np.bincount(rows["vehicle"], minlength=30)
    assert np.array_equal(days, np.where(np.isnan(ends["day"]), 200, np.floor(ends["day"])))
