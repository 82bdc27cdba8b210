"""Read a cell from a Battery Parameter eXchange file (BPX 1.x, bpxstandard.com): JSON in, `CellParameters` out.

The `bpx` package validates the file. This module converts its quantities to ours:

a, R        surface per electrode volume, particle radius     active fraction = a R/3
K           normalised rate constant [mol m-2 s-1], j0 = F K sqrt(c_e/c_0 x (1 - x)). Ours is
            j0 = m sqrt(c_e c_s (c_max - c_s)) = m c_max sqrt(c_e) sqrt(x (1 - x)), so m = F K/(c_max sqrt(c_0))
B           transport efficiency of a layer, taken as it is; the solid's conductivity is already effective
x limits    lithium inventory from the full cell's stoichiometries (negative maximum, positive minimum)
area        of one electrode pair, times the number of pairs

A file says nothing about aging. Film growth, plating and stress of the negative electrode are those of
`physics/cells/okane2022.py`: literature values, not fitted to life data. The film's first 5 nm add no resistance,
because they were there when the cell was measured. Whatever else is assumed or left out is in `BpxCell.notes`, one line
each.
"""

from __future__ import annotations

import ast
import json
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from physics.cells import load_cell
from physics.constants import COLDEST_C, FARADAY, HOTTEST_C, KELVIN
from physics.modal import cell_model
from physics.parameters import (
    BetweenBranches,
    CellParameters,
    Curve,
    ElectrodeParameters,
    ElectrolyteParameters,
    FloatArray,
    HysteresisParameters,
)

AGING_FROM: Final = "okane2022"
_SECTIONS: Final = ("Cell", "Electrolyte", "Negative electrode", "Positive electrode", "Separator")
_FUNCTIONS: Final = {"exp": np.exp, "tanh": np.tanh, "cosh": np.cosh}  # those of the standard
_REFERENCE_K: Final = 298.15
_CONCENTRATION: Final = 1000.0
_STILL_AIR: Final = 10.0
_ADIABATIC: Final = 1e-4  # [W/m2K], instead of 0: it is a divisor
_ISOTHERMAL: Final = 1e7
CONTACT: Final = "Contact resistance [Ohm]"
EXCHANGE: Final = "electrode relative reaction rate"
"""After "Negative" or "Positive", under User-defined, because BPX knows constants only: a factor of stoichiometry."""
_READ: Final = re.compile(rf"(Negative|Positive) (electrode (lithiation|delithiation) OCP \[V\]|{EXCHANGE})")
_LARGEST_MISFIT_V: Final = 0.02
_DECAY: Final = 1000.0  # of a hysteresis whose file has none: all but at once, on the other branch within 1 % of charge
_OFF_MIDDLE_V: Final = 0.005
_PLAUSIBLE: Final = {
    "Thickness [m]": (1e-7, 1e-2),
    "Particle radius [m]": (1e-9, 1e-3),
    "Surface area per unit volume [m-1]": (1e2, 1e9),
    "Maximum concentration [mol.m-3]": (1e2, 1e6),
    "Reaction rate constant [mol.m-2.s-1]": (1e-14, 1e2),
    "Conductivity [S.m-1]": (1e-6, 1e8),
    "Electrode area [m2]": (1e-6, 1e4),
    "External surface area [m2]": (1e-6, 1e4),
    "Volume [m3]": (1e-9, 1e2),
    "Nominal cell capacity [A.h]": (1e-5, 1e5),
    "Upper voltage cut-off [V]": (0.1, 10.0),
    "Reference temperature [K]": (200.0, 400.0),
    "Density [kg.m-3]": (1e2, 1e5),
    "Specific heat capacity [J.K-1.kg-1]": (1e2, 1e4),
    "Diffusivity activation energy [J.mol-1]": (0.0, 3e5),
    "Conductivity activation energy [J.mol-1]": (0.0, 3e5),
    "Reaction rate constant activation energy [J.mol-1]": (0.0, 3e5),
    "Transport efficiency": (1e-4, 1.0),
    "Porosity": (1e-3, 1.0),
}
"""Ranges wide enough for any cell and narrow enough to catch micrometres written as metres."""
_CONCENTRATIONS: Final = (10.0, 1e4)
_DIFFUSIVITIES: Final = (1e-24, 1e-6)
_OVERFULL: Final = 0.02  # by which active material and porosity may exceed 1: rounding and measurement
_LARGEST_ENTROPIC_V_K: Final = 0.01  # graphite reaches 4e-4; a published file once gave mV/K


class BpxError(ValueError):
    """A file that is not BPX, or one that we cannot read. One line: where, what was expected, what came."""


@dataclass(frozen=True)
class Expression:
    """A BPX function of x. Beyond [low, high] it keeps its value at the limit, because no formula holds everywhere."""

    text: str
    low: float = -math.inf
    high: float = math.inf

    @cached_property
    def _code(self) -> Any:
        return compile(_checked_expression(self.text), "<expression>", "eval")

    def __call__(self, x: FloatArray) -> FloatArray:
        with np.errstate(all="ignore"):
            names = _FUNCTIONS | {"x": np.clip(np.asarray(x, dtype=np.float64), self.low, self.high)}
            value = eval(self._code, {"__builtins__": {}}, names)  # only what `_checked_expression` lets through
        return np.asarray(np.broadcast_to(value, np.shape(x)), dtype=np.float64)

    def __getstate__(self) -> dict[str, Any]:
        return {"text": self.text, "low": self.low, "high": self.high}  # code objects do not pickle


@dataclass(frozen=True)
class Table:
    """Linear between points of ascending x; the outermost pieces are extended."""

    x: tuple[float, ...]
    y: tuple[float, ...]

    def __call__(self, x: FloatArray) -> FloatArray:
        at, known, values = np.asarray(x, dtype=np.float64), np.array(self.x), np.array(self.y)
        k = np.clip(np.searchsorted(known, at) - 1, 0, known.size - 2)
        slope = np.diff(values) / np.diff(known)
        return np.asarray(values[k] + slope[k] * (at - known[k]), dtype=np.float64)


@dataclass(frozen=True)
class Floored:
    """A curve that never falls below a floor, such as a fitted diffusivity far beyond its data."""

    curve: Curve
    floor: float

    def __call__(self, x: FloatArray) -> FloatArray:
        return np.asarray(np.maximum(self.curve(x), self.floor), dtype=np.float64)


@dataclass(frozen=True)
class Divided:
    """A curve over a number."""

    curve: Curve
    by: float

    def __call__(self, x: FloatArray) -> FloatArray:
        return np.asarray(self.curve(x) / self.by, dtype=np.float64)


@dataclass(frozen=True)
class Weighted:
    """The sum of two curves, each times its weight."""

    one: Curve
    other: Curve
    weights: tuple[float, float]

    def __call__(self, x: FloatArray) -> FloatArray:
        a, b = self.weights
        return np.asarray(a * self.one(x) + b * self.other(x), dtype=np.float64)


@dataclass(frozen=True)
class BpxCell:
    """A cell, where its file starts it, and what its user must know about it: assumptions and omissions, one line
    each."""

    parameters: CellParameters
    notes: tuple[str, ...]
    initial_soc: float | None = None
    """Between the cut-offs, 0 to 1. None: the file does not say."""
    initial_C: float | None = None
    ambient_C: float | None = None
    initial_hysteresis: BetweenBranches = (None, None)
    """Of the negative and the positive electrode, -1 (lithiation branch) to 1 (delithiation)."""


def load_bpx(path: Path | str) -> BpxCell:
    """Read a file. Whatever is wrong with it raises a one-line BpxError."""
    path = Path(path)
    raw = _sections_of(path)
    legacy = str(version := raw["Header"].get("BPX", "")).strip().startswith("0")
    dated = {key for key in raw["Parameterisation"]["Cell"] if "temperature" in key}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        import bpx  # imported here, because it takes a fraction of a second and its own imports warn

        caught.clear()
        try:
            parsed = bpx.parse_bpx_obj(raw)
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
            # `bpx` also evaluates the formulas, and fails on values of other types.
            raise BpxError(f"{path}: {_first_line(error)}") from None
    said = dict.fromkeys(" ".join(str(w.message).split()) for w in caught if w.category is UserWarning)
    notes = [f"BPX: {line}" for line in said if "legacy BPX" not in line]
    if legacy:
        notes.insert(0, f"BPX {version}: an old version, converted")
    try:
        parameters = _cell(path.name.removesuffix(".json").removesuffix(".bpx"), parsed, notes)
        start = _start(parsed, parameters)
        between = _initial_hysteresis(parsed.state)
    except ValueError as error:
        raise BpxError(f"{path}: {error}") from None
    if legacy:  # `bpx` fills in a state of charge, and temperatures where the file has none
        start["initial_soc"] = None
        for name, key in (("initial_C", "Initial temperature [K]"), ("ambient_C", "Ambient temperature [K]")):
            start[name] = start[name] if key in dated else None
    return BpxCell(parameters, tuple(notes), **start, initial_hysteresis=between)


def _start(parsed: Any, cell: CellParameters) -> dict[str, float | None]:
    """State of charge and temperatures of the file's State. BPX counts charge between the stoichiometry limits, we
    count it between the cut-offs."""
    state, n = parsed.state, parsed.parameterisation.negative_electrode
    initial = state.initial_conditions if state is not None else None
    air = state.thermal_environment if state is not None else None
    start: dict[str, float | None] = {"initial_soc": None, "initial_C": None, "ambient_C": None}
    for name, kelvin, where in (
        ("initial_C", initial.initial_temperature if initial else None, "Initial temperature [K]"),
        ("ambient_C", air.ambient_temperature if air else None, "Ambient temperature [K]"),
    ):
        low, high = COLDEST_C + KELVIN, HOTTEST_C + KELVIN
        if kelvin is not None and not low <= kelvin <= high:
            raise BpxError(f"State, {where}: expected {low:g} to {high:g}, got {kelvin:g}; check the unit")
        start[name] = None if kelvin is None else round(kelvin - KELVIN, 9)
    soc = initial.initial_soc if initial else None
    if soc is not None:
        if not 0.0 <= soc <= 1.0:
            raise BpxError(f"State, Initial state-of-charge: expected 0 to 1, got {soc:g}")
        model = cell_model(cell)
        x = n.minimum_stoichiometry + soc * (n.maximum_stoichiometry - n.minimum_stoichiometry)
        start["initial_soc"] = min(max((x - model.x_empty) / (model.x_full - model.x_empty), 0.0), 1.0)
    return start


def _initial_hysteresis(state: Any) -> BetweenBranches:
    """Where the file's State starts both electrodes between their branches."""
    initial = state.initial_conditions if state is not None else None
    if initial is None:
        return None, None
    negative, positive = initial.initial_hysteresis_state_negative, initial.initial_hysteresis_state_positive
    for which, value in (("Negative", negative), ("Positive", positive)):
        if value is not None and not (isinstance(value, (int, float)) and -1.0 <= value <= 1.0):
            raise BpxError(f"State, Initial hysteresis state: {which} electrode: expected -1 to 1, got {value!r}")
    return negative, positive


# --- before validation: what the package would report in many lines, or execute -------------------------------------


def _sections_of(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BpxError(f"{path}: cannot read it: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise BpxError(f"{path}: expected JSON, got something else: {error}") from None
    if not isinstance(raw, dict) or not {"Header", "Parameterisation"} <= raw.keys():
        raise BpxError(f"{path}: expected a BPX file with the sections Header and Parameterisation")
    header, sections = raw["Header"], raw["Parameterisation"]
    if not isinstance(header, dict) or not isinstance(sections, dict):
        raise BpxError(f"{path}: expected objects in Header and Parameterisation")
    model = header.get("Model")
    if model not in ("SPMe", "DFN"):
        raise BpxError(
            f"{path}: expected a file for the model SPMe or DFN, which describe the electrolyte; got {model!r}"
        )
    for name in _SECTIONS:
        if not isinstance(sections.get(name), dict):
            raise BpxError(
                f"{path}: expected the section {name!r} in Parameterisation; there are {', '.join(sections)}"
            )
        if "Particle" in sections[name]:
            raise BpxError(f"{path}: {name}: expected one active material; blended electrodes are not modelled")
        for key, value in sections[name].items():
            if isinstance(value, str):
                try:
                    _checked_expression(value)
                except BpxError as error:
                    raise BpxError(f"{path}: {name}, {key}: {error}") from None
    return raw


_NODES: Final = (
    ast.Expression,
    ast.BinOp,
    ast.UnaryOp,
    ast.Add,
    ast.Sub,
    ast.Mult,
    ast.Div,
    ast.Pow,
    ast.USub,
    ast.UAdd,
)


def _checked_expression(text: str) -> ast.Expression:
    """The syntax tree, if it holds nothing but numbers, x, arithmetic and known functions of one argument.

    `bpx` itself accepts any name that is called like a function, and runs it.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise BpxError(f"expected a formula in x, got {text[:60]!r}") from None
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            fine = (
                isinstance(node.func, ast.Name)
                and node.func.id in _FUNCTIONS
                and len(node.args) == 1
                and not node.keywords
            )
        elif isinstance(node, ast.Name):
            fine = node.id == "x" or id(node) in called
        elif isinstance(node, ast.Constant):
            fine = type(node.value) in (int, float)
        else:
            fine = isinstance(node, (*_NODES, ast.Load))
        if not fine:
            raise BpxError(
                f"expected a formula of numbers, x, + - * / ** and {', '.join(_FUNCTIONS)}, got {text[:60]!r}"
            )
    return tree


def _first_line(error: Exception) -> str:
    """The first complaint of a pydantic error, in one line. A complaint may hold another pydantic error."""
    complaints = getattr(error, "errors", None)
    if complaints is None:
        return " ".join(str(error).split())
    listed = complaints()
    same = [c for c in listed if c["loc"][:2] == listed[0]["loc"][:2]]
    first = max(same, key=lambda c: len(c["loc"]))  # for "number, formula or table" the table's complaint says most
    inner = first.get("ctx", {}).get("error")
    if isinstance(inner, Exception) and hasattr(inner, "errors"):
        return _first_line(inner)
    where = ", ".join(str(part) for part in first["loc"] if str(part) not in ("float", "int", "InterpolatedTable"))
    return f"{where}: {first['msg']}" if where else str(first["msg"])


# --- after validation: quantities -------------------------------------------------------------------------------------


def _positive(section: Any, where: str) -> None:
    """Every number of a section must be finite and positive. Activation energies may also be 0, entropic changes and
    OCPs may have any sign."""
    for name, field in type(section).model_fields.items():
        value, alias = getattr(section, name), field.alias or name
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            free = "ctivation energy" in alias or "ntropic" in alias or "OCP" in alias
            if not math.isfinite(value) or (value <= 0.0 and not free):
                raise BpxError(f"{where}, {alias}: expected a positive number, got {value!r}")
            if free and "ctivation" in alias and value < 0.0:
                raise BpxError(f"{where}, {alias}: expected 0 or more, got {value!r}")
            low, high = _PLAUSIBLE.get(alias, (-math.inf, math.inf))
            if not low <= value <= high:
                raise BpxError(f"{where}, {alias}: expected {low:g} to {high:g}, got {value:g}; check the unit")
            if alias in ("Porosity", "Transport efficiency") or "stoichiometry" in alias:
                _below_one(value, f"{where}, {alias}")


def _below_one(value: float, where: str) -> None:
    if value >= 1.0:
        raise BpxError(f"{where}: expected a number below 1, got {value!r}")


def _curve(value: Any, where: str, low: float, high: float) -> Curve:
    """A number, a formula or a table as a function on [low, high]."""
    if isinstance(value, str):
        plain = Expression(str(value))
        x = np.linspace(low, high, 1025)
        finite = np.isfinite(plain(x))
        inside = x[finite]
        if inside.size < 0.9 * x.size:
            raise BpxError(
                f"{where}: expected a formula that is finite from {low:g} to {high:g}, got {str(value)[:60]!r}"
            )
        return Expression(str(value), float(inside[0]), float(inside[-1]))
    if isinstance(value, (int, float)):
        return Expression(repr(float(value)))
    order = np.argsort(value.x)
    x, y = np.array(value.x, dtype=np.float64)[order], np.array(value.y, dtype=np.float64)[order]
    if x.size < 2 or not np.isfinite([*x, *y]).all() or not (np.diff(x) > 0.0).all():
        raise BpxError(f"{where}: expected a table of at least two points with different, finite x")
    return Table(tuple(x.tolist()), tuple(y.tolist()))


def _positive_curve(value: Any, where: str, at: float, high: float, floor: float = 0.01) -> tuple[Curve, float]:
    """(curve, value at `at`) of a positive quantity. The curve is floored at `floor` times that value."""
    curve = _curve(value, where, min(1.0, 0.01 * high), high)
    middle = float(curve(np.array([at]))[0])
    if not (math.isfinite(middle) and middle > 0.0):
        raise BpxError(f"{where}: expected a positive number at {at:g}, got {middle:g}")
    if "Diffusivity" in where and not _DIFFUSIVITIES[0] <= middle <= _DIFFUSIVITIES[1]:
        raise BpxError(f"{where}: expected 1e-24 to 1e-06 at {at:g}, got {middle:g}; check the unit")
    return Floored(curve, floor * middle), middle


def _energy(section: Any, field: str, what: str, missing: list[str]) -> float:
    value = getattr(section, field)
    if value is None:
        missing.append(what)
    return float(value or 0.0)


def _ocp(
    section: Any, where: str, own: Mapping[str, Any], notes: list[str]
) -> tuple[Curve, HysteresisParameters | None]:
    """Open-circuit potential and its hysteresis. The branches of a hysteresis have fields of their own (BPX 1.1) or,
    before there were any, stand under User-defined with PyBaMM's names; some files leave `OCP [V]` constant then."""
    curve = _curve(section.ocp, f"{where}, OCP [V]", 0.0, 1.0)
    branches = {}
    for field, name in ((section.ocp_lith, "lithiation"), (section.ocp_delith, "delithiation")):
        key = f"{where} {name} OCP [V]"
        value = own.get(key) if field is None else field
        if isinstance(value, str):
            try:
                _checked_expression(value)
            except BpxError as error:
                raise BpxError(f"User-defined, {key}: {error}") from None
        if value is not None:
            branches[name] = _curve(value, key, 0.0, 1.0)
    x = np.linspace(section.minimum_stoichiometry, section.maximum_stoichiometry, 65)
    values = curve(x)
    constant = float(np.ptp(values)) < 1e-9
    if len(branches) == 2:
        middle, hysteresis = _hysteresis(section.gamma_hys, where, branches, x, notes)
        off = float(np.abs(middle(x) - values).max())
        if not constant and off > _OFF_MIDDLE_V:
            notes.append(
                f"{where}: OCP [V] is up to {1e3 * off:.0f} mV off the middle of its branches; the branches count"
            )
        return middle, hysteresis
    if constant and branches:
        ((name, branch),) = branches.items()
        notes.append(f"{where}: OCP [V] is the constant {values[0]:g}; taken as its {name} branch, the only one")
        return branch, None
    if constant and abs(values[0]) < 1e-9:
        raise BpxError(
            f"{where}, OCP [V]: expected a formula, a table, or branches of a hysteresis; got the constant 0"
        )
    if branches:
        notes.append(f"{where}: a hysteresis needs two branches, there is one; OCP [V] is used")
    return curve, None


def _hysteresis(
    decay: Any, where: str, branches: Mapping[str, Curve], x: FloatArray, notes: list[str]
) -> tuple[Curve, HysteresisParameters | None]:
    """The middle of two branches, and the hysteresis between them (None where they are the same). `x`: as far as the
    electrode is used."""
    lithiation, delithiation = branches["lithiation"], branches["delithiation"]
    middle = Weighted(lithiation, delithiation, (0.5, 0.5))
    half_gap = Weighted(lithiation, delithiation, (-0.5, 0.5))
    halves = half_gap(x)
    if float(np.abs(halves).max()) < 1e-6:
        return middle, None
    if float(halves.mean()) < 0.0:
        raise BpxError(
            f"{where}: expected the delithiation branch of its OCP above the lithiation branch, got it"
            f" {-2e3 * halves.mean():.1f} mV below on average"
        )
    if decay is None:
        notes.append(f"{where}: no decay constant of its hysteresis in the file; taken as {_DECAY:g}")
        decay = _DECAY
    if not (math.isfinite(decay) and decay > 0.0):
        raise BpxError(f"{where}, OCP hysteresis decay constant: expected a positive number, got {decay!r}")
    return middle, HysteresisParameters(half_gap_V=half_gap, decay=float(decay))


def _relative_exchange(where: str, own: Mapping[str, Any]) -> Curve | None:
    """Factor on the reaction rate constant; None where the file has none."""
    key = where.replace("electrode", EXCHANGE)
    value = own.get(key)
    if value is None:
        return None
    if isinstance(value, str):
        try:
            _checked_expression(value)
        except BpxError as error:
            raise BpxError(f"User-defined, {key}: {error}") from None
    return _positive_curve(value, f"User-defined, {key}", 0.5, 1.0)[0]


def _electrode(
    section: Any, where: str, c_0: float, full: float, own: Mapping[str, Any], notes: list[str]
) -> ElectrodeParameters:
    """One electrode; `full`: its stoichiometry in the full cell; `own`: the file's user-defined parameters."""
    _positive(section, where)
    low, high = section.minimum_stoichiometry, section.maximum_stoichiometry
    if low >= high:
        raise BpxError(f"{where}: expected a minimum stoichiometry below the maximum, got {low:g} and {high:g}")
    active = section.surface_area_per_unit_volume * section.particle_radius / 3.0
    filled = f"active material (surface area times radius over 3, {active:.4g}) and porosity ({section.porosity:g})"
    if active + section.porosity > 1.0 + _OVERFULL:
        raise BpxError(f"{where}: expected {filled} to fill no more than 1")
    if active + section.porosity > 1.0 + 1e-6:
        notes.append(f"{where}: {filled} fill {active + section.porosity:.4g}, more than there is; used as they are")
    middle = 0.5 * (low + high)
    curve, diffusivity = _positive_curve(section.diffusivity, f"{where}, Diffusivity [m2.s-1]", middle, 1.0, floor=1e-4)
    varies = not isinstance(section.diffusivity, (int, float))
    ocp, hysteresis = _ocp(section, where, own, notes)
    if section.dudt is None:
        notes.append(f"{where}: no entropic change in the file; taken as 0")
    entropic = _curve(section.dudt or 0.0, f"{where}, Entropic change coefficient [V.K-1]", 0.0, 1.0)
    steepest = float(np.abs(entropic(np.linspace(low, high, 65))).max())
    if steepest > _LARGEST_ENTROPIC_V_K:
        raise BpxError(
            f"{where}, Entropic change coefficient [V.K-1]: expected at most {_LARGEST_ENTROPIC_V_K:g} from {low:g} to"
            f" {high:g}, got {steepest:.3g}; check the unit"
        )
    missing: list[str] = []
    energies = [
        _energy(section, "diffusivity_activation_energy", "diffusivity", missing),
        _energy(section, "reaction_rate_constant_activation_energy", "reaction rate", missing),
    ]
    if missing:
        notes.append(f"{where}: no activation energy of {' and '.join(missing)}; taken as independent of temperature")
    return ElectrodeParameters(
        thickness_m=float(section.thickness),
        porosity=float(section.porosity),
        active_fraction=float(active),
        particle_radius_m=float(section.particle_radius),
        max_concentration_mol_m3=float(section.maximum_concentration),
        initial_concentration_mol_m3=float(full * section.maximum_concentration),
        diffusivity_m2_s=diffusivity,
        diffusivity_activation_J_mol=energies[0],
        exchange_rate=float(
            FARADAY * section.reaction_rate_constant / (section.maximum_concentration * math.sqrt(c_0))
        ),
        exchange_activation_J_mol=energies[1],
        conductivity_S_m=float(section.conductivity),
        density_kg_m3=1.0,  # replaced by the cell's average later
        heat_capacity_J_kgK=1.0,
        ocp_V=ocp,
        entropic_change_V_K=entropic,
        relative_diffusivity=Divided(curve, diffusivity) if varies else None,
        relative_exchange=_relative_exchange(where, own),
        hysteresis=hysteresis,
    )


def _electrolyte(section: Any, c_0: float, efficiency: tuple[float, ...], notes: list[str]) -> ElectrolyteParameters:
    _positive(section, "Electrolyte")
    _below_one(section.cation_transference_number, "Electrolyte, Cation transference number")
    missing: list[str] = []
    energies = [
        _energy(section, f"{name}_activation_energy", name, missing) for name in ("diffusivity", "conductivity")
    ]
    if missing:
        notes.append(
            f"Electrolyte: no activation energy of {' and '.join(missing)}; taken as independent of temperature"
        )
    n, s, p = efficiency
    return ElectrolyteParameters(
        concentration_mol_m3=c_0,
        transference=float(section.cation_transference_number),
        diffusivity_m2_s=_positive_curve(section.diffusivity, "Electrolyte, Diffusivity [m2.s-1]", c_0, 8.0 * c_0)[0],
        diffusivity_activation_J_mol=energies[0],
        conductivity_S_m=_positive_curve(section.conductivity, "Electrolyte, Conductivity [S.m-1]", c_0, 8.0 * c_0)[0],
        conductivity_activation_J_mol=energies[1],
        bruggeman=1.5,  # applies as pores fill
        transport_efficiency=(float(n), float(s), float(p)),
    )


@dataclass(frozen=True)
class _Thermal:
    volume_m3: float
    cooling_area_m2: float
    density_kg_m3: float
    heat_capacity_J_kgK: float
    heat_transfer_W_m2K: float


def _thermal(cell: Any, state: Any, notes: list[str]) -> _Thermal:
    """Lumped heat capacity and cooling; without them the cell stays as warm as the air."""
    values = (cell.volume, cell.external_surface_area, cell.density, cell.specific_heat_capacity)
    if any(value is None for value in values):
        notes.append(
            "no volume, surface, density or heat capacity of the cell in the file; it stays at ambient temperature"
        )
        return _Thermal(1e-5, 1.0, 2500.0, 1000.0, _ISOTHERMAL)
    environment = state.thermal_environment if state is not None else None
    coefficient = environment.heat_transfer_coefficient if environment is not None else None
    if coefficient is None:
        notes.append(f"no heat transfer coefficient in the file; taken as that of still air, {_STILL_AIR:g} W/m2K")
    elif not (math.isfinite(coefficient) and coefficient >= 0.0):
        raise BpxError(f"State, Heat transfer coefficient [W.m-2.K-1]: expected 0 or more, got {coefficient!r}")
    volume, surface, density, heat_capacity = (float(value) for value in values)
    transfer = max(_STILL_AIR if coefficient is None else float(coefficient), _ADIABATIC)
    return _Thermal(volume, surface, density, heat_capacity, transfer)


def _contact_resistance(own: Mapping[str, Any]) -> float:
    """BPX has no field for it. We look for PyBaMM's name among the user-defined parameters."""
    value = own.get(CONTACT, 0.0)
    if not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0.0:
        raise BpxError(f"User-defined, {CONTACT}: expected 0 or more, got {value!r}")
    return float(value)


def _leaves(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value)
        else:
            yield name, value


def _cell(name: str, parsed: Any, notes: list[str]) -> CellParameters:
    file, state = parsed.parameterisation, parsed.state
    n, s, p, cell = file.negative_electrode, file.separator, file.positive_electrode, file.cell
    _positive(cell, "Cell")
    _positive(s, "Separator")
    initial = state.initial_conditions if state is not None else None
    c_0 = initial.initial_electrolyte_concentration if initial is not None else None
    if c_0 is None:
        notes.append(f"no concentration of the electrolyte in the file; taken as {_CONCENTRATION:g} mol/m3")
        c_0 = _CONCENTRATION
    if not _CONCENTRATIONS[0] <= c_0 <= _CONCENTRATIONS[1]:
        raise BpxError(f"State, Initial electrolyte concentration [mol.m-3]: expected 10 to 10000, got {c_0:g}")
    if state is not None and state.degradation is not None:
        notes.append("the file's state of degradation is left out; the cell is fresh")
    own = dict(_leaves(getattr(file.user_defined, "model_extra", None) or {}))
    negative = _electrode(n, "Negative electrode", c_0, n.maximum_stoichiometry, own, notes)
    positive = _electrode(p, "Positive electrode", c_0, p.minimum_stoichiometry, own, notes)
    efficiency = (n.transport_efficiency, s.transport_efficiency, p.transport_efficiency)
    electrolyte = _electrolyte(file.electrolyte, float(c_0), efficiency, notes)
    thermal = _thermal(cell, state, notes)
    if unread := sorted(name for name in own if name != CONTACT and not _READ.fullmatch(name)):
        notes.append(f"User-defined parameters are left out: {', '.join(unread)}")
    density, heat_capacity = thermal.density_kg_m3, thermal.heat_capacity_J_kgK
    donor = load_cell(AGING_FROM)
    notes.append(
        f"aging is not in the file: film, plating and stress of the negative electrode as in {AGING_FROM},"
        " not fitted to life data"
    )
    made = CellParameters(
        name=re.sub(r"[^a-z0-9_.-]+", "-", name.lower()).strip("-") or "bpx",
        chemistry=str(parsed.header.title or name),
        sources=tuple(filter(None, (parsed.header.references, parsed.header.title, AGING_FROM))),
        does_not_claim=("life: its aging constants belong to another cell", *notes),
        nominal_capacity_Ah=float(cell.nominal_cell_capacity),
        voltage_min_V=float(cell.lower_voltage_cutoff),
        voltage_max_V=float(cell.upper_voltage_cutoff),
        area_m2=float(cell.electrode_area * cell.number_of_electrodes),
        volume_m3=thermal.volume_m3,
        cooling_area_m2=thermal.cooling_area_m2,
        heat_transfer_W_m2K=thermal.heat_transfer_W_m2K,
        reference_temperature_K=float(cell.reference_temperature or _REFERENCE_K),
        separator_thickness_m=float(s.thickness),
        separator_porosity=float(s.porosity),
        separator_density_kg_m3=density,
        separator_heat_capacity_J_kgK=heat_capacity,
        collector_thickness_m=(0.0, 0.0),
        collector_density_kg_m3=(density, density),
        collector_heat_capacity_J_kgK=(heat_capacity, heat_capacity),
        electrode_bruggeman=0.0,
        negative=replace(negative, density_kg_m3=density, heat_capacity_J_kgK=heat_capacity),
        positive=replace(positive, density_kg_m3=density, heat_capacity_J_kgK=heat_capacity),
        electrolyte=electrolyte,
        sei=donor.sei,
        plating=donor.plating,
        lam_negative=donor.lam_negative,
        lam_positive=None,
        valid_temperature_C=(-20.0, 60.0),
        valid_c_rate=(-1.5, 3.0),
        contact_resistance_Ohm=_contact_resistance(own),
        fresh_film_included=True,
    )
    _compare_limits(made, n, p, notes)
    return made


def _compare_limits(cell: CellParameters, n: Any, p: Any, notes: list[str]) -> None:
    """Compare the open-circuit voltages at the stoichiometry limits with the cut-offs: after a charge and after a
    discharge."""
    for what, cut, x_n, x_p, side in (
        ("full", cell.voltage_max_V, n.maximum_stoichiometry, p.minimum_stoichiometry, 1.0),
        ("empty", cell.voltage_min_V, n.minimum_stoichiometry, p.maximum_stoichiometry, -1.0),
    ):
        ocv = _on_branch(cell.positive, x_p, side) - _on_branch(cell.negative, x_n, -side)
        if not math.isfinite(ocv) or ocv <= 0.0:
            raise BpxError(
                f"expected an open-circuit voltage above 0 at the {what} cell's stoichiometries, got {ocv:g} V"
            )
        if abs(ocv - cut) > _LARGEST_MISFIT_V:
            notes.append(
                f"at its {what} stoichiometries the cell rests at {ocv:.3f} V, its cut-off is {cut:g} V;"
                " charge counts between the cut-offs"
            )


def _on_branch(e: ElectrodeParameters, x: float, state: float) -> float:
    """Open-circuit potential of an electrode in this state of its hysteresis [V]."""
    at = np.array([x])
    gap = e.hysteresis.half_gap_V(at)[0] if e.hysteresis else 0.0
    return float(e.ocp_V(at)[0] + state * gap)
