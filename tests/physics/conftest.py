"""Speed traces and a small fleet for the physics tests; physics itself never imports `datasets`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from datasets.drive_cycles import drive_cycle_names, load_drive_cycle
from physics import FleetPhysics, draw_population
from physics.sensors import PROFILES

MIDNIGHT = 1_767_225_600  # 2026-01-01 00:00 UTC, a Thursday


@pytest.fixture(scope="session")
def cycles() -> list[np.ndarray]:
    return [load_drive_cycle(name).speed_mps for name in drive_cycle_names()]


@pytest.fixture
def make_fleet(cycles: list[np.ndarray]) -> Callable[..., FleetPhysics]:
    def make(vehicles: list[int] | range, seed: int = 1, step_s: float = 1.0, hour: float = 6.0) -> FleetPhysics:
        population = draw_population(seed, np.array(list(vehicles), dtype=np.int64), fault_share=0.0)
        return FleetPhysics(
            population, cycles=cycles, start_s=MIDNIGHT + int(3600 * hour), step_s=step_s, sensors=PROFILES["ideal"]
        )

    return make
