"""The regulatory speed traces we ship: UDDS, HWFET, US06, WLTC class 3b. Source and licence:
`datasets/cycles/NOTICE`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
import numpy.typing as npt

_NAMES = ("udds", "hwfet", "us06", "wltc_3b")


@dataclass(frozen=True)
class DriveCycle:
    """A speed trace at 1 Hz from rest to rest; `speed_mps` has shape (seconds + 1,) and cannot be written to."""

    name: str
    speed_mps: npt.NDArray[np.float64]
    distance_km: float


def drive_cycle_names() -> tuple[str, ...]:
    """Names that `load_drive_cycle` takes."""
    return _NAMES


@cache
def load_drive_cycle(name: str) -> DriveCycle:
    """A trace by its name."""
    if name not in _NAMES:
        raise ValueError(f"unknown drive cycle {name!r}; known: {', '.join(_NAMES)}")
    text = (files("datasets") / "cycles" / f"{name}.csv").read_text(encoding="ascii")
    speed = np.array([float(line.split(",")[1]) for line in text.splitlines()[1:]])
    speed.setflags(write=False)
    return DriveCycle(name, speed, float(np.sum(0.5 * (speed[1:] + speed[:-1]))) / 1000.0)
