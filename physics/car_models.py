"""Four vehicle models, each after a real one: mass, drag, pack, heating of the cabin, fast charging.

Masses, drag and packs are those of the makers' data sheets. Fast charging is the power that the real car was seen to
take, against the state of charge that it showed, from measured sessions:

small    Renault Zoe ZE50: 46 kW up to 30 %, falling to 25 kW at 80 %, 36 kW on average from 20 to 80 % (Fastned's
         curve, in tomshw.it, "Renault Zoe, ricarica rapida sotto le aspettative")
medium   VW ID.3 Pro: 100 kW up to 30 %, falling to 50 kW at 70 %, held until 81 %, 25 kW at 94 %; 70 kW on average from
         20 to 80 % (InsideEVs' analysis of Fastned's curve)
large    Tesla Model 3 Long Range, 2021: 100 kW at once, 250 kW from 10 to 18 %, 140 kW from 28 to 40 %, 52 kW at 80 %,
         36 kW at 90 %; 106 kW on average from 20 to 80 % (InsideEVs, Moloughney)
van      VW ID. Buzz Cargo, with pack and charging of the ID.4: 128 kW up to 30 %, 95 kW at 50 %; 2 to 80 % in 38 min
         (InsideEVs' test of the ID.4)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from physics.default_fleet import MODEL_SHARES

Curve = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class CarModel:
    """A vehicle model."""

    like: str
    """The real one."""
    pack_kWh: float
    """Of all cells, new."""
    curb_mass_kg: float
    drag_area_m2: float
    """Drag coefficient times frontal area."""
    cabin_W_K: float
    """Heat that the cabin needs per kelvin below comfort."""
    heat_pump: bool
    fast_kW: Curve
    """(state of charge, power at the pack [kW]) of a warm battery at a charger that gives what the car asks for."""
    range_km: float
    """Distance of one equivalent full cycle, over a year."""

    def __post_init__(self) -> None:
        socs = [soc for soc, _ in self.fast_kW]
        if socs != sorted(set(socs)) or socs[0] != 0.0 or socs[-1] != 1.0 or min(kW for _, kW in self.fast_kW) <= 0.0:
            raise ValueError(
                f"expected a curve of powers above 0 at rising states of charge from 0 to 1, got {self.fast_kW}"
            )


CAR_MODELS: Final[dict[str, CarModel]] = {
    "small": CarModel(
        "Renault Zoe ZE50", 54.7, 1502.0, 0.75, 110.0, True,
        ((0.0, 40.0), (0.03, 46.0), (0.3, 46.0), (0.8, 25.0), (0.9, 15.0), (1.0, 5.0)), 340.0,
    ),
    "medium": CarModel(
        "VW ID.3 Pro", 62.0, 1730.0, 0.63, 130.0, False,
        ((0.0, 70.0), (0.05, 100.0), (0.3, 100.0), (0.7, 50.0), (0.81, 50.0), (0.94, 25.0), (1.0, 8.0)), 380.0,
    ),
    "large": CarModel(
        "Tesla Model 3 Long Range", 80.0, 1844.0, 0.51, 140.0, True,
        (
            (0.0, 100.0), (0.1, 250.0), (0.18, 250.0), (0.28, 140.0), (0.4, 140.0), (0.6, 100.0), (0.8, 52.0),
            (0.9, 36.0), (1.0, 8.0),
        ), 500.0,
    ),
    "van": CarModel(
        "VW ID. Buzz Cargo", 82.0, 2370.0, 0.93, 220.0, False,
        ((0.0, 90.0), (0.03, 128.0), (0.3, 128.0), (0.5, 95.0), (0.8, 70.0), (0.92, 50.0), (1.0, 10.0)), 340.0,
    ),
}  # fmt: skip
"""In the order of their index."""
assert tuple(CAR_MODELS) == tuple(MODEL_SHARES)

_each = tuple(CAR_MODELS.values())
CURVE_POINTS: Final = 101
FAST_W: Final = np.array(
    [1e3 * np.interp(np.linspace(0.0, 1.0, CURVE_POINTS), *np.transpose(m.fast_kW)) for m in _each]
)
"""Power by model and whole percent of charge, shape (models, CURVE_POINTS)."""
DRAG_AREA_M2: Final = np.array([m.drag_area_m2 for m in _each])
CABIN_W_K: Final = np.array([m.cabin_W_K for m in _each])
HEAT_PUMP: Final = np.array([m.heat_pump for m in _each])
