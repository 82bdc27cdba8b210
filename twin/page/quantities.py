"""What the page shows of a vehicle, and what it calls an alarm: each defined once, for server and browser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from datasets.alarms import HOT_C, RISKY
from physics.columns import DIAGNOSTICS, FLAGS, MODES

NONE: Final = -32768
"""On the wire: there is no value."""


@dataclass(frozen=True)
class Quantity:
    """One number a vehicle.

    scale     units shown in one unit of the record: 100 for a ratio shown in percent
    step      resolution on the wire, in units shown; 32,767 of it is the largest number
    low, high ends of the colour scale; None where the fleet's own values decide
    kind      how it is coloured: from little to much, or to both sides of zero; "" for what is no quantity
    """

    name: str
    label: str
    unit: str
    step: float
    scale: float = 1.0
    low: float | None = None
    high: float | None = None
    kind: Literal["much", "sides", "states", ""] = "much"


QUANTITIES: Final = (
    Quantity("soc", "State of charge", "%", 0.01, 100.0, 0.0, 100.0),
    Quantity("soh", "State of health", "%", 0.01, 100.0),
    Quantity("battery_voltage", "Voltage", "V", 0.1),
    Quantity("battery_current", "Current", "A", 0.1, kind="sides"),
    Quantity("battery_temperature", "Temperature", "°C", 0.1),
    Quantity("power_consumption", "Power", "kW", 0.1, kind="sides"),
    Quantity("rul", "Remaining life", "cycles", 1.0),
    Quantity("failure_probability", "Failure risk", "%", 0.01, 100.0, 0.0),
    Quantity("age", "Age of last record", "s", 0.1, low=0.0),
    Quantity("mode", "State", "", 1.0, kind="states"),
    Quantity("driving_speed", "Speed", "km/h", 0.1, low=0.0, kind=""),
    Quantity("flags", "Flags", "", 1.0, kind=""),
    Quantity("diagnostics", "Trouble codes", "", 1.0, kind=""),
)
STATES: Final = tuple(mode.replace("_", " ") for mode in MODES)


@dataclass(frozen=True)
class Alarm:
    """Holds where `of` is above a limit [units shown], or has a bit."""

    name: str
    label: str
    of: str
    above: float | None = None
    bit: int = 0
    critical: bool = False


def alarms(silent_s: float) -> tuple[Alarm, ...]:
    """The worst first. `silent_s`: a vehicle is silent after so long without a record."""
    return (
        Alarm("thermal_runaway", "Thermal runaway", "flags", bit=FLAGS["thermal_runaway"], critical=True),
        Alarm("hot", f"Battery above {HOT_C:g} °C", "battery_temperature", above=HOT_C, critical=True),
        Alarm(
            "risk", f"Failure risk above {100.0 * RISKY:g} %", "failure_probability", above=100.0 * RISKY, critical=True
        ),
        Alarm("silent", f"Silent for more than {silent_s:g} s", "age", above=silent_s),
        Alarm("power_reduced", "Power held back", "flags", bit=FLAGS["power_reduced"]),
        Alarm("stopped", "Stopped until charged", "flags", bit=FLAGS["stopped"]),
        *(
            Alarm(name, f"Trouble code: {name.replace('_', ' ')}", "diagnostics", bit=bit)
            for name, bit in DIAGNOSTICS.items()
        ),
    )
