"""The columns that a vehicle reports. Everything else that names columns is derived from this list.

A new column needs an entry here and a line in `bms.report` that computes it. The kernels' rows, the schemas
on disk and on the wire, and the tables in the documentation follow. A database needs a migration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

MODES: Final = ("parked", "driving", "charging", "fast_charging")
FLAGS: Final = {
    "outside_valid_range": 1,
    "voltage_limited": 2,
    "power_not_met": 4,
    "thermal_runaway": 8,
    "power_reduced": 16,
    "stopped": 32,
}
"""Bits of `flags`. The first says that the model left its valid range. No vehicle knows that, so it is set in cell
studies only; of a fleet it is in the truth. The last three say what is so now: out of service, power held back for the
weakest cell group (turtle mode), stopped until charged."""
DIAGNOSTICS: Final = {
    "voltage_sensor": 1,
    "current_sensor": 2,
    "temperature_sensor": 4,
    "cell_imbalance": 8,
    "over_temperature": 16,
    "isolation": 32,
    "cell_undervoltage": 64,
}
"""Bits of `diagnostics`, after the OBD codes P0ABB, P0ABF, P0A9B, P0BBE, P0A7E and P0AA6; the
last has no common one. `bms.py` says when each is set."""

_BATTERY: Final = "Vehicle.Powertrain.TractionBattery"


@dataclass(frozen=True)
class Column:
    """One column.

    unit      "" for ratios
    decimals  the finest resolution that any sensor has (`sensors.py`); None for whole numbers
    type      float32 where 1e-7 of the range is finer than the sensor, float64 for accumulators
    vss       the COVESA VSS path
    labels    what the whole numbers 0, 1, .. stand for
    grows     changes slowly and in one direction, so values between two simulated days of a life are interpolated
    since     the schema version that introduced the column
    default   its value in older records
    """

    name: str
    unit: str
    decimals: int | None
    type: type[np.generic]
    description: str
    vss: str | None = None
    labels: tuple[str, ...] = ()
    grows: bool = False
    since: int = 1
    default: Any = None


COLUMNS: Final = (
    Column(
        "soc", "", 6, np.float32, "State of charge as the BMS counts it, 0 to 1", f"{_BATTERY}.StateOfCharge.Current"
    ),
    Column(
        "soh",
        "",
        7,
        np.float64,
        "Capacity over the fresh capacity, 0 to 1, as the BMS estimates it",
        f"{_BATTERY}.StateOfHealth",
        grows=True,
    ),
    Column("battery_voltage", "V", 3, np.float32, "Pack terminal voltage", f"{_BATTERY}.CurrentVoltage"),
    Column(
        "battery_current",
        "A",
        3,
        np.float32,
        "Pack current, positive discharges",
        f"{_BATTERY}.CurrentCurrent",
    ),
    Column(
        "battery_temperature",
        "degC",
        3,
        np.float32,
        "Mean of the temperature sensors",
        f"{_BATTERY}.Temperature.Average",
    ),
    Column("charge_cycles", "", 5, np.float64, "Equivalent full cycles since new, counted by the BMS", grows=True),
    Column(
        "power_consumption",
        "kW",
        4,
        np.float32,
        "Power at the pack terminals, positive discharges",
        f"{_BATTERY}.CurrentPower",
    ),
    Column("cell_voltage_min", "V", 5, np.float32, "Lowest cell group of the pack", f"{_BATTERY}.CellVoltage.Min"),
    Column("cell_voltage_max", "V", 5, np.float32, "Highest cell group of the pack", f"{_BATTERY}.CellVoltage.Max"),
    Column("cell_temperature_min", "degC", 3, np.float32, "Coldest sensor", f"{_BATTERY}.Temperature.Min"),
    Column("cell_temperature_max", "degC", 3, np.float32, "Warmest sensor", f"{_BATTERY}.Temperature.Max"),
    Column("resistance", "Ohm", 6, np.float32, "Pack resistance of a 10 s pulse at 1C, now", grows=True),
    Column("ambient_temperature", "degC", 3, np.float32, "Outside air", "Vehicle.Exterior.AirTemperature"),
    Column("mode", "", None, np.int8, "One of " + ", ".join(MODES), labels=MODES),
    Column("driving_speed", "km/h", 3, np.float32, "Vehicle speed", "Vehicle.Speed"),
    Column("distance_traveled", "km", 4, np.float64, "Odometer", "Vehicle.TraveledDistance", grows=True),
    Column(
        "flags", "", None, np.int32, "Bit field of physics.FLAGS: what happened since the last record; 0 if nothing"
    ),
    Column(
        "resistance_25",
        "Ohm",
        6,
        np.float32,
        "The same pulse referred to 25 degC; 0 in records of schema 1",
        grows=True,
        since=2,
        default=0.0,
    ),
    Column(
        "diagnostics",
        "",
        None,
        np.int32,
        "Bit field of physics.DIAGNOSTICS: trouble codes of the BMS; 0 if there are none",
        since=2,
        default=0,
    ),
)
NAMES: Final = tuple(column.name for column in COLUMNS)
TYPES: Final[dict[str, type[np.generic]]] = {column.name: column.type for column in COLUMNS}
PER_UNIT: Final = np.array([1.0 if column.decimals is None else 10.0**column.decimals for column in COLUMNS])
"""Finest resolution steps in one unit of each column, shape (columns,)."""
