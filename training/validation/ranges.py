"""Range against outside temperature as telematics see it: energy a kilometre of a fleet's trips, in bins of the air.

The default fleet drives two days of January, April, July and October in its eight cities. Of each vehicle model and
each bin of `BIN_K`, energy at the pack and distance while driving are summed; range is the inverse of their ratio,
relative to the bin of 20 degC. So the figure has what a fleet has: cold starts, cabins, heaters, winter air and tyres,
all mixes of uses; the capacity of a cold cell is not in it.

Published:

Geotab 2020    5.2 million trips of 4,200 vehicles, "To what degree does temperature impact EV range?": at -15 degC 54 %
               of the rated range, at 21.5 degC, the best, 115 %, from 10 to 30 degC at least 100 %
AAA 2019       five cars on a dynamometer in city traffic, cabin at 22 degC, "Electric Vehicle Range Testing": -41 % at
               -7 degC, -17 % at 35 degC, against 24 degC
CAA 2025       thirteen cars on a winter road, Ottawa to Mont Tremblant at -7 to -15 degC: -14 to -39 %
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np
import numpy.typing as npt

from datasets.drive_cycles import drive_cycle_names, load_drive_cycle
from physics import FleetPhysics, draw_population
from physics.columns import MODES
from physics.default_fleet import CELL_SHARES, MODELS

MONTHS: Final = (1, 4, 7, 10)
BIN_K: Final = 5.0
MIDDLES: Final = tuple(float(middle) for middle in range(-15, 36, 5))
REFERENCE: Final = MIDDLES.index(20.0)
FEWEST_KM: Final = 50.0
"""A model's bin with less driven in it is not told."""
_EVERY_S: Final = 10


@dataclass(frozen=True)
class Published:
    """What others measured: range relative to the best, from low to high."""

    source: str
    air_C: tuple[float, float]
    low: float
    high: float


PUBLISHED: Final = (
    Published("Geotab 2020", (-15.0, -15.0), 0.54 / 1.15, 0.54 / 1.15),
    Published("AAA 2019", (-7.0, -7.0), 0.59, 0.59),
    Published("CAA 2025", (-15.0, -7.0), 0.61, 0.86),
    Published("Geotab 2020", (10.0, 30.0), 1.0 / 1.15, 1.0),
    Published("AAA 2019", (35.0, 35.0), 0.83, 0.83),
)


@dataclass(frozen=True)
class Ranges:
    """Of each vehicle model, and of all (`fleet`): Wh a km in each bin of MIDDLES, NaN where too little was driven."""

    Wh_km: dict[str, tuple[float, ...]]

    def relative(self, model: str) -> npt.NDArray[np.float64]:
        """Range relative to that at 20 degC, shape (bins,)."""
        used = np.array(self.Wh_km[model])
        return np.asarray(used[REFERENCE] / used)

    def at(self, air_C: tuple[float, float]) -> tuple[float, float]:
        """Least and most range of the fleet between two temperatures, interpolated; NaN where none of it was driven."""
        told = self.relative("fleet")
        known = np.isfinite(told)
        if not known.any():
            return math.nan, math.nan
        values = np.interp(
            np.linspace(*air_C, 21), np.array(MIDDLES)[known], told[known], left=math.nan, right=math.nan
        )
        values = values[np.isfinite(values)]
        return (float(values.min()), float(values.max())) if values.size else (math.nan, math.nan)


def drive_all_year(vehicles: int = 1200, days: int = 2, months: Sequence[int] = MONTHS, seed: int = 5) -> Ranges:
    """The table, from so many vehicles on so many days of each month."""
    cycles = [load_drive_cycle(name).speed_mps for name in drive_cycle_names()]
    bins = len(MIDDLES)
    kWh, km = np.zeros((len(MODELS), bins)), np.zeros((len(MODELS), bins))
    for month in months:
        start_s = int(datetime(2026, month, 13, tzinfo=UTC).timestamp())
        who = draw_population(seed, np.arange(vehicles), CELL_SHARES, start_s=start_s, oldest_years=0.0)
        fleet = FleetPhysics(who, cycles=cycles, start_s=start_s)
        for _ in range(24 * days):
            told = fleet.advance(3600, _EVERY_S, compact=True)
            where = np.rint((told["ambient_temperature"] - MIDDLES[0]) / BIN_K).astype(np.int64)
            counted = (told["mode"] == MODES.index("driving")) & (where >= 0) & (where < bins)
            key = (np.broadcast_to(who.model, where.shape)[counted], where[counted])
            np.add.at(kWh, key, told["power_consumption"][counted] * (_EVERY_S / 3600.0))
            np.add.at(km, key, told["driving_speed"][counted] * (_EVERY_S / 3600.0))
    kWh, km = np.vstack([kWh, kWh.sum(axis=0)]), np.vstack([km, km.sum(axis=0)])
    used = np.where(km >= FEWEST_KM, 1e3 * kWh / np.maximum(km, FEWEST_KM), np.nan)
    return Ranges({name: tuple(row.tolist()) for name, row in zip((*MODELS, "fleet"), used, strict=True)})


def render_ranges(ranges: Ranges) -> str:
    """The table as text."""

    def text(values: Sequence[float], digits: int) -> str:
        return "".join(f"{value:7.{digits}f}" if np.isfinite(value) else f"{'':>7}" for value in values)

    lines = [
        "Energy a kilometre against outside air: what the default fleet uses on the road, Wh/km",
        "",
        f"{'degC':<12}" + text(MIDDLES, 0),
        *(f"{name:<12}" + text(used, 0) for name, used in ranges.Wh_km.items()),
        "",
        "Range relative to that at 20 degC",
        "",
        f"{'fleet':<12}" + text(ranges.relative("fleet").tolist(), 2),
        "",
        f"{'published':<14} {'degC':>12} {'range':>12} {'ours':>12}",
    ]
    for one in PUBLISHED:
        low, high = ranges.at(one.air_C)
        lines.append(
            f"{one.source:<14} {_span(*one.air_C, 0):>12} {_span(one.low, one.high, 2):>12} {_span(low, high, 2):>12}"
        )
    return "\n".join(lines)


def _span(low: float, high: float, digits: int) -> str:
    if math.isnan(low):
        return "not driven"
    return f"{low:.{digits}f}" if low == high else f"{low:.{digits}f} to {high:.{digits}f}"
