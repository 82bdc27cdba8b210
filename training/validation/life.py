"""Does a cell age as published cells do? Tables of targets, our prediction and residuals: `life_tables()`.

Where there is no data of a cell in this use, its target is the mean of several published life models. The smallest and
largest of them stand beside it, because cells of one chemistry differ more from each other than we do from their mean.
docs/aging-calibration.md says what was fitted to what, and why.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from datasets.drive_cycles import drive_cycle_names, load_drive_cycle
from physics import simulate_life
from physics.car_models import CAR_MODELS
from physics.cells import cell_names, load_cell
from physics.climate import CITIES, mean_temperature_C
from physics.default_fleet import CELL_SHARES
from physics.parameters import CellParameters, FloatArray
from physics.population import WARMER_K
from training.validation.calendar import CalendarFit, fit_calendar, kernel_calendar, predict_calendar
from training.validation.cycling import LamFit, fit_lam, lam_of, predict_cycling
from training.validation.knees import DistanceRow, KneeRow, as_text, distances_text, ends_text, whole_lives
from training.validation.published import PUBLISHED, calendar_capacity, cycling_loss

TEMPERATURES_C: Final = (10.0, 15.0, 25.0, 35.0, 45.0)
SOCS: Final = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
YEARS: Final = (1.0, 2.0, 3.0, 5.0, 10.0)
GOAL_POINTS: Final = 1.5
"""Largest rms over the fitted conditions of a cell."""
GOAL_FACTOR: Final = 1.5
"""How far a sensitivity may be from the published one."""
FITTED_FROM_SOC: Final = 0.3
EFCS: Final = (250.0, 500.0, 1000.0)


@dataclass(frozen=True)
class CycleCondition:
    """A cycle without pause between two states of charge."""

    temperature_C: float
    soc_low: float
    soc_high: float
    c_rate: float
    fitted: bool


CYCLES: Final = (
    *(CycleCondition(t, 0.1, 0.9, c, True) for t in (10.0, 25.0, 45.0) for c in (1.0 / 3.0, 0.5)),
    CycleCondition(25.0, 0.02, 0.98, 0.5, False),
    CycleCondition(25.0, 0.1, 0.9, 1.0, False),
    CycleCondition(25.0, 0.3, 0.7, 0.5, False),
    CycleCondition(25.0, 0.3, 0.7, 0.15, False),
    CycleCondition(25.0, 0.4, 0.6, 0.5, False),
)


@dataclass(frozen=True)
class Target:
    """The published cells (`published.PUBLISHED`) that a cell of ours is compared with."""

    cell: str
    calendar: tuple[str, ...]
    cycling: tuple[str, ...]


TARGETS: Final = (
    Target("chen2020", calendar=("denso", "b1", "b2"), cycling=("b1", "b2", "a75")),
    Target("prada2013", calendar=("sony",), cycling=("sony",)),
)


@dataclass(frozen=True)
class FieldFinding:
    """What a field study says about many vehicles. State of health is as their makers or testers report it."""

    source: str
    vehicles: str
    says: str
    loss_per_year: float | None = None
    """Average."""
    age_years: tuple[float, float] | None = None
    soh: tuple[float, float, float] | None = None
    """At that age: lowest quarter, median, highest quarter."""


FIELD: Final = (
    FieldFinding(
        "Geotab, EV battery health (geotab.com/blog/ev-battery-health), December 2019",
        "6,300 vehicles of fleets and private owners",
        "2.3 % a year; Tesla Model S of 2015 2.3 %, Nissan Leaf of 2015 (no active cooling) 4.2 %",
        loss_per_year=0.023,
    ),
    FieldFinding(
        "Geotab, the same study renewed, 2024",
        "almost 5,000 vehicles",
        "1.8 % a year; the best models 1.0 %",
        loss_per_year=0.018,
    ),
    FieldFinding(
        "Geotab, third study, January 2026",
        "22,700 vehicles of 21 models",
        "2.3 % a year; 1.5 % where charging is mostly slow, up to 3.0 % where often above 100 kW; hot regions +0.4 %",
        loss_per_year=0.023,
    ),
    FieldFinding(
        "Generational, Battery Performance Index, United Kingdom, February 2026",
        "8,000 tests, 36 makes",
        "4-5 years old: lowest quarter 91.6 %, median 93.5 %, highest quarter 96.5 %",
        age_years=(4.0, 5.0),
        soh=(0.916, 0.935, 0.965),
    ),
    FieldFinding(
        "Generational, Battery Performance Index, United Kingdom, February 2026",
        "8,000 tests, 36 makes",
        "8-12 years old: lowest quarter 82 %, median 85 %, highest quarter 90 %",
        age_years=(8.0, 12.0),
        soh=(0.82, 0.85, 0.90),
    ),
)


@dataclass(frozen=True)
class FleetSpread:
    """State of health of the default fleet, simulated in full (seasons, driving, fast charging, spread, faults)."""

    vehicles: int
    years: float
    soh: tuple[float, float, float, float, float]
    """5, 25, 50, 75 and 95 % quantile."""


@dataclass(frozen=True)
class Row:
    """One condition. `published` is the mean of the target's cells, `lowest` and `highest` their range. All values are
    capacities (calendar) or losses by cycling (cycling) over fresh capacity."""

    cell: str
    condition: str
    after: float
    """Years (calendar) or equivalent full cycles (cycling)."""
    published: float
    lowest: float
    highest: float
    ours: float
    """By the slow model that the constants were fitted with."""
    fitted: bool
    kernel: float = math.nan
    """By the kernel that ships, with all side reactions on; calendar only."""

    @property
    def residual_points(self) -> float:
        """Ours minus theirs in points of fresh capacity; the kernel's where it was run."""
        return 100.0 * ((self.kernel if math.isfinite(self.kernel) else self.ours) - self.published)


@dataclass(frozen=True)
class Sensitivity:
    """Fade of one condition over that of another, ten years of storage (calendar)."""

    cell: str
    of: str
    against: str
    published: float
    lowest: float
    highest: float
    ours: float
    kernel: float

    @property
    def factor(self) -> float:
        """The kernel's over theirs."""
        return self.kernel / self.published

    @property
    def met(self) -> bool:
        """Whether it is within the goal."""
        return 1.0 / GOAL_FACTOR <= self.factor <= GOAL_FACTOR


@dataclass(frozen=True)
class CityRow:
    """What a vehicle parked and driven in a city should have left: storage and cycling, nothing else."""

    cell: str
    city: str
    temperature_C: float
    soh_5_years: float
    soh_10_years: float


@dataclass(frozen=True)
class LifeTables:
    """Everything `life_tables` knows, as plain records."""

    calendar: tuple[Row, ...]
    cycling: tuple[Row, ...]
    sensitivity: tuple[Sensitivity, ...]
    cities: tuple[CityRow, ...]
    fleet: tuple[FleetSpread, ...]
    field: tuple[FieldFinding, ...]
    knees: tuple[KneeRow, ...] = ()
    distances: tuple[DistanceRow, ...] = ()

    def missed(self) -> list[str]:
        """One line for every goal that is missed."""
        lines = []
        for name, rows in (("storage", self.calendar), ("cycling", self.cycling)):
            for cell in dict.fromkeys(row.cell for row in rows):
                rms = self.rms_points(rows, cell)
                if rms > GOAL_POINTS:
                    lines.append(f"{cell}, {name}: {rms:.1f} points rms, goal {GOAL_POINTS:g}")
        lines += [f"{s.cell}, {s.of} over {s.against}: factor {s.factor:.2f}" for s in self.sensitivity if not s.met]
        return lines

    def rms_points(self, rows: Sequence[Row], cell: str) -> float:
        """Residual over the fitted conditions of a cell, rms [points]."""
        return float(np.sqrt(np.mean([r.residual_points**2 for r in rows if r.fitted and r.cell == cell])))


def grid(temperatures_C: Iterable[float], socs: Iterable[float]) -> tuple[FloatArray, FloatArray]:
    """All pairs, two arrays of shape (n,)."""
    t, s = np.meshgrid(np.array(list(temperatures_C)), np.array(list(socs)), indexing="ij")
    return t.ravel(), s.ravel()


def calendar_targets(keys: Sequence[str], temperature_C: FloatArray, soc: FloatArray, years: FloatArray) -> FloatArray:
    """Capacity over fresh capacity of each published cell, shape (cells, conditions, years)."""
    return np.array(
        [
            [calendar_capacity(k, float(t), float(s), years) for t, s in zip(temperature_C, soc, strict=True)]
            for k in keys
        ]
    )


def cycling_targets(keys: Sequence[str], conditions: Sequence[CycleCondition], efc: FloatArray) -> FloatArray:
    """Loss by cycling of each published cell as part of fresh capacity, shape (cells, conditions, cycles)."""
    return np.array(
        [[cycling_loss(key, c.temperature_C, c.soc_low, c.soc_high, c.c_rate, efc) for c in conditions] for key in keys]
    )


def calibrate_calendar(target: Target, *, one_energy: bool = True) -> CalendarFit:
    """Fit the SEI constants of a cell to its target anew. The numbers in `physics/cells` come from this."""
    t, s = grid(TEMPERATURES_C, [soc for soc in SOCS if soc >= FITTED_FROM_SOC])
    years = np.array(YEARS)
    capacity = calendar_targets(target.calendar, t, s, years).mean(axis=0)
    return fit_calendar(load_cell(target.cell), t, s, years, capacity, one_energy=one_energy)


def calibrate_cycling(target: Target, *, positive: bool) -> LamFit:
    """Fit the constants of active material loss anew (a minute). `cycling.rate_constants` converts them for a cell's
    file."""
    fitted = [c for c in CYCLES if c.fitted]
    efc = np.array(EFCS)
    loss = cycling_targets(target.cycling, fitted, efc).mean(axis=0)
    conditions = [(c.temperature_C, c.soc_low, c.soc_high, c.c_rate) for c in fitted]
    return fit_lam(load_cell(target.cell), conditions, efc, loss, positive=positive)


def life_tables(targets: Sequence[Target] = TARGETS, *, quick: bool = False) -> LifeTables:
    """Targets, our predictions and residuals of every known cell. `quick`: few conditions, for tests."""
    known = [target for target in targets if target.cell in cell_names()]
    temperatures, socs = ((15.0, 25.0, 35.0), (0.5, 0.7, 0.9)) if quick else (TEMPERATURES_C, SOCS)
    cycles = CYCLES[2:4] if quick else CYCLES
    calendar: list[Row] = []
    cycling: list[Row] = []
    sensitivity: list[Sensitivity] = []
    cities: list[CityRow] = []
    for target in known:
        cell = load_cell(target.cell)
        calendar += _calendar_rows(cell, target, temperatures, socs)
        cycling += _cycling_rows(cell, target, cycles)
        sensitivity += _sensitivities(cell, target)
        cities += [] if quick else _city_rows(cell)
    return LifeTables(
        tuple(calendar),
        tuple(cycling),
        tuple(sensitivity),
        tuple(cities),
        () if quick else _default_fleet(),
        FIELD,
        *(((), ()) if quick else whole_lives()),
    )


def _default_fleet(vehicles: int = 512, seed: int = 1) -> tuple[FleetSpread, ...]:
    """A fleet as `twin run` makes it, but new at the start, at the mean ages of the field findings."""
    cells = dict(CELL_SHARES)
    speeds = [load_drive_cycle(name).speed_mps for name in drive_cycle_names()]
    life = simulate_life(cells, 10.0, cycles=speeds, vehicles=vehicles, seed=seed, fault_share=0.02)
    found = []
    for years in (1.0, 4.5, 10.0):
        at = int(np.argmin(np.abs(life.time_days - 365.0 * years)))
        low, quarter, middle, three, high = np.quantile(life.soh[at], [0.05, 0.25, 0.5, 0.75, 0.95])
        found.append(
            FleetSpread(vehicles, years, (float(low), float(quarter), float(middle), float(three), float(high)))
        )
    return tuple(found)


def _calendar_rows(
    cell: CellParameters, target: Target, temperatures_C: Sequence[float], socs: Sequence[float]
) -> Iterable[Row]:
    t, s = grid(temperatures_C, socs)
    years = np.array(YEARS)
    theirs = calendar_targets(target.calendar, t, s, years)
    ours = predict_calendar(cell, t, s, years)
    kernel = kernel_calendar(cell, t, s, years)
    for k in range(t.size):
        for j, year in enumerate(YEARS):
            yield Row(
                cell.name,
                f"{t[k]:g} degC, {s[k]:.0%} charge",
                year,
                *_spread(theirs[:, k, j]),
                float(ours[k, j]),
                bool(s[k] >= FITTED_FROM_SOC),
                float(kernel[k, j]),
            )


def _cycling_rows(cell: CellParameters, target: Target, conditions: Sequence[CycleCondition]) -> Iterable[Row]:
    efc = np.array(EFCS)
    theirs = cycling_targets(target.cycling, conditions, efc)
    lam = lam_of(cell)
    for k, c in enumerate(conditions):
        ours = predict_cycling(cell, lam, c.temperature_C, c.soc_low, c.soc_high, c.c_rate, efc)
        condition = f"{c.temperature_C:g} degC, {c.soc_low:.0%}-{c.soc_high:.0%}, {c.c_rate:.2f}C"
        for j, cycles in enumerate(EFCS):
            yield Row(cell.name, condition, cycles, *_spread(theirs[:, k, j]), float(ours[j]), c.fitted)


def _spread(values: FloatArray) -> tuple[float, float, float]:
    """(mean, lowest, highest)."""
    return float(values.mean()), float(values.min()), float(values.max())


_PAIRS: Final = (
    ((35.0, 0.7), (25.0, 0.7)),
    ((25.0, 0.7), (15.0, 0.7)),
    ((25.0, 0.9), (25.0, 0.5)),
    ((25.0, 0.5), (25.0, 0.3)),
)


def _sensitivities(cell: CellParameters, target: Target) -> Iterable[Sensitivity]:
    years = np.array([10.0])
    conditions = np.array(_PAIRS).reshape(-1, 2)
    fades = 1.0 - kernel_calendar(cell, conditions[:, 0], conditions[:, 1], years)[:, 0].reshape(-1, 2)
    for pair, fade in zip(_PAIRS, fades, strict=True):
        t, s = (np.array(values) for values in zip(*pair, strict=True))
        theirs = 1.0 - calendar_targets(target.calendar, t, s, years)[..., 0]
        ours = 1.0 - predict_calendar(cell, t, s, years)[:, 0]
        single = theirs[:, 0] / theirs[:, 1]
        mean = theirs.mean(axis=0)
        labels = [f"{a:g} degC, {b:.0%}" for a, b in pair]
        yield Sensitivity(
            cell.name,
            labels[0],
            labels[1],
            float(mean[0] / mean[1]),
            float(single.min()),
            float(single.max()),
            float(ours[0] / ours[1]),
            float(fade[0] / fade[1]),
        )


_CITY_SOC: Final = 0.65
_KM_A_YEAR: Final = 16500.0
_CITY_CYCLE: Final = (0.45, 0.85, 0.15)  # lower and upper charge, C-rate


def _city_rows(cell: CellParameters) -> Iterable[CityRow]:
    """Rows at the yearly mean temperature. Seasons and the heat of driving would add a little."""
    years = np.array([5.0, 10.0])
    efc = years * _KM_A_YEAR / CAR_MODELS["medium"].range_km
    for k, city in enumerate(CITIES):
        t = mean_temperature_C(k) + WARMER_K
        rest = predict_calendar(cell, np.array([t]), np.array([_CITY_SOC]), years)[0]
        cycled = predict_cycling(cell, lam_of(cell), t, *_CITY_CYCLE, efc)
        left = rest - cycled
        yield CityRow(cell.name, city.name, t, float(left[0]), float(left[1]))


def render(tables: LifeTables) -> str:
    """The tables as text of at most 120 columns."""
    lines: list[str] = []

    def block(title: str, header: Sequence[str], rows: Iterable[str]) -> None:
        lines.extend([title, *("  " + row for row in (*header, *rows)), ""])

    for cell in dict.fromkeys(row.cell for row in tables.calendar):
        target = next(t for t in TARGETS if t.cell == cell)
        shown = [r for r in tables.calendar if r.cell == cell and r.after in (1.0, 3.0, 10.0)]
        block(
            _title(tables, tables.calendar, cell, "left after storage"),
            [*(f"  {PUBLISHED[key].cell}" for key in target.calendar), _heading("years")],
            map(_row_text, shown),
        )
        block(
            _title(tables, tables.cycling, cell, "lost by cycling"),
            [*(f"  {PUBLISHED[key].cell}" for key in target.cycling), _heading("EFC")],
            map(_row_text, (r for r in tables.cycling if r.cell == cell)),
        )
        block(
            f"{cell}: fade of one storage condition over that of another, 10 years (factor: kernel over published)",
            [f"{'of':18}{'against':18}{'published':>11}{'(range)':>17}{'ours':>8}{'kernel':>8}{'factor':>8}"],
            (
                f"{r.of:18}{r.against:18}{r.published:11.2f}{f'{r.lowest:.2f}-{r.highest:.2f}':>17}{r.ours:8.2f}"
                f"{r.kernel:8.2f}{r.factor:8.2f}  {'met' if r.met else 'MISSED'}"
                for r in tables.sensitivity
                if r.cell == cell
            ),
        )
        block(
            f"{cell}: state of health by home city, {_KM_A_YEAR:,.0f} km a year, {_CITY_SOC:.0%} charge on average",
            [f"{'city':18}{'mean degC':>10}{'5 years':>10}{'10 years':>10}"],
            (
                f"{r.city:18}{r.temperature_C:10.1f}{r.soh_5_years:10.3f}{r.soh_10_years:10.3f}"
                for r in tables.cities
                if r.cell == cell
            ),
        )
    block(
        "the default fleet, driven and charged: state of health",
        [f"{'after':18}{'5 %':>8}{'25 %':>8}{'median':>8}{'75 %':>8}{'95 %':>8}  of vehicles"],
        (
            f"{f'{spread.years:g} years':18}" + "".join(f"{q:8.3f}" for q in spread.soh) + f"  {spread.vehicles:,}"
            for spread in tables.fleet
        ),
    )
    if tables.knees:
        knees, ends = as_text(tables.knees), ends_text(tables.knees)
        block("the default fleet without faults, lived to SoH 0.7: knees", knees[:1], knees[1:])
        block("the same lives at SoH 0.8", ends[:1], ends[1:])
    if tables.distances:
        far = distances_text(tables.distances)
        block("the same lives against distance: median SoH (5-95 %)", far[:1], far[1:])
    lines.append("field studies")
    for finding in tables.field:
        lines.extend([f"  {finding.source}", f"    {finding.vehicles}", f"    {finding.says}"])
    return "\n".join(lines)


def _title(tables: LifeTables, rows: Sequence[Row], cell: str, what: str) -> str:
    return f"{cell}: capacity {what}, {tables.rms_points(rows, cell):.1f} points rms (* not fitted), against"


def _heading(after: str) -> str:
    return f"{'condition':26}{after:>6}{'published':>11}{'(range)':>17}{'ours':>8}{'kernel':>8}{'points':>8}"


def _row_text(row: Row) -> str:
    condition = row.condition + ("" if row.fitted else " *")
    between = f"{row.lowest:.3f}-{row.highest:.3f}" if row.lowest < row.highest else ""
    kernel = f"{row.kernel:.3f}" if math.isfinite(row.kernel) else "-"
    return (
        f"{condition:26}{row.after:6g}{row.published:11.3f}{between:>17}{row.ours:8.3f}{kernel:>8}"
        f"{row.residual_points:+8.1f}"
    )
