"""Days of four kinds, batteries kept warm and cool, packs held by their weakest cell, chemistries side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from physics import FLAGS, MODES, FleetLives, FleetPhysics, Population, draw_population, load_cell
from physics.climate import CITIES
from physics.default_fleet import USE_SHARES, USES
from physics.duty import LONGEST_TRIP_S, TRIPS, trip
from physics.layout import CURRENT_HIGH, CURRENT_LOW, DT, FAST_POWER, LANES, MODE, PUMP, SPEED, TEMPERATURE, WORK_SIZE
from physics.modal import cell_model
from physics.rng import Keys
from physics.sensors import PROFILES
from physics.vehicle import CHARGING, FAST_CHARGING, ask_cells, refresh_charging

MIDNIGHT = 1_767_225_600
DAY = 86_400
FAST, CHARGE, DRIVE = (MODES.index(name) for name in ("fast_charging", "charging", "driving"))
BOTH = {"chen2020": 0.5, "prada2013": 0.5}
Cycles = list[np.ndarray]
Telemetry = dict[str, np.ndarray]


def of_use(use: str | None, vehicles: int, cells: Any = "chen2020", **changes: Any) -> Population:
    who = draw_population(8, np.arange(vehicles), cells, use=use, oldest_years=4.0, fault_share=0.0)
    columns: dict[str, Any] = {name: np.full(vehicles, value) for name, value in changes.items()}
    return replace(who, **columns)


def run(who: Population, cycles: Cycles, days: int, every: int = 60, start_s: int = MIDNIGHT) -> Telemetry:
    return FleetPhysics(who, cycles=cycles, start_s=start_s, sensors=PROFILES["ideal"]).advance(days * DAY, every)


def city(name: str) -> int:
    return [c.name for c in CITIES].index(name)


# --- plans ------------------------------------------------------------------------------------------------------------


def legs(use: str, vehicle: int, day: int, ticks: np.ndarray) -> list[tuple[float, float]]:
    found = (trip(Keys.of(3), vehicle, USES.index(use), day, which, 1.0, ticks) for which in range(TRIPS))
    return [(begin, end) for begin, end, cycle in found if cycle >= 0]


@pytest.fixture(scope="module")
def ticks(cycles: Cycles) -> np.ndarray:
    return np.array([len(speeds) - 1 for speeds in cycles], dtype=np.int64)


@pytest.mark.parametrize("use", USES)
def test_trips_follow_each_other_within_the_day(ticks: np.ndarray, use: str) -> None:
    for vehicle in range(40):
        for day in range(20_454, 20_454 + 60):
            last = 0.0
            for begin, end in legs(use, vehicle, day, ticks):
                assert last < begin < end
                assert end - begin <= LONGEST_TRIP_S
                last = end
            assert last < 86_400.0


def test_days_off(ticks: np.ndarray) -> None:
    """Shares of days with a trip, of 200 vehicles over four weeks; 20,454 is 2026-01-01, a Thursday."""
    sunday = 20_457
    on = {use: np.zeros(7) for use in USES}
    for use in USES:
        for offset in range(28):
            on[use][offset % 7] += np.mean([bool(legs(use, v, sunday + offset, ticks)) for v in range(200)]) / 4.0
    assert on["delivery"][0] == 0.0  # Sundays
    assert on["delivery"][6] == pytest.approx(0.85, abs=0.05)
    assert on["taxi"] == pytest.approx([0.85, *[0.95] * 6], abs=0.05)
    assert on["long_distance"] == pytest.approx([0.25, *[0.80] * 5, 0.25], abs=0.06)
    assert np.mean(on["commuter"][1:6]) == pytest.approx(0.92 + 0.08 * 0.65, abs=0.03)
    assert np.mean(on["commuter"][[0, 6]]) == pytest.approx(0.65, abs=0.06)


def test_uses_have_their_shares() -> None:
    who = draw_population(8, np.arange(20_000))
    assert np.bincount(who.use, minlength=4) / 20_000 == pytest.approx(list(USE_SHARES.values()), abs=0.01)


@pytest.fixture(scope="module")
def week(cycles: Cycles) -> dict[str, Telemetry]:
    """A week of sixteen vehicles a use, in one fleet."""
    who = replace(of_use(None, 64), use=np.arange(64) // 16)
    told = run(who, cycles, 7, 120)
    return {use: {name: v[:, 16 * k : 16 * k + 16] for name, v in told.items()} for k, use in enumerate(USES)}


def test_uses_differ_in_distance(week: dict[str, Telemetry]) -> None:
    km = {use: float(np.mean(np.ptp(told["distance_traveled"], axis=0)) / 7.0) for use, told in week.items()}
    assert km["commuter"] < km["delivery"] < km["long_distance"] < 600.0
    assert km["taxi"] > 1.8 * km["commuter"]
    assert 20.0 < km["commuter"] < 90.0


def test_taxis_and_long_distance_charge_fast(week: dict[str, Telemetry]) -> None:
    for use, told in week.items():
        fast = (told["mode"] == FAST).any(axis=0)
        if use in ("taxi", "long_distance"):
            assert fast.mean() > 0.7, use
            current = told["battery_current"][told["mode"] == FAST]
            assert current.min() < -60.0  # A, well above a wall box
            assert told["soc"][told["mode"] == FAST].max() < 0.81
        elif use == "delivery":
            assert not fast.any(), use


# --- climate ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("town", "day"), [("Minneapolis", 10), ("Phoenix", 195)])
@pytest.mark.parametrize("cell", ["chen2020", "prada2013"])
def test_no_battery_gets_out_of_hand_in_hard_weather(cycles: Cycles, town: str, day: int, cell: str) -> None:
    who = replace(of_use(None, 64, cell), use=np.arange(64) % 4, city=np.full(64, city(town)))
    told = run(who, cycles, 3, 60, MIDNIGHT + day * DAY)
    air, battery = told["ambient_temperature"], told["battery_temperature"]
    assert battery.min() > air.min() - 1.0
    assert battery.max() < max(air.max(), 32.0) + 15.0
    driving = told["mode"] == DRIVE
    long_on_the_road = (
        driving[60:] & driving[:-60] & (np.cumsum(driving, axis=0)[60:] - np.cumsum(driving, axis=0)[:-60] == 60)
    )
    assert battery[60:][long_on_the_road].min() > -5.0  # an hour of heating
    assert told["soc"].min() >= 0.0
    assert (told["soc"] < 0.05).mean() < 0.02  # few run flat, and not for long
    for values in told.values():
        assert np.all(np.isfinite(values))


@pytest.mark.parametrize("celsius", [-20.0, 45.0])
def test_thermal_management_works_towards_comfort(celsius: float) -> None:
    """A charging battery at -20 or +45 degC: heat is pumped in or out, never the wrong way, and not with no need."""
    pumps = {t: demand(t, CHARGING)[1] for t in (celsius, 20.0)}
    assert pumps[20.0] == 0.0
    assert pumps[celsius] * (20.0 - celsius) > 0.0


def demand(celsius: float, mode: float) -> tuple[float, float]:
    """(largest charging current asked of a cell [A], heat pumped into it [W]) of a half-full battery."""
    model = cell_model(load_cell("chen2020"))
    fleet = FleetPhysics(of_use("taxi", 1, initial_soc=0.5), cycles=[np.zeros(60)], start_s=MIDNIGHT)
    fleet.advance(1, 1)
    block, work = fleet.snapshot()["blocks"][0], np.zeros(WORK_SIZE)
    work[DT : DT + LANES] = 1.0
    block[MODE : MODE + LANES] = mode
    block[SPEED : SPEED + LANES] = 0.0
    block[TEMPERATURE : TEMPERATURE + LANES] = celsius + 273.15
    refresh_charging(block, model)
    ask_cells(block, work, model)
    assert work[CURRENT_HIGH] == 0.0
    amperes = float(block[FAST_POWER]) / 350.0 if mode == FAST_CHARGING else -float(work[CURRENT_LOW])
    return amperes, float(work[PUMP])


@pytest.mark.parametrize("mode", [CHARGING, FAST_CHARGING])
def test_charging_current_falls_with_cold(mode: float) -> None:
    amperes = [demand(celsius, mode)[0] for celsius in (-25.0, -15.0, -5.0, 5.0, 15.0, 25.0, 40.0)]
    assert np.all(np.diff(amperes) >= 0.0)
    assert amperes[0] < 0.1 * amperes[-1]
    assert amperes[0] > 0.0
    assert amperes[-2] == amperes[-1]


def test_fast_charging_falls_with_charge(week: dict[str, Telemetry]) -> None:
    told = week["taxi"]
    fast = (told["mode"] == FAST) & (told["battery_temperature"] > 25.0)
    low, high = (
        told["battery_current"][fast & (told["soc"] > a) & (told["soc"] < b)] for a, b in ((0.3, 0.5), (0.7, 0.8))
    )
    assert np.median(low) < 1.2 * np.median(high) < 0.0


# --- pack -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_days(cycles: Cycles) -> tuple[Population, Telemetry]:
    who = draw_population(12, np.arange(300), BOTH, fault_share=0.0, start_s=MIDNIGHT)
    return who, run(who, cycles, 2, 30)


def test_no_cell_leaves_its_limits(two_days: tuple[Population, Telemetry]) -> None:
    """Each chemistry its own, the weakest and the strongest cell of each pack, to 5 mV."""
    who, told = two_days
    for index, name in enumerate(who.cells):
        model = cell_model(load_cell(name))
        mine = who.cell == index
        assert mine.sum() > 100
        lowest, highest = told["cell_voltage_min"][:, mine], told["cell_voltage_max"][:, mine]
        outside = (lowest < model.voltage_min - 0.005) | (highest > model.voltage_max + 0.005)
        if name == "prada2013":  # empty or full, its voltage is a cliff: there a step's forecast of it can miss
            assert outside.mean() < 1e-4
            assert lowest.min() > model.voltage_min - 0.1
            assert highest.max() < model.voltage_max + 0.02
        else:
            assert not outside.any(), name
    high = told["cell_voltage_max"].max(axis=0)
    assert (
        high[who.cell == who.cells.index("prada2013")].max() < 3.7 < high[who.cell == who.cells.index("chen2020")].min()
    )


def test_the_extremes_enclose_the_mean(two_days: tuple[Population, Telemetry]) -> None:
    who, told = two_days
    series = np.array([cell_model(load_cell(name)).series for name in who.cells])[who.cell]
    mean = told["battery_voltage"] / series
    assert np.all(told["cell_voltage_min"] <= mean + 2e-5)
    assert np.all(told["cell_voltage_max"] >= mean - 2e-5)
    assert np.all(told["cell_temperature_min"] <= told["battery_temperature"])
    assert np.all(told["cell_temperature_max"] >= told["battery_temperature"])


def test_owners_of_lfp_charge_to_full_more_often() -> None:
    full = [np.mean(draw_population(1, np.arange(1000), cell).soc_limit == 1.0) for cell in ("chen2020", "prada2013")]
    assert full == pytest.approx([0.12, 0.6], abs=0.04)


def test_a_timer_holds_a_charge_back_until_its_hour(cycles: Cycles) -> None:
    at_22 = {"city": city("Munich"), "charge_from_s": 79_200.0, "plug_habit": 1.0}
    clock = (np.arange(1, 3 * 1440 + 1) / 60.0 + CITIES[city("Munich")].utc_offset_s / 3600.0) % 24.0
    modes = run(of_use("commuter", 40, **at_22), cycles, 3)["mode"]
    begun = (modes[1:] == CHARGING) & (modes[:-1] != CHARGING)
    hours = np.broadcast_to(clock[1:, None], begun.shape)[begun]
    assert hours.size >= 40
    assert np.all((hours >= 22.0) | (hours <= 6.1))
    assert np.mean(np.abs(hours - 22.0) < 0.1) > 0.8


@pytest.mark.parametrize("charge_from_s", [-1.0, 3600.0])
def test_lives_charge_when_seconds_do(cycles: Cycles, charge_from_s: float) -> None:
    """Charge at the end of a working day, with a timer at one o'clock or without."""
    who = of_use("delivery", 40, city=city("London"), charge_from_s=charge_from_s, soc_limit=0.8)
    lives, seconds = (
        of(who, cycles=cycles, start_s=MIDNIGHT, sensors=PROFILES["ideal"]) for of in (FleetLives, FleetPhysics)
    )
    by_lives, by_seconds = (
        np.median([f.advance(DAY, DAY)["soc"].mean() for _ in range(6)][1:]) for f in (lives, seconds)
    )
    assert by_lives == pytest.approx(by_seconds, abs=0.05)
    assert by_seconds > 0.78 if charge_from_s < 0.0 else by_seconds < 0.7


def test_a_weaker_pack_stops_charging_earlier(cycles: Cycles) -> None:
    """The strongest-voltage cell, not the mean, ends a charge to the brim."""
    full = {"soc_limit": 1.0, "initial_soc": 0.9, "plug_habit": 1.0}
    even, uneven = (
        run(of_use("commuter", 16, **full, weak_capacity=capacity, weak_resistance=0.0), cycles, 1)
        for capacity in (0.0, -0.05)
    )
    assert np.mean(uneven["soc"].max(axis=0)) < np.mean(even["soc"].max(axis=0))
    assert uneven["cell_voltage_max"].max() <= 4.205


def test_two_chemistries_in_shards_are_the_same_vehicles(cycles: Cycles) -> None:
    indices = np.arange(260)
    whole = FleetPhysics(draw_population(4, indices, BOTH, fault_share=0.3), cycles=cycles, start_s=MIDNIGHT + 6 * 3600)
    expected = whole.advance(2 * 3600, 60)
    for part in (indices[:1], indices[1:130], indices[130:][::-1], indices[::7]):
        shard = FleetPhysics(
            draw_population(4, part, BOTH, fault_share=0.3), cycles=cycles, start_s=MIDNIGHT + 6 * 3600
        )
        for name, values in shard.advance(2 * 3600, 60).items():
            assert np.array_equal(expected[name][:, part], values), name
        for name, values in shard.truth().items():
            assert np.array_equal(whole.truth()[name][part], values), name


def test_nothing_fails_without_a_fault(two_days: tuple[Population, Telemetry]) -> None:
    assert not np.any(two_days[1]["flags"] & FLAGS["thermal_runaway"])
