"""Fit a cell to a cycler's record by least squares on voltage.

Free are: the capacities of both electrodes and the lithium between them (the balance: which stretch of each
open-circuit potential the cell uses), the contact resistance, both particles' diffusivities, and, where the record has
several temperatures, the activation energies of the diffusivities. Each part also has a start of its own, an
open-circuit voltage. Everything else, the shapes of the open-circuit potentials first of all, stays as in the cell
that it begins with.

First the balance is fitted to the slow parts alone, where there are any; then, with that balance, resistance and
diffusivities to all parts; then all to all parts. Residuals beyond `SOFT_V` count by their size, not by its square
(SciPy's soft_l1): at the steep end of a discharge a missing thousandth of charge makes a tenth of a volt. What the
Jacobian does not tell, a standard error beyond `UNCERTAIN`, goes back to its first value, and the rest is fitted anew.

Standard errors are those of linear least squares, s^2 (J'J)^-1, with s^2 of the residuals, times (1 + r)/(1 - r),
where r is the correlation of neighbouring residuals: a model's misfit is no white noise, and 1,000 residuals of one
sign tell no more than one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from scipy.optimize import least_squares

from datasets.cycler_file import Part
from physics.constants import FARADAY
from physics.modal import CellModel, build_model
from physics.parameters import CellParameters, ElectrodeParameters, FloatArray
from physics.record import play_record

UNCERTAIN: Final = 0.3
"""Relative standard error (of an activation energy: over 10 kJ/mol) beyond which a parameter is not identifiable."""
SLOW_C: Final = 0.1
"""C-rate up to which a part counts as slow."""
SEVERAL_K: Final = 10.0
"""Between the coldest and the warmest part, for activation energies to be tried."""
POINTS: Final = 1500
"""Residuals of a part; more are thinned evenly, so that parts weigh alike."""
SOFT_V: Final = 0.02
_RESTED_V: Final = 0.02  # how far a part's own start may be from its first voltage, which is one at rest or under load
_LOADED_V: Final = 0.3
_STEP: Final = 1e-3  # of a finite difference, in scaled parameters
_ROUNDS: Final = 40

_NAMES: Final = ("negative capacity", "positive capacity", "lithium", "contact resistance")
_DIFFUSION: Final = ("negative diffusivity", "positive diffusivity")
_ENERGIES: Final = ("negative activation energy", "positive activation energy")
_UNIT: Final = {
    "negative capacity": "Ah", "positive capacity": "Ah", "lithium": "Ah", "contact resistance": "mOhm",
    "negative diffusivity": "m2/s", "positive diffusivity": "m2/s",
    "negative activation energy": "kJ/mol", "positive activation energy": "kJ/mol",
}  # fmt: skip


@dataclass(frozen=True)
class Fitted:
    """One parameter. `value` and `start` in `unit`."""

    name: str
    unit: str
    start: float
    value: float
    standard_error: float
    """In `unit`; NaN where it was not identifiable."""
    identifiable: bool
    at_bound: bool
    correlates_with: str
    """The parameter that moves with it most."""
    correlation: float


@dataclass(frozen=True)
class PartResult:
    """How well one part is met; arrays of shape (n,)."""

    name: str
    c_rate: float
    """Mean, of the current's absolute value while it flows."""
    temperature_C: float
    slow: bool
    rmse_mV: float
    largest_mV: float
    time_s: FloatArray
    measured_V: FloatArray
    ours_V: FloatArray


@dataclass(frozen=True)
class CellFit:
    """What `fit_cell` returns."""

    cell: CellParameters
    capacity_Ah: float
    """At rest between the voltage limits."""
    parameters: tuple[Fitted, ...]
    parts: tuple[PartResult, ...]
    rmse_mV: float
    notes: tuple[str, ...]


def begin_with(
    start: CellParameters, parts: Sequence[Part], low_V: float | None, high_V: float | None
) -> CellParameters:
    """The cell to begin with, enlarged to the charge that the record moves, with these voltage limits (None: its own).

    Its first film counts as part of the contact resistance, as in a file.
    """
    limits = start.voltage_min_V if low_V is None else low_V, start.voltage_max_V if high_V is None else high_V
    cell = replace(start, voltage_min_V=limits[0], voltage_max_V=limits[1], fresh_film_included=True)
    return _enlarged(cell, max(part.moved_Ah for part in parts) / capacity_of(build_model(cell)))


def _enlarged(cell: CellParameters, by: float) -> CellParameters:
    return replace(
        cell,
        area_m2=by * cell.area_m2,
        volume_m3=by * cell.volume_m3,
        cooling_area_m2=by ** (2.0 / 3.0) * cell.cooling_area_m2,
        contact_resistance_Ohm=cell.contact_resistance_Ohm / by,
        nominal_capacity_Ah=by * cell.nominal_capacity_Ah,
    )


def capacity_of(model: CellModel) -> float:
    """At rest between the voltage limits [Ah]."""
    return model.area * model.q_n * (model.x_full - model.x_empty) / 3600.0


def _charge(e: ElectrodeParameters) -> float:
    """Of an electrode from empty to full [C/m2]."""
    return FARADAY * e.thickness_m * e.active_fraction * e.max_concentration_mol_m3


class _Scale:
    """Between the cell and a vector of parameters of order 1: logarithms of ratios to the first values, but contact
    resistance in tenths of the cell's first pulse resistance, and energies in 10 kJ/mol."""

    def __init__(self, cell: CellParameters) -> None:
        self.cell = cell
        model = build_model(cell)
        self.first = {
            "negative capacity": model.area * model.q_n / 3600.0,
            "positive capacity": model.area * model.q_p / 3600.0,
            "lithium": model.area * model.inventory / 3600.0,
            "contact resistance": 1e3 * cell.contact_resistance_Ohm,
            "negative diffusivity": cell.negative.diffusivity_m2_s,
            "positive diffusivity": cell.positive.diffusivity_m2_s,
            "negative activation energy": cell.negative.diffusivity_activation_J_mol / 1e3,
            "positive activation energy": cell.positive.diffusivity_activation_J_mol / 1e3,
        }
        self.contact_mOhm = 10.0 / cell.nominal_capacity_Ah  # some tenth of any cell's resistance

    def value(self, name: str, scaled: float) -> float:
        """In the parameter's unit."""
        if name == "contact resistance":
            return self.first[name] + self.contact_mOhm * scaled
        if name in _ENERGIES:
            return self.first[name] + 10.0 * scaled
        return self.first[name] * math.exp(scaled)

    def per_scaled(self, name: str, scaled: float) -> float:
        """Change of the value for a change of the scaled one."""
        if name == "contact resistance":
            return self.contact_mOhm
        return 10.0 if name in _ENERGIES else self.value(name, scaled)

    def relative(self, name: str, scaled: float, error: float) -> float:
        """A standard error of the scaled parameter as the share that `UNCERTAIN` means."""
        if name != "contact resistance":
            return error
        return error * self.contact_mOhm / max(self.value(name, scaled), self.contact_mOhm)

    def bounds(self, name: str) -> tuple[float, float]:
        if name == "contact resistance":
            return -self.first[name] / self.contact_mOhm, 100.0
        if name in _ENERGIES:
            return -self.first[name] / 10.0, (150.0 - self.first[name]) / 10.0
        widest = 1.0 if name in _NAMES else math.log(1e4)
        return -widest, widest

    def cell_of(self, scaled: dict[str, float]) -> CellParameters:
        """The cell with these parameters; the others keep their first values."""
        at = {name: self.value(name, scaled.get(name, 0.0)) for name in self.first}
        cell = self.cell
        area = 3600.0 * at["negative capacity"] / _charge(cell.negative)
        # The positive's capacity is that of its material, so that pores and salt stay as they are; its kinetics, too.
        holds = 3600.0 * at["positive capacity"] / (area * _charge(cell.positive))
        most_p = holds * cell.positive.max_concentration_mol_m3
        # Only the lithium of both electrodes together counts, so they may as well be filled alike.
        filled = at["lithium"] / (at["negative capacity"] + at["positive capacity"])
        return replace(
            cell,
            area_m2=area,
            contact_resistance_Ohm=max(1e-3 * at["contact resistance"], 0.0),
            negative=replace(
                cell.negative,
                initial_concentration_mol_m3=filled * cell.negative.max_concentration_mol_m3,
                diffusivity_m2_s=at["negative diffusivity"],
                diffusivity_activation_J_mol=1e3 * at["negative activation energy"],
            ),
            positive=replace(
                cell.positive,
                max_concentration_mol_m3=most_p,
                exchange_rate=cell.positive.exchange_rate / holds,
                initial_concentration_mol_m3=filled * most_p,
                diffusivity_m2_s=at["positive diffusivity"],
                diffusivity_activation_J_mol=1e3 * at["positive activation energy"],
            ),
        )


@dataclass(frozen=True)
class _Solution:
    names: tuple[str, ...]
    scaled: FloatArray
    """Parameters, then one start for each part, in 10 mV."""
    jacobian: FloatArray
    residuals_V: list[FloatArray]
    """Of each part."""

    def of(self) -> dict[str, float]:
        return dict(zip(self.names, self.scaled.tolist(), strict=False))

    def covariance(self, kept: Sequence[int]) -> FloatArray:
        """Of the scaled parameters `kept`; infinite variances where the Jacobian says nothing."""
        j = self.jacobian[:, kept]
        length = np.linalg.norm(j, axis=0)
        told = length > 1e-12
        unit = j[:, told] / length[told]
        inner = np.linalg.pinv(unit.T @ unit, rcond=1e-12, hermitian=True)
        singular = np.linalg.cond(unit.T @ unit) > 1e12
        residual = np.concatenate(self.residuals_V)
        variance = residual @ residual / max(residual.size - len(kept), 1)
        pairs = [(r[1:] @ r[:-1], r @ r) for r in self.residuals_V]
        neighbours = min(max(sum(a for a, _ in pairs) / max(sum(b for _, b in pairs), 1e-30), 0.0), 0.999)
        covariance = np.full((len(kept), len(kept)), 0.0)
        covariance[np.diag_indices(len(kept))] = np.inf
        where = np.flatnonzero(told)
        found = variance * (1.0 + neighbours) / (1.0 - neighbours) * inner / np.outer(length[told], length[told])
        covariance[np.ix_(where, where)] = np.inf if singular else found
        return covariance


def _solve(
    scale: _Scale,
    parts: Sequence[Part],
    names: tuple[str, ...],
    first: dict[str, float],
    starts: FloatArray,
    fixed: dict[str, float],
) -> _Solution:
    """Least squares in `names`, from `first` and `starts` (open-circuit voltages in 10 mV); `fixed` stay."""
    chosen = [_thinned(part.dt_s.size) for part in parts]

    def model_at(scaled: FloatArray) -> CellModel:
        return build_model(scale.cell_of(fixed | dict(zip(names, scaled.tolist(), strict=False))))

    def residual(model: CellModel, k: int, start: float) -> FloatArray:
        part = parts[k]
        ours = play_record(model, part.dt_s, part.current_A, part.temperature_C, 0.01 * start)
        return np.asarray((ours - part.voltage_V)[chosen[k]], dtype=np.float64)

    def residuals(scaled: FloatArray) -> list[FloatArray]:
        model = model_at(scaled)
        return [residual(model, k, scaled[len(names) + k]) for k in range(len(parts))]

    def all_residuals(scaled: FloatArray) -> FloatArray:
        return np.concatenate(residuals(scaled))

    def jacobian(scaled: FloatArray) -> FloatArray:
        base = residuals(scaled)
        at = np.concatenate(base)
        out = np.zeros((at.size, scaled.size))
        for n in range(len(names)):
            step = _STEP if scaled[n] + _STEP <= upper[n] else -_STEP
            out[:, n] = (all_residuals(scaled + step * np.eye(scaled.size)[n]) - at) / step
        model, row = model_at(scaled), 0
        for k, rows in enumerate(base):
            moved = residual(model, k, scaled[len(names) + k] + 10.0 * _STEP)
            out[row : row + len(rows), len(names) + k] = (moved - rows) / (10.0 * _STEP)
            row += len(rows)
        return out

    bounds = [scale.bounds(name) for name in names] + [
        (start - reach, start + reach)
        for start, part in zip(starts, parts, strict=True)
        for reach in [1e2 * (_RESTED_V if abs(part.first_A) < 1e-3 * scale.cell.nominal_capacity_Ah else _LOADED_V)]
    ]
    lower, upper = np.array(bounds).T
    begin = np.clip(np.concatenate([[first.get(name, 0.0) for name in names], starts]), lower + 1e-6, upper - 1e-6)
    found = least_squares(
        all_residuals,
        begin,
        jac=jacobian,
        bounds=(lower, upper),
        x_scale="jac",
        loss="soft_l1",
        f_scale=SOFT_V,
        max_nfev=_ROUNDS,
        xtol=1e-5,
        ftol=1e-5,
    )
    return _Solution(names, found.x, found.jac, residuals(found.x))


def _thinned(count: int) -> FloatArray:
    return np.unique(np.linspace(0, count - 1, min(count, POINTS)).round().astype(np.int64))


def _is_slow(part: Part, capacity_Ah: float) -> bool:
    return float(np.abs(part.current_A).max()) <= 1.1 * SLOW_C * capacity_Ah


def fit_cell(
    start: CellParameters, parts: Sequence[Part], *, name: str = "fitted", say: Callable[[str], None] = lambda _: None
) -> CellFit:
    """Fit `start` (see `begin_with`) to the parts of a record."""
    scale = _Scale(start)
    notes: list[str] = []
    resistance = 0.08 / start.nominal_capacity_Ah  # of any cell, for a first guess of where a part starts
    starts = np.array([100.0 * (part.first_V + resistance * part.first_A) for part in parts])
    first: dict[str, float] = {}
    slow = [k for k, part in enumerate(parts) if _is_slow(part, start.nominal_capacity_Ah)]
    if slow:
        say(f"fitting the balance of the electrodes to {len(slow)} slow part(s)")
        balance = _solve(scale, [parts[k] for k in slow], _NAMES[:3], {}, starts[slow], {})
        first |= balance.of()
        say(f"balance: RMSE {_rmse(np.concatenate(balance.residuals_V)):.1f} mV")
        starts[slow] = balance.scaled[3:]
    else:
        notes.append(f"no part stays below C/{1 / SLOW_C:.0f}: the balance of the electrodes rests on loaded voltages")
    temperatures = [float(part.temperature_C.mean()) for part in parts]
    names: tuple[str, ...] = (*_NAMES, *_DIFFUSION)
    if max(temperatures) - min(temperatures) >= SEVERAL_K:
        names += _ENERGIES
    loss = (_NAMES[3], *_DIFFUSION)
    say(f"fitting {', '.join(loss)}")
    fixed = {name: first.get(name, 0.0) for name in _NAMES[:3]}
    for free in (loss[:1], loss):
        begun = _solve(scale, parts, free, first, starts, fixed)
        first |= begun.of()
        starts = begun.scaled[len(free) :]
    say(f"fitting {len(names)} parameters to {len(parts)} part(s)")
    solution = _solve(scale, parts, names, first, starts, {})
    kept = _identifiable(scale, solution)
    dropped = tuple(name for name in names if name not in kept)
    everything = solution
    if dropped:
        say(f"not identifiable: {', '.join(dropped)}; fitting the rest anew")
        solution = _solve(scale, parts, kept, solution.of(), solution.scaled[len(names) :], {})
    cell = scale.cell_of(solution.of())
    capacity = capacity_of(build_model(cell))
    return CellFit(
        cell=replace(
            cell,
            name=name,
            nominal_capacity_Ah=round(capacity, 3),
            sources=(*cell.sources, "fitted to a cycler's record"),
        ),
        capacity_Ah=capacity,
        parameters=tuple(_report(scale, solution, everything, n, kept) for n in names),
        parts=_part_results(scale, solution, parts, capacity),
        rmse_mV=_rmse(np.concatenate(solution.residuals_V)),
        notes=tuple(notes),
    )


def _identifiable(scale: _Scale, solution: _Solution) -> tuple[str, ...]:
    """The parameters whose standard errors are small enough, once the worst of the others have been given up."""
    count = len(solution.names)
    columns = list(range(solution.jacobian.shape[1]))
    while True:
        errors = np.sqrt(np.diag(solution.covariance(columns)))
        ours = [
            (scale.relative(solution.names[n], solution.scaled[n], errors[i]), n)
            for i, n in enumerate(columns)
            if n < count
        ]
        worst, which = max(ours, default=(0.0, -1))
        if worst <= UNCERTAIN:
            return tuple(solution.names[n] for n in columns if n < count)
        columns.remove(which)


def _report(scale: _Scale, solution: _Solution, everything: _Solution, name: str, kept: tuple[str, ...]) -> Fitted:
    identifiable = name in kept
    source = solution if identifiable else everything
    n = source.names.index(name)
    covariance = source.covariance(range(source.jacobian.shape[1]))
    spread = np.sqrt(np.diag(covariance))
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = covariance[n] / (spread[n] * spread)
    correlation[[n, *range(len(source.names), correlation.size)]] = 0.0
    correlation[~np.isfinite(correlation)] = 0.0
    with_which = int(np.argmax(np.abs(correlation)))
    scaled = solution.of().get(name, 0.0)
    low, high = scale.bounds(name)
    error = float(spread[n]) * scale.per_scaled(name, scaled)
    return Fitted(
        name=name,
        unit=_UNIT[name],
        start=scale.first[name],
        value=scale.value(name, scaled),
        standard_error=error if identifiable else math.nan,
        identifiable=identifiable,
        at_bound=identifiable and min(scaled - low, high - scaled) < 1e-3,
        correlates_with=source.names[with_which],
        correlation=float(correlation[with_which]),
    )


def _part_results(
    scale: _Scale, solution: _Solution, parts: Sequence[Part], capacity_Ah: float
) -> tuple[PartResult, ...]:
    found = []
    for part, residual in zip(parts, solution.residuals_V, strict=True):
        rows = _thinned(part.dt_s.size)
        flows = np.abs(part.current_A) > 1e-3 * capacity_Ah
        mean = np.average(np.abs(part.current_A[flows]), weights=part.dt_s[flows]) if flows.any() else 0.0
        found.append(
            PartResult(
                name=part.name,
                c_rate=float(mean) / capacity_Ah,
                temperature_C=float(part.temperature_C.mean()),
                slow=_is_slow(part, scale.cell.nominal_capacity_Ah),
                rmse_mV=_rmse(residual),
                largest_mV=1e3 * float(np.abs(residual).max()),
                time_s=np.cumsum(part.dt_s)[rows],
                measured_V=part.voltage_V[rows],
                ours_V=part.voltage_V[rows] + residual,
            )
        )
    return tuple(found)


def _rmse(residual_V: FloatArray) -> float:
    return 1e3 * float(np.sqrt(np.mean(residual_V**2)))


def render(fit: CellFit) -> str:
    """The fit as text."""
    lines = [
        f"{'parameter':<28} {'start':>10} {'fitted':>10} {'std error':>10}  {'':<7} moves with (correlation)",
    ]
    for p in fit.parameters:
        if p.identifiable:
            bound = "; at its bound" if p.at_bound else ""
            lines.append(
                f"{p.name:<28} {p.start:10.4g} {p.value:10.4g} {p.standard_error:10.2g}  {p.unit:<7}"
                f" {p.correlates_with} ({p.correlation:+.2f}){bound}"
            )
        else:
            lines.append(
                f"{p.name:<28} {p.start:10.4g} {p.value:10.4g} {'-':>10}  {p.unit:<7} not identifiable from these data;"
                " kept"
            )
    lines += [
        f"capacity at rest, {fit.cell.voltage_min_V:g} to {fit.cell.voltage_max_V:g} V: {fit.capacity_Ah:.4f} Ah",
        "",
        f"{'part':<12} {'C-rate':>6} {'degC':>6} {'RMSE mV':>8} {'largest':>8}",
    ]
    for part in fit.parts:
        lines.append(
            f"{part.name:<12} {part.c_rate:6.2f} {part.temperature_C:6.1f} {part.rmse_mV:8.2f} {part.largest_mV:8.1f}"
            f"{'  slow' if part.slow else ''}"
        )
    lines.append(f"{'all':<12} {'':>6} {'':>6} {fit.rmse_mV:8.2f}")
    return "\n".join(lines)
