"""What an owner or an operator can decide about vehicles, for a fork of a fleet (`FleetPhysics.fork`)."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Final

from physics.climate import CITY_NAMES
from physics.default_fleet import USES

_RANGES: Final = {
    "soc_limit": (0.3, 1.0),
    "plug_habit": (0.0, 1.0),
    "charger_W": (500.0, 50_000.0),
    "standby_W": (0.0, 1000.0),
}


@dataclass(frozen=True)
class Policy:
    """The same for all vehicles of a fork, from now on. None: as it is."""

    soc_limit: float | None = None
    """State of charge at which charging at home ends."""
    plug_habit: float | None = None
    """Probability of plugging in at home on an evening above half charge."""
    charger_W: float | None = None
    """AC power from the wall at home."""
    standby_W: float | None = None
    """While parked."""
    city: str | None = None
    """A home of `climate.CITIES`, by name: its weather. The vehicle's clock stays in its time zone."""
    use: str | None = None
    """One of `default_fleet.USES`, from the next day on that has begun in no city."""

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and low <= value <= high):
                raise ValueError(f"expected {name} from {low:g} to {high:g}, got {value}")
        for name, known in (("city", CITY_NAMES), ("use", USES)):
            value = getattr(self, name)
            if value is not None and value not in known:
                raise ValueError(f"expected a {name} of {', '.join(known)}, got {value!r}")

    @property
    def changes(self) -> bool:
        """Does it say anything?"""
        return any(getattr(self, part.name) is not None for part in fields(self))
