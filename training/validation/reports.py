"""What vehicles report beside what is true, and beside what real vehicles report.

Fleets of one cell and one profile of sensors live four weeks and are then watched for a day, a record a minute. Half of
the vehicles are sound; the others have had a fault for up to two years, each kind as often, with the severities that
fleets draw. Field figures: the reported state of charge of 98 vehicles was 3.2 +- 2.8 points below that of the
open-circuit voltage; reported SoH runs from always 100 % to wrong by tens of points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from datasets.drive_cycles import drive_cycle_names, load_drive_cycle
from physics import DIAGNOSTICS, MODES, Fault, FleetLives, draw_population, load_cell
from physics.faults import KINDS, SEVERITIES
from physics.modal import cell_model
from physics.parameters import FloatArray
from physics.rng import uniforms
from physics.sensors import PROFILES, Channel, Sensors

CELLS: Final = ("chen2020", "prada2013")
STUDIED: Final = ("typical", "poor")
FIELD_SOC: Final = (-3.2, 2.8)
"""Mean and standard deviation between 98 vehicles [points]."""
PARKED_A: Final = 0.2
"""More than any parked vehicle draws: 25 W are 0.07 A."""
QUANTITIES: Final = {
    "battery_voltage": ("V", "pack_voltage", "GB/T 32960 0.1"),
    "battery_current": ("A", "pack_current", "GB/T 32960 0.1"),
    "cell_voltage_min": ("V", "cell_voltage", "GB/T 32960 0.001"),
    "cell_temperature_max": ("degC", "temperature", "GB/T 32960 1, Tesla 0.5"),
    "soc": ("", "soc", "GB/T 32960 0.01, Tesla 0.001"),
}
"""Of a column: its unit, the profile's part, and the resolution of real records."""
THRESHOLDS: Final = ("voltage outside cells", "current while parked", "mean outside probes")

_SEED: Final = 20_261_127
_START_S: Final = 1_780_272_000
_DAY_S: Final = 86_400
_WEEKS: Final = 4
_STEP_S: Final = 1.0
_EVERY_S: Final = 60
_SOUND: Final = "none"


@dataclass(frozen=True)
class Errors:
    """Reported less true [points]: over vehicles, and of the state of charge over the hours of a day."""

    what: str
    mean: float
    sd: float
    p5: float
    p50: float
    p95: float


@dataclass(frozen=True)
class Seen:
    """One column as a reader finds it in the records of vehicles that have been parked for an hour."""

    column: str
    noise: float
    """Standard deviation from record to record, rounding included."""
    noise_expected: float
    """By the profile; NaN for what is no sensor."""
    resolution: float
    resolution_expected: float


@dataclass(frozen=True)
class Noticed:
    """Of the vehicles with one kind of fault, or with none: the share that each way of looking calls faulty."""

    kind: str
    vehicles: int
    codes: dict[str, float]
    any_code: float
    thresholds: dict[str, float]


@dataclass(frozen=True)
class Report:
    """One cell and one profile."""

    cell: str
    profile: str
    vehicles: int
    soc: Errors
    soh: Errors
    soh_always_full: float
    """Share that reports 1, of the vehicles that have lost 3 % or more."""
    seen: tuple[Seen, ...]
    parked_A: tuple[float, float, float]
    """5, 50 and 95 % over vehicles of the mean current while parked."""
    noticed: tuple[Noticed, ...]


def reports(vehicles: int = 500, *, say: Callable[[str], None] = print) -> list[Report]:
    """All cells and profiles, with so many sound vehicles and as many faulty ones."""
    found = []
    for cell in CELLS:
        for name in STUDIED:
            say(f"{cell} with {name} sensors")
            found.append(report_of(cell, PROFILES[name], vehicles))
    return found


def report_of(cell: str, sensors: Sensors, vehicles: int) -> Report:
    """One cell and one profile."""
    cycles = [load_drive_cycle(name).speed_mps for name in drive_cycle_names()]
    who = draw_population(_SEED, np.arange(2 * vehicles), cell, fault_share=0.0)
    lives = FleetLives(who, cycles=cycles, start_s=_START_S, sensors=sensors)
    kinds = np.array([_SOUND] * vehicles + [list(SEVERITIES)[k % len(SEVERITIES)] for k in range(vehicles)])
    for k in range(vehicles, 2 * vehicles):
        lives.inject(k, _drawn(str(kinds[k]), k))
    lives.advance(_WEEKS * 7 * _DAY_S, _WEEKS * 7 * _DAY_S)
    fleet, hour, every = lives.awake(_STEP_S), round(3600 / _STEP_S), round(_EVERY_S / _STEP_S)
    parts, soc_off = [], []
    for _ in range(24):
        told = fleet.advance(hour, every)
        parts.append(told)
        soc_off.append(told["soc"][-1] - fleet.truth()["soc"])
    told = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    truth = fleet.truth()
    sound = kinds == _SOUND
    parked = _long_parked(told["mode"], 3600 // _EVERY_S)
    current = _mean_where(told["battery_current"], parked)
    aged = sound & (truth["soh"] < 0.97)
    return Report(
        cell=cell,
        profile=sensors.name,
        vehicles=vehicles,
        soc=_errors("soc", np.array(soc_off)[:, sound]),
        soh=_errors("soh", (told["soh"][-1] - truth["soh"])[sound]),
        soh_always_full=float(np.mean(told["soh"][-1][aged] == 1.0)) if aged.any() else float("nan"),
        seen=tuple(_seen(name, told[name][:, sound], parked[:, sound], sensors) for name in QUANTITIES),
        parked_A=_percentiles(current[sound & np.isfinite(current)]),
        noticed=_noticed(kinds, told, _thresholds(told, current, cell_model(load_cell(cell)).series)),
    )


def _drawn(kind: str, vehicle: int) -> Fault:
    """A fault as fleets draw them, up to two years old."""
    of = np.array([vehicle])
    drawn = next(one for one in KINDS if one.name == kind).severities(uniforms(_SEED, 90, of))
    age_s = float(uniforms(_SEED, 91, of)[0]) * 2.0 * 365.0 * _DAY_S
    return Fault(kind, _START_S - age_s, float(drawn[0]))


def _errors(what: str, off: FloatArray) -> Errors:
    points = 100.0 * off.ravel()
    return Errors(what, float(points.mean()), float(points.std()), *_percentiles(points))


def _percentiles(values: FloatArray) -> tuple[float, float, float]:
    low, middle, high = (float(np.percentile(values, p)) for p in (5, 50, 95)) if values.size else [float("nan")] * 3
    return low, middle, high


def _long_parked(mode: FloatArray, records: int) -> np.ndarray:
    """Whether a vehicle has been parked for so many records, this one included; shape of `mode`."""
    since, parked = np.zeros(mode.shape[1], dtype=np.int64), np.empty(mode.shape, dtype=np.bool_)
    for row, now in enumerate(mode):
        since = np.where(now == MODES.index("parked"), since + 1, 0)
        parked[row] = since >= records
    return parked


def _mean_where(values: FloatArray, where: np.ndarray) -> FloatArray:
    """Mean of each vehicle's values, NaN where it has none."""
    count = where.sum(axis=0)
    total: FloatArray = np.where(where, values, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _seen(name: str, values: FloatArray, parked: np.ndarray, sensors: Sensors) -> Seen:
    """Noise by second differences, in which what changes evenly does not count."""
    bent = (values[2:] - 2.0 * values[1:-1] + values[:-2])[parked[2:] & parked[1:-1] & parked[:-2]]
    steps = np.diff(np.unique(np.round(values, 6)))
    part = getattr(sensors, QUANTITIES[name][1])
    expected = np.hypot(part.noise, part.resolution / np.sqrt(12.0)) if isinstance(part, Channel) else np.nan
    noise = np.sqrt(np.mean(bent**2) / 6.0) if bent.size else np.nan
    return Seen(name, float(noise), float(expected), float(np.round(steps.min(), 6)), part.resolution)


def _thresholds(told: dict[str, FloatArray], parked_A: FloatArray, series: float) -> dict[str, np.ndarray]:
    """Which vehicles three simple looks at the day's records call faulty, by `THRESHOLDS`."""
    mean_V, mean_C = told["battery_voltage"] / series, told["battery_temperature"]
    outside = [
        (values < told[f"{name}_min"]) | (values > told[f"{name}_max"])
        for values, name in ((mean_V, "cell_voltage"), (mean_C, "cell_temperature"))
    ]
    voltage, temperature = (of.mean(axis=0) > 0.5 for of in outside)
    return dict(zip(THRESHOLDS, (voltage, np.abs(parked_A) > PARKED_A, temperature), strict=True))


def _noticed(kinds: np.ndarray, told: dict[str, FloatArray], thresholds: dict[str, np.ndarray]) -> tuple[Noticed, ...]:
    codes = told["diagnostics"][-1].astype(np.int64)
    return tuple(
        Noticed(
            kind,
            int(of.sum()),
            {name: float(np.mean((codes[of] & bit) > 0)) for name, bit in DIAGNOSTICS.items()},
            float(np.mean(codes[of] > 0)),
            {name: float(np.mean(flagged[of])) for name, flagged in thresholds.items()},
        )
        for kind in (_SOUND, *SEVERITIES)
        if (of := kinds == kind).any()
    )


# ---- as text


def render(found: list[Report]) -> str:
    """The tables."""
    return "\n\n".join([_errors_text(found), _seen_text(found), *(_noticed_text(one) for one in found)])


def _errors_text(found: list[Report]) -> str:
    lines = [
        "Reported less true, in points (sound vehicles after four weeks; the charge at every hour of a day)",
        "",
        f"{'cell':<10} {'sensors':<8} {'of':<4} {'mean':>6} {'sd':>6} {'5 %':>7} {'50 %':>7} {'95 %':>7}",
    ]
    for one in found:
        for e in (one.soc, one.soh):
            lines.append(
                f"{one.cell:<10} {one.profile:<8} {e.what:<4} {e.mean:6.2f} {e.sd:6.2f}"
                f" {e.p5:7.2f} {e.p50:7.2f} {e.p95:7.2f}"
                + (f"  {one.soh_always_full:.0%} of the aged always report 100 %" if e is one.soh else "")
            )
    mean, sd = FIELD_SOC
    lines.append(f"{'field':<10} {'':<8} soc  {mean:6.2f} {sd:6.2f}  98 vehicles, against the open-circuit voltage")
    lines.append(f"{'field':<10} {'':<8} soh  from always 100 % to wrong by tens of points")
    return "\n".join(lines)


def _seen_text(found: list[Report]) -> str:
    lines = [
        "As a reader finds it, of vehicles parked for an hour (in brackets: by the profile, rounding included)",
        "",
        f"{'cell':<10} {'sensors':<8} {'column':<21} {'noise':>19} {'resolution':>15}  real records",
    ]
    for one in found:
        for seen in one.seen:
            unit, _, real = QUANTITIES[seen.column]
            by = f"({seen.noise_expected:.4f})" if np.isfinite(seen.noise_expected) else ""
            lines.append(
                f"{one.cell:<10} {one.profile:<8} {seen.column:<21} {seen.noise:9.4f} {by:>9}"
                f" {seen.resolution:7g} {f'({seen.resolution_expected:g})':>7}  {real} {unit}".rstrip()
            )
        low, middle, high = one.parked_A
        lines.append(
            f"{one.cell:<10} {one.profile:<8} mean current while parked: "
            f"{low:.2f}, {middle:.2f}, {high:.2f} A (5, 50, 95 % of vehicles)"
        )
    return "\n".join(lines)


def _noticed_text(one: Report) -> str:
    heads = [*DIAGNOSTICS, "any code", *THRESHOLDS]
    lines = [
        f"{one.cell}, {one.profile} sensors: share of the vehicles with a fault that each way of looking finds, in %",
        "(none: false alarms; the last three are simple thresholds on a day's records)",
        "",
        f"{'fault':<19} {'vehicles':>8} " + " ".join(f"{head.replace('_', ' '):>18}" for head in heads),
    ]
    for row in one.noticed:
        shares = [*row.codes.values(), row.any_code, *row.thresholds.values()]
        lines.append(f"{row.kind:<19} {row.vehicles:>8} " + " ".join(f"{100.0 * share:18.0f}" for share in shares))
    return "\n".join(lines)
