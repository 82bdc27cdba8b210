"""A pack as its mean cell with two deviations, against all of its cell groups: voltage of the lowest and the highest.

The profile starts at 90 % charge: hours of driving with 1C peaks (80 points down), rest, C/2 up again, rest. Groups are
drawn from `Pack`, new or with five times the spread. The representative runs as in a fleet: with expected extremes,
updated every 10 s. It takes a warmer group's lower resistance from the activation energy of conductivity alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from physics import Pack, load_cell
from physics.groups import GroupsResult, PackResult, simulate_groups, simulate_pack
from physics.layout import LANES
from physics.modal import CellModel, cell_model
from physics.pack import group_scales
from training.validation.electrical import rms
from training.validation.reference import FloatArray, drive_like_profile

COOLING = 0.15  # heat transfer of a cell in a pack, relative to a single one
SEED: Final = 1


@dataclass(frozen=True)
class PackCase:
    """Which cell, how cold, how uneven."""

    cell: str
    ambient_C: float
    spread: float
    """In spreads of a new pack."""
    hot_share: float
    """Additional rise of the warmest group, as a share of the mean's rise over air; the coolest rises less by it."""


CASES: Final = (
    PackCase("chen2020", 25.0, 1.0, 0.0),
    PackCase("chen2020", 25.0, 1.0, 0.25),
    PackCase("chen2020", 25.0, 5.0, 0.0),
    PackCase("chen2020", 0.0, 1.0, 0.0),
    PackCase("chen2020", 0.0, 1.0, 0.25),
    PackCase("prada2013", 25.0, 1.0, 0.0),
    PackCase("prada2013", 25.0, 1.0, 0.25),
)


@dataclass(frozen=True)
class PackRow:
    """Representative against all groups [mV]. `apart` is the distance of the extremes from the mean cell, RMS."""

    cell: str
    ambient_C: float
    spread: float
    hot_share: float
    groups: int
    low_apart_mV: float
    low_rmse_mV: float
    low_largest_mV: float
    high_apart_mV: float
    high_rmse_mV: float
    high_largest_mV: float
    cost_ratio: float
    """Computing time of all groups of a pack over that of its representative."""


def packs(*, quick: bool, say: Callable[[str], None]) -> list[PackRow]:
    """All rows (quick: the first two)."""
    rows = []
    for case in CASES[:2] if quick else CASES:
        say(f"a pack of {case.cell} at {case.ambient_C:g} degC, spread times {case.spread:g}, {_heat(case.hot_share)}")
        rows.append(_row(case))
    return rows


def profile(model: CellModel) -> FloatArray:
    """Current of one cell, every second [A]."""
    nominal = model.nominal_Ah
    _, drive = drive_like_profile(peak_A=nominal)
    drive = np.tile(drive[1:], 20)
    drive = drive[: np.searchsorted(np.cumsum(drive), 0.8 * 3600.0 * nominal)]
    return np.concatenate([drive, np.zeros(600), np.full(int(0.78 * 7200), -0.5 * nominal), np.zeros(600)])


def _row(case: PackCase) -> PackRow:
    model = cell_model(load_cell(case.cell))
    series, parallel = int(model.series), int(model.parallel)
    new = Pack()
    pack = Pack(capacity_sd=case.spread * new.capacity_sd, resistance_sd=case.spread * new.resistance_sd)
    capacity, resistance = group_scales(pack, series, parallel, SEED)
    places = np.random.default_rng(SEED).permutation(np.linspace(-1.0, 1.0, series))
    weak = pack.extremes(series, parallel)
    current = profile(model)

    def all_groups(amperes: FloatArray) -> GroupsResult:
        return simulate_groups(
            case.cell,
            amperes,
            capacity,
            resistance,
            case.hot_share * places,
            ambient_C=case.ambient_C,
            cooling_scale=COOLING,
        )

    def representative(amperes: FloatArray) -> PackResult:
        return simulate_pack(
            case.cell,
            amperes,
            weak,
            (-weak[0], -weak[1]),
            hot_share=case.hot_share,
            ambient_C=case.ambient_C,
            cooling_scale=COOLING,
        )

    all_groups(current[:1])  # compile
    representative(current[:1])
    every, every_s = _timed(all_groups, current)
    one, one_s = _timed(representative, current)
    low, high = 1e3 * every.voltage_V.min(axis=1), 1e3 * every.voltage_V.max(axis=1)
    middle = 1e3 * one.voltage_V
    low_error, high_error = 1e3 * one.lowest_V - low, 1e3 * one.highest_V - high
    return PackRow(
        case.cell,
        case.ambient_C,
        case.spread,
        case.hot_share,
        series,
        rms(low - middle),
        rms(low_error),
        float(np.abs(low_error).max()),
        rms(high - middle),
        rms(high_error),
        float(np.abs(high_error).max()),
        every_s / (one_s / LANES),  # a block holds 128 packs
    )


def _timed[Result](run: Callable[[FloatArray], Result], current: FloatArray) -> tuple[Result, float]:
    """The result and the best of three times [s]."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        result = run(current)
        times.append(time.perf_counter() - began)
    return result, min(times)


def _heat(share: float) -> str:
    return f"warmest {share:.0%} warmer" if share else "equally warm"


def as_text(rows: list[PackRow]) -> list[str]:
    """One table."""
    if not rows:
        return []
    lines = [
        "A pack's weakest and strongest group as deviations of its mean cell, against all groups [mV]",
        "(apart: from the mean cell, RMS; cost: all groups over representative)",
        "",
        f"{'':<51} {'lowest cell':^21}  {'highest cell':^21}",
        f"{'cell, ambient, spread, heat':<44} {'groups':>6} {'apart':>7} {'RMSE':>6} {'max':>6}"
        f"  {'apart':>7} {'RMSE':>6} {'max':>6} {'cost':>6}",
    ]
    for r in rows:
        name = f"{r.cell}, {r.ambient_C:g} degC, x{r.spread:g}, {_heat(r.hot_share)}"
        lines.append(
            f"{name:<44} {r.groups:6d} {r.low_apart_mV:7.2f} {r.low_rmse_mV:6.2f} {r.low_largest_mV:6.1f}"
            f"  {r.high_apart_mV:7.2f} {r.high_rmse_mV:6.2f} {r.high_largest_mV:6.1f} {r.cost_ratio:6.0f}"
        )
    return ["\n".join(lines)]
