"""How much of a model's error no model could avoid: other futures of the same vehicles, from their true state on.

Test vehicles are simulated as in the histories up to half of their lives, and from there in pairs: with other days
and other weather, with other owners of the same use (other routes, hours, loads, chargers and habits), and with owners
who charge otherwise. Half of the mean difference between two normal futures, times the square root of two, is what the
best median would err by.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from datasets.drive_cycles import drive_cycle_names, load_drive_cycle
from models.bundle import Bundle
from physics import PROFILES, FleetLives, Policy, draw_population
from physics.default_fleet import CELL_SHARES
from training.evaluate import unseen_vehicles
from training.fit import TARGETS
from training.histories import LONGEST_YEARS, START_S, Histories, HistoryError
from training.labels import label
from training.samples import assemble

Floats = npt.NDArray[np.float64]

FEWEST: Final = 24
FORKED_YEARS: Final = (2.0, 4.0, 8.0, 12.0, 16.0, 22.0)
"""When vehicles are forked: each at the time that is nearest to half of its life."""
KINDS: Final = ("other_days", "other_owner", "other_charging")
OTHER_CHARGING: Final = (Policy(soc_limit=0.7, plug_habit=0.2), Policy(soc_limit=1.0, plug_habit=1.0))
_YEAR_DAYS: Final = 365
_NEAR_DAYS: Final = 200.0


def futures(
    bundle: Bundle, histories: Histories, *, vehicles: int = FEWEST, seed: int = 1, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """The floor in days and cycles beside the model's error on the same vehicles at about the same time."""
    labels = label(histories, bundle.manifest.end_of_life_soh)
    samples = assemble(histories, labels)
    fresh = labels.loc[unseen_vehicles([bundle], histories, samples)]
    worn = fresh.index[(fresh["life_reason"] == "capacity") & (fresh["end_day"] > 3.0 * 365.0)].to_numpy()
    if worn.size < vehicles:
        raise HistoryError(
            f"expected at least {vehicles} vehicles that the model has not seen and that wore out, got {worn.size}"
        )
    chosen = np.sort(np.random.default_rng(seed).permutation(worn)[:vehicles])
    half = 0.5 * labels.loc[chosen, "end_day"].to_numpy()
    when = np.array(FORKED_YEARS)[np.abs(half[:, None] / 365.2425 - np.array(FORKED_YEARS)).argmin(axis=1)]
    told: dict[str, list[tuple[Floats, Floats]]] = {kind: [] for kind in KINDS}
    lives = _lives(histories, chosen)
    for years in FORKED_YEARS:
        lives.advance(_days(lives, years) - lives.tick, lives.day_ticks * _YEAR_DAYS)
        of = np.flatnonzero((when == years) & (lives.ends()["reason"] == "alive"))
        if not of.size:
            continue
        say(f"{of.size} vehicles from year {years:g} on, six futures each")
        told["other_days"].append(_apart(*(_ended(lives.fork(of=of, day_seed=101 + k)) for k in range(2))))
        told["other_owner"].append(_apart(*(_ended(lives.fork(of=of, owner_seed=101 + k)) for k in range(2))))
        told["other_charging"].append(_apart(*(_ended(lives.fork(of=of, policy=one)) for one in OTHER_CHARGING)))
    rows = samples.at(samples.ended).of(chosen)
    at = 365.0 * when[np.searchsorted(chosen, rows.vehicle)]
    near = rows.at(np.abs(rows.day - at) < _NEAR_DAYS)
    facts: dict[str, Any] = {"vehicles": int(sum(days.size for days, _ in told["other_days"]))}
    if not facts["vehicles"]:
        raise HistoryError(f"none of {vehicles} vehicles wore out in both of its futures: expected more --forks")
    for k, target in enumerate(("days", "efc")):
        floors = {kind: float(np.concatenate([part[k] for part in parts]).mean()) for kind, parts in told.items()}
        error = np.abs(bundle.life(target, near.inputs).median - getattr(near, f"rul_{target}"))
        facts[target] = floors | {
            "model": float(error.mean()),
            "left": float(getattr(near, f"rul_{target}").mean()),
        }
    assert set(facts) == {"vehicles", *TARGETS}
    return facts


def _lives(histories: Histories, vehicles: npt.NDArray[np.int64]) -> FleetLives:
    """These vehicles from new, as the histories have them."""
    plan = histories.plan
    population = draw_population(
        plan.seed, vehicles, CELL_SHARES, oldest_years=0.0, fault_share=plan.fault_share, start_s=START_S
    )
    cycles = [load_drive_cycle(name).speed_mps for name in drive_cycle_names()]
    return FleetLives(population, cycles=cycles, start_s=START_S, sensors=PROFILES[plan.sensors], end_soh=plan.end_soh)


def _days(lives: FleetLives, years: float) -> int:
    return lives.day_ticks * _YEAR_DAYS * round(years)


def _ended(fork: FleetLives) -> tuple[Floats, Floats]:
    """(day, cycles) of the ends; NaN of those that have not come to it, or otherwise than by wear."""
    while (fork.ends()["reason"] == "alive").any() and fork.tick < _days(fork, LONGEST_YEARS):
        fork.advance(fork.day_ticks * 4 * _YEAR_DAYS, fork.day_ticks * _YEAR_DAYS)
    ends = fork.ends()
    worn = ends["reason"] == "capacity"
    return np.where(worn, ends["day"], np.nan), np.where(worn, ends["efc"], np.nan)


def _apart(one: tuple[Floats, Floats], other: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    """What the best median of two such futures errs by, in days and cycles, of vehicles that wore out in both."""
    both = np.isfinite(one[0]) & np.isfinite(other[0])
    days, cycles = (np.abs(a - b)[both] / math.sqrt(2.0) for a, b in zip(one, other, strict=True))
    return days, cycles
