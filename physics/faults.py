"""Kinds of faults, with onset and severity. They are drawn at field rates or injected, and always kept as ground truth.

Sensor faults change what telemetry says, not what the battery does. Plating in cold fast charging is not a fault: the
cell model produces it. Thermal runaway is a terminal event: a cell that reaches 90 degC, the onset of self-heating (T1
in Feng et al. 2018, Energy Storage Mater. 10, 246, doi 10.1016/j.ensm.2017.05.013), takes its vehicle out of service.

By default 2 % of vehicles get a fault in ten years. That is the order of battery replacements outside recalls that
field surveys report (Recurrent 2023: 1.5 %). Kinds are equally likely, severities uniform in the ranges below.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from physics.compiled import inner
from physics.constants import KELVIN
from physics.layout import (
    AMBIENT,
    AREA,
    CONTACT,
    COOLING_HEALTH,
    COOLING_SCALE,
    ELAPSED,
    FAILED,
    FAULT,
    FAULT_ONSET,
    FAULT_SEVERITY,
    HOT_SHARE,
    INV_Q_N,
    LANES,
    MODE,
    NOW,
    PARALLEL,
    POWER_LEFT,
    SPEED,
    TEMPERATURE,
    TRACE,
    TRACE_END,
    TRACE_START,
    VOLTAGE,
    WEAK_SHIFT,
)
from physics.modal import CellModel
from physics.parameters import FloatArray

FAULTS: Final = (
    "none",
    "internal_short",
    "contact_resistance",
    "cooling_loss",
    "cell_imbalance",
    "bad_electrolyte",
    "voltage_offset",
    "voltage_drift",
    "current_offset",
    "current_drift",
    "temperature_offset",
    "temperature_drift",
    "temperature_stuck",
)
SEVERITIES: Final[dict[str, tuple[str, float, float]]] = {
    "internal_short": ("S, conductance across one cell", 0.002, 0.1),
    "contact_resistance": ("of the fresh ohmic resistance, added", 0.3, 2.0),
    "cooling_loss": ("of the cooling, lost", 0.5, 1.0),
    "cell_imbalance": ("of the state of charge, one cell group below the others", 0.02, 0.10),
    "bad_electrolyte": ("of the rate of SEI growth, added", 1.0, 4.0),
    "voltage_offset": ("V, pack", -4.0, 4.0),
    "voltage_drift": ("V a day, pack", -0.05, 0.05),
    "current_offset": ("A, pack", -3.0, 3.0),
    "current_drift": ("A a day, pack", -0.03, 0.03),
    "temperature_offset": ("K", -6.0, 6.0),
    "temperature_drift": ("K a day", -0.05, 0.05),
    "temperature_stuck": ("degC that it reads", 5.0, 35.0),
}
"""Unit, lowest and highest drawn severity of each kind."""

RUNAWAY_K: Final = 90.0 + KELVIN
SHORT_K_W: Final = 30.0
"""How much warmer a shorted cell is than its pack, for its heat: a cell between others and a cold plate."""
_SHORT: Final = float(FAULTS.index("internal_short"))
_CONTACT: Final = float(FAULTS.index("contact_resistance"))
_COOLING: Final = float(FAULTS.index("cooling_loss"))
_IMBALANCE: Final = float(FAULTS.index("cell_imbalance"))
V_OFFSET: Final = float(FAULTS.index("voltage_offset"))
STUCK: Final = float(FAULTS.index("temperature_stuck"))
BAD_ELECTROLYTE: Final = FAULTS.index("bad_electrolyte")


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


@inner
def hottest_K(block: FloatArray, now_s: float, k: int) -> float:
    """Temperature of a pack's warmest cell [K]: the mean, plus its share of the rise over air, plus a short's heat."""
    temperature = block[TEMPERATURE + k]
    shorted = (block[FAULT + k] == _SHORT) & (now_s >= block[FAULT_ONSET + k])
    v = block[VOLTAGE + k]
    short_W = v * v * block[FAULT_SEVERITY + k] if shorted else 0.0
    rise = block[HOT_SHARE + k] * max(temperature - block[AMBIENT + k], 0.0)
    hottest: float = temperature + rise + SHORT_K_W * short_W
    return hottest


@inner
def stand_still(block: FloatArray, k: int) -> None:
    """Park a vehicle where it is: no speed, no trace, no charger."""
    block[MODE + k] = 0.0
    block[SPEED + k] = 0.0
    block[TRACE_START + k], block[TRACE_END + k], block[TRACE + k] = 0.0, 1.0, 0.0


@inner
def fault_of(block: FloatArray, work: FloatArray, k: int, c: CellModel) -> None:
    """Let a vehicle's fault, if it has begun by NOW, act for ELAPSED."""
    now_s, elapsed_s = work[NOW + k], work[ELAPSED + k]
    kind, severity = block[FAULT + k], block[FAULT_SEVERITY + k]
    since = now_s - block[FAULT_ONSET + k]
    begun = since >= 0.0
    fresh = c.r_electrolyte_n + c.r_electrolyte_sp + c.r_solid
    block[CONTACT + k] = severity * fresh if begun & (kind == _CONTACT) else 0.0
    lost = severity if begun & (kind == _COOLING) else 0.0
    block[COOLING_HEALTH + k] = max(1.0 - lost, 0.0)
    block[COOLING_SCALE + k] = max(1.0 - 0.5 * lost, 0.1)
    if begun & (kind == _SHORT):
        drained = block[VOLTAGE + k] * severity * min(elapsed_s, since) / block[PARALLEL + k]
        block[WEAK_SHIFT + k] -= drained * block[INV_Q_N + k] / block[AREA + k]
    if begun & (since < elapsed_s) & (kind == _IMBALANCE):
        block[WEAK_SHIFT + k] -= severity * (c.x_full - c.x_empty)
    if (block[FAILED + k] == 0.0) & (hottest_K(block, now_s, k) >= RUNAWAY_K):
        block[FAILED + k] = 1.0
        block[POWER_LEFT + k] = 0.0
        stand_still(block, k)


@inner
def apply_faults(block: FloatArray, work: FloatArray, c: CellModel) -> None:
    """`fault_of` for all lanes; called every simulated minute."""
    for k in range(LANES):
        fault_of(block, work, k, c)
