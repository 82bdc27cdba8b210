"""Whole lives: whoever else is there, however the span is cut; lithium balances; no value is lost; errors are as asked.

Where the length of a driving step is not what is tested it is 5 s, which is cheap: the comparisons are between lives
with the same step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from physics import FAULTS, Duty, Fault, FleetLives, FleetPhysics, Population, draw_population, load_cell, simulate_life
from physics.climate import CITIES
from physics.default_fleet import USES
from physics.faults import SEVERITIES, SLOTS
from physics.layout import (
    ACTIVE_N,
    ACTIVE_P,
    DEAD,
    LANES,
    PLATED,
    Q_LAM,
    Q_SEI,
    Q_SIDE,
    WEAK_CAPACITY,
    WEAK_SHIFT,
    X_EMPTY,
    X_FULL,
    X_N,
    X_P,
)
from physics.life import EXPOSED, LIVED_DAY, RATE, _evenly, _film
from physics.modal import CellModel, cell_model
from physics.sensors import PROFILES

MIDNIGHT = 1_767_225_600
DAY = 86_400
BOTH = {"chen2020": 0.6, "prada2013": 0.4}
Cycles = list[np.ndarray]
Telemetry = dict[str, np.ndarray]


def drawn(vehicles: Any, cells: Any = BOTH, *, seed: int = 21, **options: Any) -> Population:
    return draw_population(seed, np.asarray(vehicles, dtype=np.int64), cells, start_s=MIDNIGHT, **options)


def lives(population: Population, cycles: Cycles, **options: Any) -> FleetLives:
    return FleetLives(
        population, cycles=cycles, start_s=MIDNIGHT, **{"drive_step_s": 5.0, "sensors": PROFILES["ideal"], **options}
    )


def days(fleet: FleetPhysics, count: int, every: int) -> Telemetry:
    return fleet.advance(count * DAY, every * DAY)


def joined(*parts: Telemetry) -> Telemetry:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def assert_same(one: Telemetry, other: Telemetry, of: Any = slice(None)) -> None:
    """Bit for bit, every column."""
    for name, values in other.items():
        assert np.array_equal(one[name][..., of], values), name


def rows(fleet: FleetPhysics, offset: int) -> np.ndarray:
    """A row of the layout for every lane of every block."""
    return (
        fleet.snapshot()["blocks"]
        .reshape(-1, fleet.snapshot()["blocks"].shape[1] // LANES, LANES)[:, offset // LANES]
        .ravel()
    )


# --- who else is there, how the span is cut ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_hundred(cycles: Cycles) -> tuple[Telemetry, Telemetry]:
    fleet = lives(drawn(range(200), fault_share=0.5), cycles)
    return days(fleet, 90, 10), fleet.truth()


@pytest.mark.parametrize("alone", [[0], [137], [199, 20]])
def test_it_does_not_matter_who_else_is_there(
    cycles: Cycles, two_hundred: tuple[Telemetry, Telemetry], alone: list[int]
) -> None:
    fleet = lives(drawn(alone, fault_share=0.5), cycles)
    assert_same(two_hundred[0], days(fleet, 90, 10), alone)
    assert_same(two_hundred[1], fleet.truth(), alone)


def test_a_span_in_pieces_with_a_restore_between_is_the_same_span(cycles: Cycles) -> None:
    who = drawn(range(60, 75), fault_share=0.5)
    whole = lives(who, cycles)
    expected = days(whole, 400, 1)
    assert expected["soh"].shape == (400, 15)
    pieces = lives(who, cycles)
    first = days(pieces, 30, 1), days(pieces, 7, 1)
    saved = pieces.snapshot()
    other = lives(who, cycles)
    other.restore(saved)
    assert other.tick == 37 * DAY
    assert_same(expected, joined(*first, days(other, 363, 1)))
    assert_same(whole.truth(), other.truth())
    days(pieces, 363, 363)
    pieces.restore(saved)  # back again: the snapshot is a copy
    assert_same(expected, joined(*first, days(pieces, 363, 1)))


@settings(max_examples=6)
@given(cuts=st.lists(st.integers(1, 59), max_size=4, unique=True))
def test_any_cut_of_sixty_days(cycles: Cycles, cuts: list[int]) -> None:
    who = drawn([3, 8], "chen2020", use="commuter")
    whole, pieces = lives(who, cycles), lives(who, cycles)
    ends = [*sorted(cuts), 60]
    parts = [days(pieces, end - begin, 4) for begin, end in zip([0, *ends], ends, strict=False)]
    assert_same(days(whole, 60, 4), joined(*parts))


def test_how_often_one_looks_does_not_matter(cycles: Cycles) -> None:
    who = drawn(range(12), fault_share=0.5)
    assert_same({k: v[29::30] for k, v in days(lives(who, cycles), 120, 1).items()}, days(lives(who, cycles), 120, 30))


# --- lithium, no value lost, monotone ---------------------------------------------------------------------------------


def lithium(fleet: FleetLives, model: CellModel) -> np.ndarray:
    """All lithium of each cell, as charge [C/m2]; the last step's side reactions are counted, but not yet taken."""
    particles = model.q_n * rows(fleet, ACTIVE_N) * rows(fleet, X_N) + model.q_p * rows(fleet, ACTIVE_P) * rows(
        fleet, X_P
    )
    bound = sum(rows(fleet, offset) for offset in (Q_SEI, DEAD, PLATED, Q_LAM))
    return np.asarray(particles + bound - rows(fleet, Q_SIDE))


@pytest.mark.parametrize("cell", ["chen2020", "prada2013"])
def test_lithium_balances_over_jumps(cycles: Cycles, cell: str) -> None:
    fleet = lives(drawn(range(128), cell, oldest_years=8.0), cycles, longest_jump=60, tolerance=1e-3)
    before = lithium(fleet, cell_model(load_cell(cell)))
    days(fleet, 3 * 365, 365)
    assert fleet.days_lived < 0.2 * 128 * 3 * 365  # mostly jumps
    assert lithium(fleet, cell_model(load_cell(cell))) == pytest.approx(before, rel=1e-9)


def alone(values: np.ndarray) -> np.ndarray:
    """In the first of a vehicle's slots for faults, nothing in the others."""
    return np.pad(values[:, None], ((0, 0), (0, SLOTS - 1)))


def extreme(cell: str) -> Population:
    """128 new vehicles: every fault at its worst, every city, every use, films from none to a hundred times as fast."""
    n = 128
    turn = np.arange(n)
    kinds = turn % len(FAULTS)
    worst = np.array([0.0, *(high for _, _, high in SEVERITIES.values())])
    return replace(
        drawn(turn, cell, oldest_years=0.0),
        city=turn % len(CITIES),
        use=(turn // 2) % len(USES),
        sei_scale=np.array([0.0, 0.1, 1.0, 10.0, 100.0])[turn % 5],
        fault=alone(kinds),
        fault_severity=alone(worst[kinds]),
        fault_onset_s=alone(MIDNIGHT + DAY * np.where(turn % 3 == 0, -10.0, 40.0 * turn)),
    )


@pytest.mark.parametrize("cell", ["chen2020", "prada2013"])
def test_thirty_years_of_the_worst_lose_no_value(cycles: Cycles, cell: str) -> None:
    who = extreme(cell)
    fleet = lives(who, cycles, drive_step_s=10.0, longest_jump=365, tolerance=1e-2)
    inventory = lithium(fleet, cell_model(load_cell(cell)))
    told = days(fleet, 30 * 365, 365)
    for name, values in told.items():
        assert np.all(np.isfinite(values)), name
    for name, values in fleet.truth().items():
        if values.dtype == np.float64:
            assert np.all(np.isfinite(values)), name
    assert np.all(np.isfinite(fleet.snapshot()["blocks"]))
    assert told["soh"].min() >= 0.0
    assert (told["soh"][-1] < 0.7).mean() > 0.2  # far past the end of life
    # 1e-6: the Newton step of the limits is good to that. Below a fifth of its capacity a cell is long dead: there
    # its electrodes run out and are held at their ends.
    assert np.diff(told["soh"], axis=0)[told["soh"][:-1] > 0.2].max() <= 1e-6
    alive = (rows(fleet, X_FULL) - rows(fleet, X_EMPTY)) * rows(fleet, ACTIVE_N) > 0.2
    assert lithium(fleet, cell_model(load_cell(cell)))[alive] == pytest.approx(inventory[alive], rel=1e-9)
    assert told["soc"].min() >= 0.0
    assert told["soc"].max() <= 1.0
    for name in ("distance_traveled", "charge_cycles"):
        assert np.all(np.diff(told[name], axis=0) >= 0.0), name
    sound = ~np.isin(who.fault[:, 0], [FAULTS.index(k) for k in ("internal_short", "weak_group", "cell_imbalance")])
    assert told["cell_voltage_min"][:, sound].min() > 1.0
    honest = ~np.isin(who.fault[:, 0], [k for k, name in enumerate(FAULTS) if name.startswith("temperature")])
    assert told["battery_temperature"][:, honest].min() > -45.0
    assert told["battery_temperature"][:, honest].max() < 150.0


@given(film=st.floats(0.0, 1e5))
def test_the_even_form_of_the_film_inverts(film: float) -> None:
    for cell in ("chen2020", "prada2013"):
        model = cell_model(load_cell(cell))
        assert _film(_evenly(film, model), model) == pytest.approx(film, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("town", ["Munich", "Singapore"])
def test_a_vehicle_that_begins_old_is_as_if_it_had_lived(cycles: Cycles, town: str) -> None:
    """Ten years drawn and lived, medians by use and chemistry, where it is cool and where it is hot."""
    city = [c.name for c in CITIES].index(town)
    for use, cell in [(use, cell) for use in USES for cell in ("chen2020", "prada2013")]:
        new = drawn(range(480), cell, use=use, oldest_years=0.0, fault_share=0.0)
        old = drawn(range(4000), cell, use=use, oldest_years=10.0, fault_share=0.0)
        new = new.at(np.flatnonzero(new.city == city))
        old = old.at(np.flatnonzero((old.city == city) & (old.age_years > 9.0)))
        lived = lives(new, cycles, drive_step_s=10.0)
        days(lived, 3650, 3650)
        truth, share = lived.truth(), old.age_years / 10.0
        begun = FleetPhysics(old, cycles=cycles, start_s=MIDNIGHT).truth()
        lost = np.median((1.0 - begun["soh"]) / np.sqrt(share))
        assert lost == pytest.approx(np.median(1.0 - truth["soh"]), abs=0.02), (use, cell)
        assert np.median(begun["distance_km"] / share) == pytest.approx(np.median(truth["distance_km"]), rel=0.2), use


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def a_year(cycles: Cycles) -> Callable[..., tuple[FleetLives, Telemetry]]:
    """A year of 128 commuters, by the options of their lives."""
    done: dict[Any, tuple[FleetLives, Telemetry]] = {}

    def run(**options: Any) -> tuple[FleetLives, Telemetry]:
        key = tuple(sorted(options.items()))
        if key not in done:
            fleet = lives(commuters(), cycles, **options)
            done[key] = fleet, days(fleet, 365, 365)
        return done[key]

    return run


def commuters() -> Population:
    """They charge every evening at once, so that a day's charge hangs on that day's trips."""
    who = drawn(range(128), "chen2020", oldest_years=4.0, fault_share=0.0, use="commuter")
    return replace(who, plug_habit=np.ones(128), charge_from_s=np.full(128, -1.0))


def test_jumped_lives_travel_and_cycle_as_far(a_year: Callable[..., tuple[FleetLives, Telemetry]]) -> None:
    """Charge by distance differs between days, of which a jumped life sees a few: less for many than for one. A short
    day needs more by distance than a long one, which makes the mean of a few days too high by 2 %."""
    (_, jumped), (_, full) = a_year(), a_year(longest_jump=0)
    for name, before in (
        ("distance_traveled", commuters().odometer_km),
        ("charge_cycles", commuters().charge_cycles),
    ):
        one, other = jumped[name][0] - before, full[name][0] - before
        assert np.mean(one) == pytest.approx(np.mean(other), rel=0.025), name
        assert np.median(np.abs(one / other - 1.0)) < 0.04, name
        assert np.max(np.abs(one / other - 1.0)) < 0.18, name


def test_what_a_day_tells_by_distance_does_not_fade_while_a_vehicle_stands(cycles: Cycles) -> None:
    """Many days without trips in a row, as when jumps end on one Saturday after the other, must not leave charges over
    hardly any distance: a vehicle once came to 400 cycles in a month by that."""
    who = drawn(range(64), "chen2020", oldest_years=0.0, fault_share=0.0, use="long_distance")
    fleet = lives(who, cycles, drive_step_s=10.0, longest_jump=0)
    group, kilometres, rates = fleet._groups[0], [], []
    for _ in range(60):
        days(fleet, 1, 1)
        kilometres.append(1e-3 * group.row(EXPOSED + LANES, "lives"))
        rates.append(np.array(group.row(RATE + 5 * LANES, "lives")))  # of throughput, by distance
    later = np.array(rates[28:])
    assert np.min(kilometres[28:]) > 300.0  # 11 if it fades
    assert np.max(later / np.median(later, axis=0)) < 1.35


def test_the_weakest_cell_ages_as_much_in_jumps(a_year: Callable[..., tuple[FleetLives, Telemetry]]) -> None:
    """Its share of lost lithium, of the mean's: a vehicle's own clock may be ahead, both grow by it."""
    (jumped, _), (full, _) = a_year(), a_year(longest_jump=0)
    shares = []
    for fleet in (jumped, full):
        fresh = lives(commuters(), [np.zeros(60)] * 4, longest_jump=0)
        lost = rows(fresh, WEAK_CAPACITY) - rows(fleet, WEAK_CAPACITY)
        shares.append(float(np.mean(lost) / np.mean(rows(fleet, Q_SEI) - rows(fresh, Q_SEI))))
    assert shares[0] == pytest.approx(shares[1], rel=0.25)


def test_imbalance_adds_up_the_same_in_a_jumped_life(cycles: Cycles) -> None:
    """Also where jumps are taken back; and balancing goes on over the days between."""
    who = commuters()
    behind = []
    for options in ({"longest_jump": 0}, {"tolerance": 1e-5}):
        fleet = lives(who, cycles, **options)
        for k in range(128):
            fleet.inject(k, Fault("cell_imbalance", MIDNIGHT + 20.5 * DAY, 0.005))
        days(fleet, 60, 60)
        ahead = np.concatenate([group.beside["lives"][:, LIVED_DAY : LIVED_DAY + LANES] for group in fleet._groups])
        behind.append(-rows(fleet, WEAK_SHIFT) / (ahead.ravel() - 20.5))
    assert np.mean(behind[0]) == pytest.approx(np.mean(behind[1]), rel=0.1)
    assert np.all(behind[0] > 0.0)


def test_a_smaller_tolerance_gives_a_smaller_error(a_year: Callable[..., tuple[FleetLives, Telemetry]]) -> None:
    full = a_year(longest_jump=0)[1]["soh"]
    errors = [
        np.mean(np.abs(a_year(**options)[1]["soh"] - full))
        for options in ({"tolerance": 1e-5, "longest_jump": 8}, {}, {"tolerance": 1e-2, "longest_jump": 120})
    ]
    assert errors[0] < errors[1] < errors[2]
    assert errors[1] < 1e-3  # a tenth of a point


def test_days_in_full_agree_with_the_fleet_at_one_second(cycles: Cycles) -> None:
    """Fade, distance and cycles; the fleet begins plugged in, a life begins parked: the first days do not count."""
    london = [city.name for city in CITIES].index("London")  # its days are those of UTC
    who = drawn(range(64), "chen2020", oldest_years=5.0, fault_share=0.0)
    who = replace(who, city=np.full(64, london))
    fleet = FleetPhysics(who, cycles=cycles, start_s=MIDNIGHT, sensors=PROFILES["ideal"])
    each_second = joined(*(days(fleet, n, n) for n in (2, 12)))
    fleet_of_lives = lives(who, cycles, longest_jump=0, drive_step_s=1.0)
    in_days = joined(*(days(fleet_of_lives, n, n) for n in (2, 12)))
    for name, tolerance in (("soh", 0.03), ("distance_traveled", 1e-3), ("charge_cycles", 0.02)):
        one, other = (np.diff(told[name], axis=0)[0] for told in (in_days, each_second))
        assert np.mean(one) == pytest.approx(np.mean(other), rel=tolerance), name
        assert np.median(np.abs(one / other - 1.0)) < tolerance, name


def test_more_heat_more_aging(cycles: Cycles) -> None:
    """Parked most of the time, full most of the time: the film grows with the warmth of the town."""
    for cell in ("chen2020", "prada2013"):
        fades = []
        for city in ("Munich", "Los Angeles", "Singapore"):
            duty = Duty(use="commuter", city=city, soc_limit=0.9)
            life = simulate_life(cell, 0.5, duty, cycles=cycles, vehicles=8, sample_days=60, drive_step_s=5.0)
            fades.append(1.0 - life.soh[-1])
        assert np.all(fades[0] < fades[1])
        assert np.all(fades[1] < fades[2])


# --- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"years": 0.0}, "years"),
        ({"years": float("nan")}, "years"),
        ({"years": 51.0}, "years"),
        ({"vehicles": 0}, "vehicles"),
        ({"sample_days": 0}, "sample_days"),
        ({"cells": "lead"}, "unknown cell"),
        ({"cells": {}}, "cells"),
        ({"cells": {"chen2020": -1.0}}, "cells"),
        ({"duty": Duty(use="hearse")}, "use"),
        ({"duty": Duty(city="Atlantis")}, "city"),
        ({"duty": Duty(soc_limit=1.2)}, "soc_limit"),
        ({"duty": Duty(soc_limit=float("nan"))}, "soc_limit"),
        ({"duty": Duty(plug_habit=-0.1)}, "plug_habit"),
        ({"seed": -1}, "seed"),
        ({"fault_share": 1.5}, "fault_share"),
        ({"drive_step_s": 0.0}, "step_s"),
        ({"drive_step_s": float("inf")}, "step_s"),
        ({"longest_jump": -1}, "longest_jump"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"tolerance": float("nan")}, "tolerance"),
        ({"cycles": []}, "cycles"),
    ],
)
def test_nonsense_is_refused(cycles: Cycles, bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulate_life(**{"years": 1.0, "cycles": cycles, **bad})


def test_only_whole_days(cycles: Cycles) -> None:
    fleet = lives(drawn([0]), cycles)
    for ticks, every in ((DAY + 1, DAY), (DAY, DAY // 2), (-DAY, DAY), (DAY, 0)):
        with pytest.raises(ValueError, match="expected"):
            fleet.advance(ticks, every)
    with pytest.raises(ValueError, match="divide a day"):
        lives(drawn([0]), cycles, step_s=7.0)
    assert days(fleet, 0, 1)["soh"].shape == (0, 1)


def test_a_snapshot_of_another_kind_is_refused(cycles: Cycles) -> None:
    who = drawn([0])
    stepped = FleetPhysics(who, cycles=cycles, start_s=MIDNIGHT, sensors=PROFILES["ideal"])
    with pytest.raises(ValueError, match="snapshot"):
        lives(who, cycles).restore(stepped.snapshot())


def test_a_fault_is_injected_into_a_life(cycles: Cycles) -> None:
    who = drawn([4, 5], "chen2020", use="commuter", fault_share=0.0)
    fleet, healthy = lives(who, cycles), lives(who, cycles)
    fleet.inject(1, Fault("bad_electrolyte", MIDNIGHT, 3.0))
    ill, well = days(fleet, 200, 50), days(healthy, 200, 50)
    assert np.all(ill["soh"][:, 1] < well["soh"][:, 1])
    assert_same(ill, {name: values[:, 0] for name, values in well.items()}, 0)
    assert fleet.truth()["fault"].tolist() == ["none", "bad_electrolyte"]
