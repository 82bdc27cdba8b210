"""How records leave a vehicle. By default each is sent at once; real fleets send on change, sleep, lose and repeat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CHANGES: Final = {
    "battery_voltage": 0.5,
    "battery_current": 0.5,
    "battery_temperature": 0.5,
    "soc": 0.001,
    "mode": 1.0,
    "flags": 1.0,
    "diagnostics": 1.0,
}
"""A vehicle that sends on change sends when one of these columns has moved so far since its last record [the column's
unit]. The figures are of the order that users set for Tesla's fleet telemetry."""


@dataclass(frozen=True)
class Transmission:
    """Shares are of the records that are due. What is never sent keeps its number, so `seq` has gaps then."""

    on_change: bool = False
    every_s: float = 120.0
    """A vehicle that sends on change is silent for no longer than this."""
    sleep_after_s: float | None = None
    """A vehicle parked for so long sends nothing until it drives or charges."""
    drop: float = 0.0
    """Lost on the way for good."""
    late: float = 0.0
    """Late by up to `late_by_s`; others overtake them."""
    late_by_s: float = 600.0
    repeat: float = 0.0
    """Sent twice."""
    clock_error_s: float = 0.0
    """Standard deviation, between vehicles, of what a device's clock is off by."""

    @property
    def plain(self) -> bool:
        """Whether every record is sent once, at once, with the right time."""
        return self == PLAIN

    @property
    def whole(self) -> bool:
        """Whether every record is sent, once and in order."""
        return not (self.on_change or self.drop or self.late or self.repeat) and self.sleep_after_s is None


PLAIN: Final = Transmission()
