"""Kinds of faults: what each does, how often it comes and how bad it is. They are drawn or injected, and always kept as
ground truth.

A kind is one record of `KINDS` and a branch of `see_faults` or `act_faults`. A vehicle has up to `SLOTS` faults, each
with an onset, and several may act at once. Sensor faults change what telemetry says, not what the battery does. Plating
in cold fast charging is not a fault: the cell model produces it.

An internal short begins at a thousandth of its severity and grows to it within `GROWN_DAYS` (assumed: from days to
months are reported between the first trace and the fire). It drains its cell group and heats its cell, which also heats
itself: a cell's decomposition follows
    dT/dt = r exp(Ea/R (1/T1 - 1/T)) ,   r = 0.02 K/min at T1 = 90 degC ,   Ea = 135 kJ/mol .
T1 is where self-heating is first seen in a calorimeter (Feng et al. 2018, Energy Storage Mater. 10, 246, doi
10.1016/j.ensm.2017.05.013); Ea is that of the film's and the negative electrode's decomposition (Hatchard et al. 2001,
J. Electrochem. Soc. 148, A755, doi 10.1149/1.1377592; Kim et al. 2007, J. Power Sources 170, 476, doi
10.1016/j.jpowsour.2007.04.018). Reactants do not run out. At `RUNAWAY_K` the rate is 11 K/min and nothing stops it:
thermal runaway takes the vehicle out of service. A cell loses its heat to its neighbours and the cold plate
(`SHORT_K_W`).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from physics.compiled import inner
from physics.constants import DAY_S, GAS_CONSTANT, KELVIN, YEAR_S
from physics.layout import (
    A_WRONG,
    AMBIENT,
    AREA,
    CELL_WRONG,
    CONTACT,
    COOLING_HEALTH,
    COOLING_SCALE,
    ELAPSED,
    FAILED,
    FAULT,
    FAULT_ONSET,
    FAULT_SEVERITY,
    FAULT_SLOTS,
    HOT_SHARE,
    INV_Q_N,
    ISOLATION,
    K_STUCK,
    K_WRONG,
    LANES,
    MODE,
    NOW,
    PARALLEL,
    PARKED_W,
    POWER_LEFT,
    SEI_EXTRA,
    SERIES_OHM,
    SHORT_K,
    SHORT_S,
    SPEED,
    STANDBY,
    TEMPERATURE,
    TRACE,
    TRACE_END,
    TRACE_START,
    V_LOWEST,
    V_WRONG,
    VOLTAGE,
    WEAK_LOST,
    WEAK_SHIFT,
)
from physics.maths import clip
from physics.modal import CellModel
from physics.parameters import FloatArray
from physics.rng import uniforms

_FIELD: Final = "assumed; all kinds that replace a battery together 2 % in ten years (Recurrent 2023: 1.5 %)"
_ASSUMED: Final = "assumed"


@dataclass(frozen=True)
class Kind:
    """One kind of fault. `low` and `high` bound the severities drawn, evenly or, with `log`, in their logarithm."""

    name: str
    unit: str
    low: float
    high: float
    rate: float
    """Per vehicle and year."""
    source: str
    """Of the rate."""
    effect: str
    log: bool = False
    born: bool = False
    """There from the beginning, in as many vehicles as the rate gives in ten years."""

    def severities(self, u: FloatArray) -> FloatArray:
        """Severities from uniform numbers, shape (n,)."""
        if self.log:
            return np.asarray(self.low * (self.high / self.low) ** u)
        return np.asarray(self.low + (self.high - self.low) * u)


KINDS: Final = (
    Kind(
        "internal_short", "S, conductance across one cell in the end", 1e-4, 1.0, 3e-5,
        "runaways then come at 5e-6: 511 verified fires to June 2024 (EV FireSafe 2024) in some 1e8 vehicle-years",
        "drains its group, heats its cell, and above about 0.25 S ends in thermal runaway; grows over ten days",
        log=True,
    ),
    Kind("weak_group", "of the capacity, lost by one cell group", 0.05, 0.5, 6e-4, _FIELD,
         "the group is full and empty before the others"),
    Kind("cell_imbalance", "of the state of charge a day, lost by one cell group", 0.002, 0.03, 6e-4, _FIELD,
         "the group falls behind faster than balancing brings it back", log=True),
    Kind("cooling_loss", "of the cooling, lost", 0.5, 1.0, 3e-4, _FIELD, "pump or valve: the pack is warmer"),
    Kind("contact_resistance", "of the fresh ohmic resistance, added", 0.3, 2.0, 2e-4, _FIELD,
         "more resistance and heat in every cell group"),
    Kind("bad_electrolyte", "of the rate of SEI growth, added", 1.0, 4.0, 2e-4, _FIELD, "a bad batch ages faster",
         born=True),
    Kind("moisture", "of the rate of SEI growth, added", 0.5, 3.0, 1e-4, _FIELD,
         "water has come in through a seal: from then on cells age faster"),
    Kind("isolation_fault", "S, conductance from the battery to the chassis", 1e-6, 1e-3, 5e-4, _ASSUMED,
         "the code `isolation`, where less than 100 Ohm a volt are left (UN R100)", log=True),
    Kind("contactor_resistance", "Ohm, in series with the pack", 0.002, 0.1, 3e-4, _ASSUMED,
         "the pack's voltage is off by its current times this; the cells' are not", log=True),
    Kind("standby_drain", "W, drawn while parked", 10.0, 150.0, 1e-3, _ASSUMED,
         "a control unit that does not sleep, or a bad 12 V battery: charge is lost while parked", log=True),
    Kind("voltage_offset", "V, pack", -12.0, 12.0, 2e-4, _ASSUMED, "the pack's reading is off"),
    Kind("voltage_drift", "V a day, pack", -0.05, 0.05, 2e-4, _ASSUMED, "the pack's reading drifts, up to 20 V"),
    Kind("current_offset", "A, pack", -3.0, 3.0, 2e-4, _ASSUMED, "the current's reading is off, and so the counting"),
    Kind("current_drift", "A a day, pack", -0.03, 0.03, 2e-4, _ASSUMED, "the same, growing up to 10 A"),
    Kind("temperature_offset", "K", -6.0, 6.0, 2e-4, _ASSUMED, "one probe is off"),
    Kind("temperature_drift", "K a day", -0.05, 0.05, 2e-4, _ASSUMED, "one probe drifts, up to 25 K"),
    Kind("temperature_stuck", "degC that it reads", 5.0, 35.0, 2e-4, _ASSUMED, "one probe does not move"),
    Kind("cell_voltage_offset", "V, of the lowest group's channel", -0.2, 0.2, 2e-4, _ASSUMED,
         "the lowest cell voltage is off"),
)  # fmt: skip
"""The gravest first: of several faults that act, the truth's `fault` is the first of these."""
FAULTS: Final = ("none", *(kind.name for kind in KINDS))
SEVERITIES: Final[dict[str, tuple[str, float, float]]] = {kind.name: (kind.unit, kind.low, kind.high) for kind in KINDS}
"""Unit, lowest and highest drawn severity of each kind."""
SLOTS: Final = FAULT_SLOTS
DRAWN_YEARS: Final = 30.0
"""Faults with a later onset are not drawn."""
SHARE_YEARS: Final = 10.0
"""A share of faulty vehicles is that within so many years."""

RUNAWAY_K: Final = 150.0 + KELVIN
SHORT_K_W: Final = 30.0
"""How much warmer a shorted cell is than its pack, for its heat: a cell between others and a cold plate."""
CELL_J_K: Final = 70.0
"""Heat capacity of one cell: 70 g at 1000 J/(kg K), a 21700 or a 26650."""
GROWN_DAYS: Final = 10.0
"""From the onset of a short to its severity."""
GROWTH: Final = math.log(1000.0)
T1_K: Final = 90.0 + KELVIN
T1_RATE: Final = 0.02 / 60.0  # [K/s]
DECOMPOSITION_J_MOL: Final = 1.3508e5
_TAU_S: Final = SHORT_K_W * CELL_J_K
_HEAT_STEP_S: Final = 30.0
_SETTLED_S: Final = 6.0 * _TAU_S
DANGEROUS_K: Final = 25.0
"""A short that warms its cell by less than this is far from a runaway, whatever the weather."""
NOT_STUCK: Final = -1e3
"""K_STUCK of a vehicle whose probes all move [degC]."""
DRIFT_MAX_V: Final = 20.0
DRIFT_MAX_A: Final = 10.0
DRIFT_MAX_K: Final = 25.0


def _number(name: str) -> float:
    return float(FAULTS.index(name))


_SHORT: Final = _number("internal_short")
_WEAK: Final = _number("weak_group")
_IMBALANCE: Final = _number("cell_imbalance")
_COOLING: Final = _number("cooling_loss")
_CONTACT: Final = _number("contact_resistance")
_BAD: Final = _number("bad_electrolyte")
_MOISTURE: Final = _number("moisture")
_ISOLATION: Final = _number("isolation_fault")
_CONTACTOR: Final = _number("contactor_resistance")
_STANDBY: Final = _number("standby_drain")
_V_OFFSET: Final = _number("voltage_offset")
_V_DRIFT: Final = _number("voltage_drift")
_A_OFFSET: Final = _number("current_offset")
_A_DRIFT: Final = _number("current_drift")
_K_OFFSET: Final = _number("temperature_offset")
_K_DRIFT: Final = _number("temperature_drift")
_K_STUCK: Final = _number("temperature_stuck")
_CELL_OFFSET: Final = _number("cell_voltage_offset")
BAD_ELECTROLYTE: Final = round(_BAD)


@dataclass(frozen=True)
class Fault:
    """One fault of one vehicle: `kind` of `FAULTS`, `onset_s` in seconds since 1970, `severity` in the kind's unit."""

    kind: str
    onset_s: float
    severity: float

    def __post_init__(self) -> None:
        if self.kind not in SEVERITIES:
            raise ValueError(f"expected a fault of {', '.join(SEVERITIES)}, got {self.kind!r}")
        if not (math.isfinite(self.onset_s) and math.isfinite(self.severity)):
            raise ValueError(f"expected a finite onset and severity, got {self.onset_s} and {self.severity}")
        _, low, _ = SEVERITIES[self.kind]
        if low >= 0.0 and self.severity < 0.0:
            raise ValueError(f"expected a severity of {self.kind} from 0 up, got {self.severity}")


def draw_faults(
    seed: int,
    vehicle: npt.NDArray[np.int64],
    share: float | None,
    start_s: float,
    kinds: Sequence[Kind] = KINDS,
) -> tuple[npt.NDArray[np.int64], FloatArray, FloatArray]:
    """(index in FAULTS, onset, severity) of the faults of each vehicle, each of shape (n, SLOTS), by onset.

    Each kind comes once at most, after an exponential time at its rate. With a `share` all rates are multiplied so that
    this share of vehicles has a fault within `SHARE_YEARS` of `start_s`; None leaves the rates of the field. A kind's
    draws hang on its name, so they are the same whichever other kinds there are. Of more than SLOTS faults the last are
    left out.
    """
    total = sum(kind.rate for kind in kinds)
    times = 1.0 if share is None else -math.log1p(-share) / (SHARE_YEARS * total)
    shape = (vehicle.size, SLOTS)
    fault, onset, severity = np.zeros(shape, dtype=np.int64), np.full(shape, math.inf), np.zeros(shape)
    for kind in kinds if times > 0.0 else ():
        stream = zlib.crc32(kind.name.encode())
        years = -np.log(uniforms(seed, stream, vehicle)) / (kind.rate * times)
        of = np.flatnonzero(years < (SHARE_YEARS if kind.born else DRAWN_YEARS))
        since = np.zeros(of.size) if kind.born else start_s + YEAR_S * years[of]
        drawn = kind.severities(uniforms(seed, stream, vehicle[of], 1))
        new = np.full(of.size, FAULTS.index(kind.name)), since, drawn
        for slot in range(SLOTS):  # insert by onset; what is later moves on to the next slot
            sooner = new[1] < onset[of, slot]
            for rows, values in zip((fault, onset, severity), new, strict=True):
                rows[of, slot], values[:] = (
                    np.where(sooner, values, rows[of, slot]),
                    np.where(sooner, rows[of, slot], values),
                )
    return fault, np.where(fault > 0, onset, 0.0), severity


@inner
def hottest_K(block: FloatArray, k: int) -> float:
    """Temperature of a pack's warmest cell [K]: the mean, plus its share of the rise over air, plus a short's heat."""
    temperature = block[TEMPERATURE + k]
    rise = block[HOT_SHARE + k] * max(temperature - block[AMBIENT + k], 0.0)
    hottest: float = temperature + rise + block[SHORT_K + k]
    return hottest


@inner
def stand_still(block: FloatArray, k: int) -> None:
    """Park a vehicle where it is: no speed, no trace, no charger."""
    block[MODE + k] = 0.0
    block[SPEED + k] = 0.0
    block[TRACE_START + k], block[TRACE_END + k], block[TRACE + k] = 0.0, 1.0, 0.0


@inner
def grown(since_s: float) -> float:
    """Share of its severity that a short has `since_s` after its onset."""
    return math.exp(GROWTH * min(since_s * (1.0 / (GROWN_DAYS * DAY_S)) - 1.0, 0.0))


@inner
def see_faults(block: FloatArray, now_s: float, k: int, c: CellModel) -> None:
    """What a vehicle's faults that have begun change now. Only from their slots, so it may be done at any time."""
    block[PARKED_W + k] = block[STANDBY + k]
    if block[FAULT + k] == 0.0:
        return
    contact = lost = sei = short = weak = drain = volt = amp = kelvin = cell = series = isolation = 0.0
    stuck = NOT_STUCK
    for slot in range(0, SLOTS * LANES, LANES):
        kind, severity = block[FAULT + slot + k], block[FAULT_SEVERITY + slot + k]
        since_s = now_s - block[FAULT_ONSET + slot + k]
        if kind == 0.0 or since_s < 0.0:
            continue
        drifted = severity * since_s * (1.0 / DAY_S)
        if kind == _SHORT:
            short = severity * grown(since_s)
        elif kind == _WEAK:
            weak = severity
        elif kind == _COOLING:
            lost = severity
        elif kind == _CONTACT:
            contact = severity * (c.r_electrolyte_n + c.r_electrolyte_sp + c.r_solid)
        elif kind in (_BAD, _MOISTURE):
            sei += severity
        elif kind == _ISOLATION:
            isolation = severity
        elif kind == _CONTACTOR:
            series = severity
        elif kind == _STANDBY:
            drain = severity
        elif kind == _V_OFFSET:
            volt += severity
        elif kind == _V_DRIFT:
            volt += clip(drifted, -DRIFT_MAX_V, DRIFT_MAX_V)
        elif kind == _A_OFFSET:
            amp += severity
        elif kind == _A_DRIFT:
            amp += clip(drifted, -DRIFT_MAX_A, DRIFT_MAX_A)
        elif kind == _K_OFFSET:
            kelvin += severity
        elif kind == _K_DRIFT:
            kelvin += clip(drifted, -DRIFT_MAX_K, DRIFT_MAX_K)
        elif kind == _K_STUCK:
            stuck = severity
        elif kind == _CELL_OFFSET:
            cell = severity
    block[CONTACT + k] = contact
    block[COOLING_HEALTH + k] = max(1.0 - lost, 0.0)
    block[COOLING_SCALE + k] = max(1.0 - 0.5 * lost, 0.1)
    block[SEI_EXTRA + k] = sei
    block[SHORT_S + k] = short
    block[WEAK_LOST + k] = weak
    block[PARKED_W + k] += drain
    block[V_WRONG + k], block[A_WRONG + k], block[K_WRONG + k], block[K_STUCK + k] = volt, amp, kelvin, stuck
    block[CELL_WRONG + k], block[SERIES_OHM + k], block[ISOLATION + k] = cell, series, isolation


@inner
def _group_V(block: FloatArray, k: int) -> float:
    """Voltage of the weakest cell group, in which shorts are."""
    return max(block[VOLTAGE + k] + block[V_LOWEST + k], 0.0)


@inner
def heated(excess_K: float, around_K: float, heat_W: float, elapsed_s: float) -> float:
    """How much warmer than `around_K` a cell is after `elapsed_s` of `heat_W` and its own heat, from `excess_K`; at
    `RUNAWAY_K` it ends."""
    left = min(elapsed_s, _SETTLED_S)  # by then it is as warm as it will be
    while left > 0.0 and around_K + excess_K < RUNAWAY_K:
        step = min(left, _HEAT_STEP_S)
        own = T1_RATE * math.exp(DECOMPOSITION_J_MOL / GAS_CONSTANT * (1.0 / T1_K - 1.0 / (around_K + excess_K)))
        end = (heat_W * (1.0 / CELL_J_K) + own) * _TAU_S
        excess_K = end + math.exp(-step / _TAU_S) * (excess_K - end)
        left -= step
    return excess_K


@inner
def act_faults(block: FloatArray, work: FloatArray, k: int, c: CellModel) -> None:
    """Let what adds up of a vehicle's faults, as `see_faults` has left them, act for ELAPSED up to NOW: charge that a
    group loses, and a cell's heat, which may end in thermal runaway."""
    now_s, elapsed_s = work[NOW + k], work[ELAPSED + k]
    for slot in range(0, SLOTS * LANES, LANES):
        kind = block[FAULT + slot + k]
        if kind in (_SHORT, _IMBALANCE):
            active_s = clip(now_s - block[FAULT_ONSET + slot + k], 0.0, elapsed_s)
            leak = _group_V(block, k) * block[SHORT_S + k] / block[PARALLEL + k] * block[INV_Q_N + k] / block[AREA + k]
            loses = block[FAULT_SEVERITY + slot + k] * (c.x_full - c.x_empty) * (1.0 / DAY_S)
            lost = active_s * (leak if kind == _SHORT else loses)
            block[WEAK_SHIFT + k] = max(block[WEAK_SHIFT + k] - lost, -1.0)
    around_K = hottest_K(block, k) - block[SHORT_K + k]
    works = block[FAILED + k] == 0.0
    short_W = _group_V(block, k) * _group_V(block, k) * block[SHORT_S + k] if works else 0.0
    if short_W > 0.0 or block[SHORT_K + k] > 0.0 or around_K > T1_K:
        if works:
            block[SHORT_K + k] = heated(block[SHORT_K + k], around_K, short_W, elapsed_s)
        else:
            block[SHORT_K + k] *= math.exp(-elapsed_s / _TAU_S)
    if works and hottest_K(block, k) >= RUNAWAY_K:
        block[FAILED + k] = 1.0
        block[POWER_LEFT + k] = 0.0
        stand_still(block, k)


@inner
def apply_faults(block: FloatArray, work: FloatArray, c: CellModel) -> None:
    """Let the faults of all lanes act; called every simulated minute."""
    for k in range(LANES):
        see_faults(block, work[NOW + k], k, c)
        act_faults(block, work, k, c)


@inner
def calm_until(block: FloatArray, now_s: float, k: int) -> float:
    """Time until which none of a vehicle's faults can end in a runaway [s since 1970]: now, if one can already."""
    until = math.inf
    for slot in range(0, SLOTS * LANES, LANES):
        if block[FAULT + slot + k] == _SHORT and block[FAILED + k] == 0.0:
            onset_s, severity = block[FAULT_ONSET + slot + k], block[FAULT_SEVERITY + slot + k]
            growing = now_s < onset_s + GROWN_DAYS * DAY_S
            volt = block[VOLTAGE + k] if growing else _group_V(block, k)
            if volt * volt * severity * SHORT_K_W > DANGEROUS_K:
                until = min(until, max(onset_s, now_s))
    return until
