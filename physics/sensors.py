"""How the sensors and the battery management system (BMS) of a vehicle err: profiles, and the draws for each vehicle.

A channel reads `(1 + gain) x + offset + noise`, rounded to its resolution. Offset and gain belong to the vehicle
(normal draws, cut at three standard deviations), noise to the reading. `bms.py` applies them.

`typical` is a present passenger car. Resolutions are those at which cars report: 0.1 V, 0.1 A, 0.5 degC, 0.1 % SoC,
1 mV a cell. Offsets and gains are of the order that data sheets give for the parts: a cell monitor 1 to 2 mV, an NTC
probe 0.5 K, a shunt 0.1 to 0.5 % with its zero corrected at every stop. `poor` has the resolution of GB/T 32960 records
(1 % SoC, 1 degC) and parts a few times worse. `ideal` reports the truth at the finest resolution.

The state of charge is checked against the field: in 98 real vehicles it was 3.2 +- 2.8 points below that of the
open-circuit voltage. So the BMS's own table of open-circuit voltages is taken to be off by `soc.bias` +- `soc.spread`.
Counting and correction add their part; `twin validate reports` prints what comes out. Real SoH reports range from
always 100 % to wrong by tens of points: a share `soh.fixed` of vehicles never moves from 1, the others are off by
`soh.spread` (relative) and follow with the time constant `soh.days`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Final, Self

import numpy as np

from physics.columns import COLUMNS
from physics.parameters import FloatArray

LIMIT_SD: Final = 3.0
PROBES: Final = 8.0
"""Temperature sensors in a pack. A faulty one pulls the mean by an eighth of its error."""
SOH_FIXED: Final = 1e9
"""SOH_BIAS of a vehicle whose BMS always reports a SoH of 1."""


def _checked(part: Any, lows: Mapping[str, tuple[float, float]]) -> None:
    """Raise a ValueError that names the first figure of `part` outside its range."""
    for name, (low, high) in lows.items():
        value = getattr(part, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ValueError(f"expected {name} from {low:g} to {high:g}, got {value!r}")


def _resolution(value: float) -> None:
    steps = 1.0 / value if isinstance(value, int | float) and value > 0.0 else 0.0
    if steps < 1.0 or abs(steps - round(steps)) > 1e-6 * steps:
        raise ValueError(f"expected a resolution of 1 or a whole part of it, such as 0.5, 0.1 or 0.001, got {value!r}")


@dataclass(frozen=True)
class Channel:
    """One kind of sensor, in its unit (V, A, degC). Standard deviations, but for the resolution. `gain` is relative to
    the reading, of a temperature to its distance from 25 degC."""

    offset: float
    gain: float
    noise: float
    resolution: float

    def __post_init__(self) -> None:
        _checked(self, {"offset": (0.0, 100.0), "gain": (0.0, 0.5), "noise": (0.0, 100.0)})
        _resolution(self.resolution)


@dataclass(frozen=True)
class ResistanceEstimate:
    """Pulse resistance [Ohm] as the BMS estimates it; `gain` is a relative standard deviation between vehicles."""

    gain: float
    resolution: float

    def __post_init__(self) -> None:
        _checked(self, {"gain": (0.0, 0.5)})
        _resolution(self.resolution)


@dataclass(frozen=True)
class SocEstimate:
    """State of charge by counting charge, set right at rest and when full."""

    bias: float
    """Mean over vehicles of what the table of open-circuit voltages is off by, as SoC."""
    spread: float
    rest_hours: float
    """At rest for so long, the voltage is taken for the open-circuit voltage."""
    ocv: float
    """What the BMS trusts that voltage to [V]: sensors, relaxation, hysteresis, temperature."""
    resolution: float

    def __post_init__(self) -> None:
        ranges = {"bias": (-0.3, 0.3), "spread": (0.0, 0.3), "rest_hours": (0.1, 100.0), "ocv": (1e-4, 1.0)}
        _checked(self, ranges)
        _resolution(self.resolution)


@dataclass(frozen=True)
class SohEstimate:
    """State of health by the BMS's own slow estimate."""

    fixed: float
    """Share of vehicles that always report 1."""
    spread: float
    days: float
    """Time constant with which it follows."""
    resolution: float

    def __post_init__(self) -> None:
        _checked(self, {"fixed": (0.0, 1.0), "spread": (0.0, 0.5), "days": (0.1, 10_000.0)})
        _resolution(self.resolution)


@dataclass(frozen=True)
class Sensors:
    """One profile."""

    name: str
    pack_voltage: Channel
    pack_current: Channel
    cell_voltage: Channel
    temperature: Channel
    soc: SocEstimate
    soh: SohEstimate
    resistance: ResistanceEstimate
    counters: float = 0.01
    """Resolution of equivalent full cycles, power [kW] and distance [km]."""
    speed: float = 0.1
    """Resolution [km/h]."""
    knows_all: bool = field(default=False)
    """State of charge and health are the truth, not estimates: `ideal`."""

    def __post_init__(self) -> None:
        _resolution(self.counters)
        _resolution(self.speed)

    @classmethod
    def of(cls, figures: Mapping[str, Any]) -> Self:
        """A profile from a mapping: `base`, a profile's name (default typical), and the figures that differ from it,
        as in {"base": "typical", "pack_current": {"offset": 0.2}}. A one-line ValueError says what is wrong."""
        base = figures.get("base", "typical")
        if base not in PROFILES:
            raise ValueError(f"expected base to be one of {', '.join(PROFILES)}, got {base!r}")
        profile: Any = replace(PROFILES[base], name="own")
        for part, given in figures.items():
            if part == "base":
                continue
            known = [f.name for f in fields(cls) if f.name not in ("name", "knows_all")]
            if part not in known:
                raise ValueError(f"expected one of base, {', '.join(known)}, got {part!r}")
            try:
                profile = replace(profile, **{part: _part(getattr(profile, part), given)})
            except ValueError as error:
                raise ValueError(f"{part}: {error}") from None
        return profile

    def figures(self) -> dict[str, Any]:
        """All figures of a profile that is not one of the named, from which `of` makes it again."""
        return {"base": "ideal" if self.knows_all else "typical"} | {
            name: value for name, value in asdict(self).items() if name not in ("name", "knows_all")
        }

    def steps(self) -> FloatArray:
        """Resolution steps in one unit of each column, shape (columns,)."""
        of = {
            "soc": self.soc.resolution,
            "soh": self.soh.resolution,
            "battery_voltage": self.pack_voltage.resolution,
            "battery_current": self.pack_current.resolution,
            "cell_voltage_min": self.cell_voltage.resolution,
            "cell_voltage_max": self.cell_voltage.resolution,
            "resistance": self.resistance.resolution,
            "resistance_25": self.resistance.resolution,
            "driving_speed": self.speed,
        } | dict.fromkeys(("charge_cycles", "power_consumption", "distance_traveled"), self.counters)
        finest = [1.0 if column.decimals is None else 10.0**column.decimals for column in COLUMNS]
        per_unit = [
            1.0 / of.get(column.name, self.temperature.resolution if column.unit == "degC" else 1.0 / most)
            for column, most in zip(COLUMNS, finest, strict=True)
        ]
        return np.minimum(np.round(per_unit), finest)


def _part(before: Any, given: Any) -> Any:
    """A part of a profile with the figures given for it."""
    if isinstance(before, float):
        if isinstance(given, bool) or not isinstance(given, int | float):
            raise ValueError(f"expected a number, got {given!r}")
        return float(given)
    if not isinstance(given, Mapping):
        raise ValueError(f"expected figures such as {fields(before)[0].name}: 0.1, got {given!r}")
    known = [f.name for f in fields(before)]
    for name in given:
        if name not in known:
            raise ValueError(f"expected one of {', '.join(known)}, got {name!r}")
    return replace(before, **given)


PROFILES: Final[dict[str, Sensors]] = {
    "ideal": Sensors(
        "ideal",
        pack_voltage=Channel(0.0, 0.0, 0.0, 1e-3),
        pack_current=Channel(0.0, 0.0, 0.0, 1e-3),
        cell_voltage=Channel(0.0, 0.0, 0.0, 1e-5),
        temperature=Channel(0.0, 0.0, 0.0, 1e-3),
        soc=SocEstimate(bias=0.0, spread=0.0, rest_hours=1.0, ocv=0.005, resolution=1e-6),
        soh=SohEstimate(fixed=0.0, spread=0.0, days=1.0, resolution=1e-7),
        resistance=ResistanceEstimate(0.0, 1e-6),
        counters=1e-5,
        speed=1e-3,
        knows_all=True,
    ),
    "typical": Sensors(
        "typical",
        pack_voltage=Channel(offset=0.3, gain=0.001, noise=0.05, resolution=0.1),
        pack_current=Channel(offset=0.05, gain=0.003, noise=0.1, resolution=0.1),
        cell_voltage=Channel(offset=0.0015, gain=0.0, noise=0.0005, resolution=0.001),
        temperature=Channel(offset=0.5, gain=0.0, noise=0.05, resolution=0.5),
        soc=SocEstimate(bias=-0.042, spread=0.026, rest_hours=1.0, ocv=0.005, resolution=0.001),
        soh=SohEstimate(fixed=0.1, spread=0.03, days=90.0, resolution=0.005),
        resistance=ResistanceEstimate(gain=0.05, resolution=0.001),
    ),
    "poor": Sensors(
        "poor",
        pack_voltage=Channel(offset=1.0, gain=0.003, noise=0.2, resolution=0.1),
        pack_current=Channel(offset=0.3, gain=0.01, noise=0.3, resolution=0.1),
        cell_voltage=Channel(offset=0.004, gain=0.0, noise=0.002, resolution=0.001),
        temperature=Channel(offset=1.0, gain=0.0, noise=0.2, resolution=1.0),
        soc=SocEstimate(bias=-0.042, spread=0.04, rest_hours=3.0, ocv=0.01, resolution=0.01),
        soh=SohEstimate(fixed=0.4, spread=0.08, days=180.0, resolution=0.01),
        resistance=ResistanceEstimate(gain=0.15, resolution=0.001),
        counters=0.1,
        speed=0.1,
    ),
}
DEFAULT_SENSORS: Final = "typical"
