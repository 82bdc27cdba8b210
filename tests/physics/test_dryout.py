"""Drying out: the law, the kernel against its slow twin, lives with and without it, jumps past the knee."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from physics import PROFILES, FleetLives, Population, draw_population, load_cell, simulate_cell
from physics.cell import rested_block
from physics.constants import FARADAY
from physics.dryout import ENDLESS, WETTED_MIN, wetted_share
from physics.layout import LANES
from physics.modal import CellModel, cell_model
from physics.parameters import CellParameters
from tests.physics.naive import NaiveCell

MIDNIGHT = 1_767_225_600
DAY = 86_400
MODEL = cell_model(load_cell("chen2020"))
FRESH = MODEL.sei_initial / MODEL.sei_length
Cycles = list[np.ndarray]


def begins(model: CellModel, reserve: float) -> float:
    """Film at which a cell begins to dry that has lost no material [C/m2]."""
    return model.sei_initial / model.sei_length + reserve / model.film_dries


def test_the_share_is_the_balance_of_liquid_and_pores() -> None:
    """In numbers of the cell's file: film fills pores and uses liquid, and lost material takes up its own volume."""
    cell = load_cell("chen2020")
    n, p, law = cell.negative, cell.positive, cell.dry_out
    assert law is not None
    pores = n.thickness_m * n.porosity + p.thickness_m * p.porosity
    pores += cell.separator_thickness_m * cell.separator_porosity
    mole = 20_000.0 / FARADAY  # of lithium in the film, per m2
    lost_n, lost_p = 0.08, 0.2
    film = mole * cell.sei.molar_volume_m3_mol / cell.sei.lithium_per_mole
    liquid = pores * (1.0 + law.reserve) - film - mole * law.volume_m3_mol
    liquid -= law.per_lost_material * lost_n * n.thickness_m * n.active_fraction
    liquid -= law.per_lost_material * lost_p * p.thickness_m * p.active_fraction
    share = wetted_share(FRESH + 20_000.0, 1.0 - lost_n, 1.0 - lost_p, law.reserve, MODEL)
    assert share == pytest.approx(liquid / (pores - film), rel=1e-9)
    assert 0.5 < share < 0.95


def test_only_what_has_a_law_and_no_reserve_left_dries() -> None:
    begin = begins(MODEL, 0.25)
    assert wetted_share(begin * 0.999, 1.0, 1.0, 0.25, MODEL) == 1.0
    assert wetted_share(begin * 1.01, 1.0, 1.0, 0.25, MODEL) < 1.0
    assert wetted_share(begin * 0.999, 0.99, 1.0, 0.25, MODEL) < 1.0
    assert wetted_share(begin * 0.999, 1.0, 0.99, 0.25, MODEL) < 1.0
    assert wetted_share(1e9, 0.1, 0.1, 0.25, MODEL) == WETTED_MIN
    assert wetted_share(1e9, 0.1, 0.1, ENDLESS, MODEL) == 1.0
    okane = cell_model(load_cell("okane2022"))
    assert wetted_share(1e9, 0.1, 0.1, okane.dry_reserve, okane) == 1.0
    films = np.linspace(0.0, 2.0 / MODEL.film_fills, 500)
    shares = np.array([wetted_share(q, 1.0, 1.0, 0.1, MODEL) for q in films])
    assert np.all(np.diff(shares) <= 0.0)


def scarce(reserve: float = 0.1, **sei: float) -> CellParameters:
    """chen2020 with little electrolyte."""
    cell = load_cell("chen2020")
    assert cell.dry_out is not None
    return replace(cell, dry_out=replace(cell.dry_out, reserve=reserve), sei=replace(cell.sei, **sei))


def test_a_dry_cell_is_a_smaller_cell() -> None:
    """Its share of the current does to it what the whole current does to a cell that is all wet; so its SoH falls."""
    cell = scarce()
    model = cell_model(cell)
    film = 1.3 * begins(model, 0.1) * model.sei_length
    share = wetted_share(film / model.sei_length, 1.0, 1.0, 0.1, model)
    assert 0.8 < share < 0.97
    amperes = np.full(600, 2.0)
    whole = simulate_cell(cell, amperes, sei_thickness_m=film, dry_out=False)
    part = simulate_cell(cell, amperes * share, sei_thickness_m=film)
    assert part.soh == pytest.approx(whole.soh * share, rel=1e-4)
    assert part.stoichiometry_n == pytest.approx(whole.stoichiometry_n, abs=1e-4)
    assert part.voltage_V == pytest.approx(whole.voltage_V, abs=1e-3)


def test_kernel_equals_the_slow_reference_where_it_is_dry() -> None:
    """The film grows a thousand times too fast, so that the share falls while it runs."""
    cell = scarce(rate_m_s=1e-12, ec_diffusivity_m2_s=1e-16)
    model = cell_model(cell)
    film = begins(model, 0.1) * model.sei_length * 0.999
    current = np.repeat(np.random.default_rng(7).uniform(-3.0, 6.0, 60), 10)
    run = simulate_cell(cell, current, initial_soc=0.8, sei_thickness_m=film)
    block = rested_block(model, soc=0.8, temperature_C=25.0, sei_thickness_m=film).reshape(-1, LANES)
    slow = NaiveCell(
        model, 1.0, block[0, 0], block[1, 0], 298.15, 298.15, film / model.sei_length, reserve=model.dry_reserve
    )
    voltage = np.array([slow.step(float(amperes)) for amperes in run.current_A])
    assert slow.share_that_is_wet() < 0.999
    assert run.voltage_V == pytest.approx(voltage, abs=1e-9)
    assert run.stoichiometry_n[-1] == pytest.approx(slow.x_n, abs=1e-12)


# --- lives ------------------------------------------------------------------------------------------------------------


def beyond(vehicles: int, reserve: float = 0.1, use: str = "commuter") -> Population:
    """Vehicles that begin where a reserve of 0.1 is just used up, half of it by film."""
    who = draw_population(
        5, np.arange(vehicles), "chen2020", use=use, oldest_years=0.0, fault_share=0.0, start_s=MIDNIGHT
    )
    return replace(
        who,
        sei_thickness_m=np.full(vehicles, begins(MODEL, 0.05) * MODEL.sei_length),
        active_p=np.full(vehicles, 1.0 - 0.05 / MODEL.lost_p_dries),
        electrolyte_reserve=np.full(vehicles, reserve),
    )


def test_jumps_past_the_knee_agree_with_every_day(cycles: Cycles) -> None:
    told = []
    for longest in (0, 30):
        fleet = FleetLives(
            beyond(96), cycles=cycles, start_s=MIDNIGHT, drive_step_s=10.0, sensors=PROFILES["ideal"],
            longest_jump=longest,
        )  # fmt: skip
        fleet.advance(240 * DAY, 240 * DAY)
        told.append(fleet.truth_series())
    full, jumped = told
    assert 1.0 - full["wetted"].max() > 1e-4
    assert 1.0 - full["wetted"].mean() > 1e-3
    error = jumped["soh"] - full["soh"]
    assert np.mean(np.abs(error)) < 1e-3
    assert abs(np.mean(error)) < 3e-4
    assert np.mean(jumped["wetted"]) == pytest.approx(np.mean(full["wetted"]), abs=3e-4)


def test_taxis_past_the_knee_agree_on_the_mean_and_more_closely_if_asked(cycles: Cycles) -> None:
    """Drying multiplies what days differ in the loss of material: 1 % of a life's fade, and half of it for a quarter
    of the tolerance. The mean of many lives keeps."""
    told = []
    for options in ({"longest_jump": 0}, {}, {"tolerance": 2.5e-5}):
        fleet = FleetLives(
            beyond(64, use="taxi"), cycles=cycles, start_s=MIDNIGHT, drive_step_s=10.0, sensors=PROFILES["ideal"],
            **options,
        )  # fmt: skip
        fleet.advance(365 * DAY, 365 * DAY)
        told.append(fleet.truth_series())
    full, *jumped = told
    assert 1.0 - np.mean(full["wetted"]) > 0.02
    for lives, most in zip(jumped, (2e-3, 1e-3), strict=True):
        error = lives["soh"] - full["soh"]
        assert np.mean(np.abs(error)) < most
        assert abs(np.mean(error)) < 6e-4


def test_a_jump_is_not_longer_than_its_loss_allows(cycles: Cycles) -> None:
    """Where it dries, the days a vehicle lives in full are more."""
    lived_days = []
    for reserve in (0.1, ENDLESS):
        fleet = FleetLives(
            beyond(32, reserve, "taxi"), cycles=cycles, start_s=MIDNIGHT, drive_step_s=10.0, sensors=PROFILES["ideal"]
        )
        fleet.advance(365 * DAY, 365 * DAY)
        lived_days.append(fleet.days_lived)
    assert lived_days[0] > lived_days[1]


def test_the_draw_of_the_reserve_is_the_cells() -> None:
    who = draw_population(3, np.arange(4000), {"chen2020": 0.5, "okane2022": 0.5}, oldest_years=0.0)
    dry_out = load_cell("chen2020").dry_out
    assert dry_out is not None
    drawn = who.electrolyte_reserve[who.cell == 0]
    assert np.median(drawn) == pytest.approx(dry_out.reserve, rel=0.02)
    assert np.std(np.log(drawn)) == pytest.approx(dry_out.reserve_spread, rel=0.05)
    assert np.all(who.electrolyte_reserve[who.cell == 1] == ENDLESS)
