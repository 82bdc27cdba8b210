"""The columns of a vehicle's day. Kernels, results and the table in docs/physics.md are derived from this list.

A new column needs an entry here and a line in `accumulate.sum_up` that computes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

HOW: Final = {
    "sum": "over all steps of the day",
    "most": "the largest of all steps",
    "low": "the lowest of the looks",
    "high": "the highest of the looks",
    "mean": "over the looks, weighted with the time since the look before",
    "time": "before each look that finds it so, since the look before",
    "seen": "all bits of all looks",
    "end": "as reported at the end of the day; a skipped day of a life has it interpolated",
    "passed": "in the last charge that passed all of it; 0 if none did",
    "key": "of the row",
}
"""How a column comes about. A look is a report that a vehicle makes for itself: every minute, in lives every twenty
steps (at least every two minutes while driving or charging, every hour while parked), and at the end of the day."""


@dataclass(frozen=True)
class DailyColumn:
    """One column. `unit` is "" for ratios, `how` one of `HOW`, `type` that of its values."""

    name: str
    unit: str
    how: str
    type: type[Any]
    description: str


_FLOAT: Final = np.float32
HIGH_SOC: Final = 0.8
HOT_C: Final = 30.0
WINDOW_SOC: Final = (0.6, 0.75)

DAILY: Final = (
    DailyColumn("vehicle", "", "key", np.int64, "Index of the vehicle in the fleet, as in the truth"),
    DailyColumn("day", "d", "key", np.int32, "The vehicle's local day, days since 1970-01-01"),
    DailyColumn(
        "lived", "", "key", np.int8, "1: simulated in full; 0: skipped by a life, and filled in from days that were not"
    ),
    DailyColumn("cycles", "", "sum", _FLOAT, "Equivalent full cycles of this day"),
    DailyColumn("distance", "km", "sum", _FLOAT, "Distance of this day"),
    DailyColumn("energy_out", "kWh", "sum", _FLOAT, "Energy that left the pack"),
    DailyColumn("energy_charged", "kWh", "sum", _FLOAT, "Energy that came from a charger, at the pack"),
    DailyColumn("energy_recuperated", "kWh", "sum", _FLOAT, "Energy that came back while driving"),
    DailyColumn("time_parked", "h", "sum", _FLOAT, "Time in this mode. The four times add up to what was simulated"),
    DailyColumn("time_driving", "h", "sum", _FLOAT, "Time in this mode"),
    DailyColumn("time_charging", "h", "sum", _FLOAT, "Time in this mode"),
    DailyColumn("time_fast_charging", "h", "sum", _FLOAT, "Time in this mode"),
    DailyColumn("current_out_max", "A", "most", _FLOAT, "Largest pack current out of the battery"),
    DailyColumn("current_in_max", "A", "most", _FLOAT, "Largest pack current into it, above 0"),
    DailyColumn(
        "window_charge",
        "Ah",
        "passed",
        _FLOAT,
        f"Charge of the pack on alternating current while the mean of `cell_voltage_min` and `cell_voltage_max` rose "
        f"from the fresh cell's voltage at rest at {WINDOW_SOC[0]:g} to that at {WINDOW_SOC[1]:g} of its charge",
    ),
    DailyColumn("soc_min", "", "low", _FLOAT, "Of `soc`"),
    DailyColumn("soc_mean", "", "mean", _FLOAT, "Of `soc`"),
    DailyColumn("soc_max", "", "high", _FLOAT, "Of `soc`"),
    DailyColumn("time_soc_high", "h", "time", _FLOAT, f"Time with `soc` of {HIGH_SOC} and more"),
    DailyColumn("temperature_min", "degC", "low", _FLOAT, "Of `cell_temperature_min`, the coldest sensor"),
    DailyColumn("temperature_mean", "degC", "mean", _FLOAT, "Of `battery_temperature`"),
    DailyColumn("temperature_max", "degC", "high", _FLOAT, "Of `cell_temperature_max`, the warmest sensor"),
    DailyColumn("time_hot", "h", "time", _FLOAT, f"Time with `battery_temperature` of {HOT_C:g} degC and more"),
    DailyColumn("cell_voltage_spread", "V", "high", _FLOAT, "Of `cell_voltage_max` - `cell_voltage_min`"),
    DailyColumn("diagnostics", "", "seen", np.int32, "Of `diagnostics`"),
    DailyColumn("resistance_25", "Ohm", "end", _FLOAT, "As last measured"),
    DailyColumn("soh", "", "end", np.float64, "As the BMS estimates it"),
    DailyColumn("charge_cycles", "", "end", np.float64, "Equivalent full cycles since new"),
    DailyColumn("distance_traveled", "km", "end", np.float64, "Odometer"),
)
FIGURES: Final = tuple(column for column in DAILY if column.how != "key")
"""What is computed of a day. Those that need float64 come last."""
