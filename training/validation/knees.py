"""Do lives have knees, where, and by what? New vehicles of the default fleet, lived to a true SoH of 0.7 and beyond.

A life's fade is measured per equivalent full cycle (EFC), in windows of two points of SoH from 0.98 down to 0.70. Its
knee is the SoH from which on, and until 0.70, it fades faster than one and a half times its slowest window before; that
must be two windows at least. What made it is the loss that grew most from the slowest window to those behind the knee:
area that fell dry, lithium in the film, dead lithium, or active material (the electrode that loses more).

A life that ends by a fault or is stopped before 0.70 does not count as lived to 0.70.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from datasets.drive_cycles import drive_cycle_names, load_drive_cycle
from physics import PROFILES, FleetLives, Population, draw_population
from physics.car_models import CAR_MODELS
from physics.cells import load_cell
from physics.default_fleet import CELL_SHARES, USES
from physics.modal import cell_model
from physics.parameters import FloatArray

WINDOW: Final = 0.02
LEVELS: Final = np.round(np.arange(0.98, 0.699, -WINDOW), 6)
STEEPER: Final = 1.5
SUSTAINED: Final = 2
"""Windows."""
CAUSES: Final = ("dry", "film", "dead", "active")
END_SOH: Final = 0.8
_LIVED_TO: Final = 0.69
_START_S: Final = 1_767_225_600  # 2026-01-01
_SAMPLE_DAYS: Final = 30


@dataclass(frozen=True)
class Knee:
    """Where a life bends, and how much steeper it falls behind that than in its slowest window."""

    soh: float
    efc: float
    steeper: float
    cause: str
    """One of `CAUSES`."""


@dataclass(frozen=True)
class KneeRow:
    """The lives of a cell in a use. NaN where there is none."""

    cell: str
    use: str
    lives: int
    lived: int
    """To 0.70."""
    knees: int
    soh: tuple[float, float, float]
    """5 %, median and 95 % of SoH at the knee."""
    years: float
    """Median age at the knee."""
    steeper: float
    """Median."""
    causes: tuple[int, int, int, int]
    """Knees by `CAUSES`."""
    end_efc: float
    """Median EFC at SoH 0.8, ..."""
    end_cv: float
    """... their standard deviation over their mean, ..."""
    end_resistance: float
    """... and the median resistance there over that when new."""

    @property
    def share(self) -> float:
        """Knees among the lives that came to 0.70."""
        return self.knees / self.lived if self.lived else float("nan")


@dataclass(frozen=True)
class DistanceRow:
    """State of health of a car model with NMC cells at a distance, of the vehicles that came so far."""

    model: str
    km: float
    vehicles: int
    soh: tuple[float, float, float]
    """5 %, median, 95 %."""
    published: float
    source: str


DISTANCES: Final = (
    ("large", 320_000.0, 0.85, "Tesla, Impact Report 2023: mean of Model 3 and Y, 200,000 miles"),
    ("medium", 160_000.0, 0.91, "ADAC 2025: one VW ID.3, endurance test"),
)
"""Car model, distance, its published state of health and source; both as remembered, not read again."""


def crossings(soh: FloatArray, efc: FloatArray) -> FloatArray:
    """EFC at which a life falls to each of `LEVELS`, NaN below its last SoH; both of shape (samples,)."""
    there = np.isfinite(soh)
    falling = np.minimum.accumulate(soh[there])
    if not falling.size:
        return np.full(LEVELS.size, np.nan)
    at = np.interp(-LEVELS, -falling, efc[there])
    at[falling[-1] > LEVELS] = np.nan
    return at


def bend_of(at: FloatArray) -> tuple[int, int] | None:
    """(window in which a life that crosses `LEVELS` at these EFC is slowest, first window behind its knee)."""
    if not np.isfinite(at).all():
        return None
    rate = WINDOW / np.maximum(np.diff(at), 1e-9)
    steep = rate > STEEPER * np.minimum.accumulate(rate)
    calm = np.flatnonzero(~steep)
    behind = int(calm[-1]) + 1
    return (int(np.argmin(rate[:behind])), behind) if rate.size - behind >= SUSTAINED else None


def knee_of_life(truth: dict[str, FloatArray], capacity_per_lithium: float) -> Knee | None:
    """The knee of one life from its truth, arrays of shape (samples,): soh, efc, wetted, sei, dead_lithium, lam_ne,
    lam_pe. `capacity_per_lithium`: inventory over usable lithium."""
    at = crossings(truth["soh"], truth["efc"])
    found = bend_of(at)
    if found is None:
        return None
    slowest, behind = found
    there = np.isfinite(truth["soh"])

    def rate(values: FloatArray, first: int, last: int) -> float:
        """Per EFC, from level `first` to level `last`."""
        begin, end = np.interp(at[[first, last]], truth["efc"][there], values[there])
        return float((end - begin) / max(at[last] - at[first], 1e-9))

    def grows(values: FloatArray) -> float:
        return rate(values, behind, LEVELS.size - 1) - rate(values, slowest, slowest + 1)

    more = (
        grows(-np.log(np.maximum(truth["wetted"], 1e-9))),
        grows(truth["sei"]) * capacity_per_lithium,
        grows(truth["dead_lithium"]) * capacity_per_lithium,
        max(grows(truth["lam_ne"]), grows(truth["lam_pe"])),
    )
    steeper = rate(-truth["soh"], behind, LEVELS.size - 1) / rate(-truth["soh"], slowest, slowest + 1)
    return Knee(float(LEVELS[behind]), float(at[behind]), steeper, CAUSES[int(np.argmax(more))])


def lived(population: Population, years: int, **options: Any) -> dict[str, FloatArray]:
    """Truth of new vehicles every 30 days, arrays of shape (samples, vehicles); NaN after the end of a life."""
    cycles = [load_drive_cycle(name).speed_mps for name in drive_cycle_names()]
    fleet = FleetLives(
        population,
        cycles=cycles,
        start_s=_START_S,
        **{"sensors": PROFILES["ideal"], "end_soh": _LIVED_TO, "drive_step_s": 4.0, **options},
    )
    names = ("soh", "efc", "distance_km", "wetted", "sei", "dead_lithium", "lam_ne", "lam_pe", "resistance")
    parts = []
    for _ in range(years):
        fleet.advance(12 * _SAMPLE_DAYS * fleet.day_ticks, _SAMPLE_DAYS * fleet.day_ticks)
        truth = fleet.truth_series()
        parts.append({name: np.asarray(truth[name], dtype=np.float64) for name in names})
        if not (fleet.ends()["reason"] == "alive").any():
            break
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def whole_lives(
    vehicles: int = 256, years: int = 40, seed: int = 1
) -> tuple[tuple[KneeRow, ...], tuple[DistanceRow, ...]]:
    """Knees by cell and use, and of each cell over all uses; state of health by distance (five minutes)."""
    population = draw_population(
        seed, np.arange(vehicles), dict(CELL_SHARES), oldest_years=0.0, fault_share=0.0, start_s=_START_S
    )
    truth = lived(population, years)
    rows = []
    for index, cell in enumerate(population.cells):
        of_cell = population.cell == index
        rows.append(_row(cell, "all", np.flatnonzero(of_cell), truth))
        for number, use in enumerate(USES):
            rows.append(_row(cell, use, np.flatnonzero(of_cell & (population.use == number)), truth))
    return tuple(rows), tuple(_far(population, truth))


def _far(population: Population, truth: dict[str, FloatArray]) -> Iterable[DistanceRow]:
    nmc = population.cell == population.cells.index("chen2020")
    for model, km, published, source in DISTANCES:
        of = np.flatnonzero(nmc & (population.model == list(CAR_MODELS).index(model)))
        there = np.array([_soh_at(truth["distance_km"][:, v], truth["soh"][:, v], km) for v in of])
        there = there[np.isfinite(there)]
        low, middle, high = _quantiles(list(there))
        yield DistanceRow(model, km, there.size, (low, middle, high), published, source)


def _soh_at(distance_km: FloatArray, soh: FloatArray, km: float) -> float:
    lives = np.isfinite(soh)
    return float(np.interp(km, distance_km[lives], soh[lives], left=np.nan, right=np.nan))


def _row(cell: str, use: str, of: np.ndarray[Any, np.dtype[np.int64]], truth: dict[str, FloatArray]) -> KneeRow:
    model = cell_model(load_cell(cell))
    per_lithium = model.inventory / (model.q_n * (model.x_full - model.x_empty))
    years = _SAMPLE_DAYS / 365.0 * np.arange(1.0, len(truth["soh"]) + 1.0)
    reached, knees, ages, ends, resistances = 0, [], [], [], []
    for v in of:
        own = {name: values[:, v] for name, values in truth.items()}
        at = crossings(own["soh"], own["efc"])
        reached += bool(np.isfinite(at).all())
        end = at[int(np.argmin(np.abs(LEVELS - END_SOH)))]
        there = np.isfinite(own["soh"])
        if np.isfinite(end):
            ends.append(end)
            resistances.append(np.interp(end, own["efc"][there], own["resistance"][there]) / own["resistance"][0])
        knee = knee_of_life(own, per_lithium)
        if knee is not None:
            knees.append(knee)
            ages.append(float(np.interp(knee.efc, own["efc"][there], years[there])))
    low, middle, high = _quantiles([k.soh for k in knees])
    counted = [sum(k.cause == cause for k in knees) for cause in CAUSES]
    return KneeRow(
        cell=cell,
        use=use,
        lives=of.size,
        lived=reached,
        knees=len(knees),
        soh=(low, middle, high),
        years=_quantiles(ages)[1],
        steeper=_quantiles([k.steeper for k in knees])[1],
        causes=(counted[0], counted[1], counted[2], counted[3]),
        end_efc=_quantiles(ends)[1],
        end_cv=float(np.std(ends) / np.mean(ends)) if ends else float("nan"),
        end_resistance=_quantiles(resistances)[1],
    )


def _quantiles(values: list[Any]) -> tuple[float, float, float]:
    if not values:
        return float("nan"), float("nan"), float("nan")
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
    return float(low), float(middle), float(high)


def as_text(rows: Iterable[KneeRow]) -> list[str]:
    """A heading and a line for each row."""
    lines = [
        f"{'cell':11}{'use':14}{'lives':>6}{'to 0.7':>7}{'knees':>6}{'share':>7}{'SoH':>7}{'(5-95 %)':>13}{'years':>7}"
        f"{'steeper':>9}  by {'/'.join(CAUSES)}"
    ]
    for r in rows:
        spread = f"{_text(r.soh[0], 2)}-{_text(r.soh[2], 2)}" if r.knees else ""
        lines.append(
            f"{r.cell:11}{r.use:14}{r.lives:6d}{r.lived:7d}{r.knees:6d}{_text(r.share, 2):>7}{_text(r.soh[1], 2):>7}"
            f"{spread:>13}{_text(r.years, 0):>7}{_text(r.steeper, 1):>9}  {'/'.join(map(str, r.causes))}"
        )
    return lines


def ends_text(rows: Iterable[KneeRow]) -> list[str]:
    """The same lives at SoH 0.8."""
    lines = [f"{'cell':11}{'use':14}{'EFC, median':>13}{'sd/mean':>9}{'resistance / new':>18}"]
    for r in rows:
        lines.append(
            f"{r.cell:11}{r.use:14}{_text(r.end_efc, 0):>13}{_text(r.end_cv, 2):>9}{_text(r.end_resistance, 2):>18}"
        )
    return lines


def distances_text(rows: Iterable[DistanceRow]) -> list[str]:
    """A heading and a line for each row."""
    lines = [f"{'model':8}{'km':>9}{'vehicles':>10}{'SoH':>7}{'(5-95 %)':>13}{'published':>11}"]
    for r in rows:
        spread = f"{_text(r.soh[0], 2)}-{_text(r.soh[2], 2)}"
        lines.append(
            f"{r.model:8}{r.km:9,.0f}{r.vehicles:10d}{_text(r.soh[1], 2):>7}{spread:>13}{r.published:11.2f}  {r.source}"
        )
    return lines


def _text(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else "-"
