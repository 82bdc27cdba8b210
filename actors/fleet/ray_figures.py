"""The fleet's main figures among Ray's own metrics, and so in Ray's dashboard: `ray_ev_vehicles{run="..."}`.

Each node of Ray serves them at its metrics port, to whoever finds it by Ray's service discovery file.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ray.util.metrics import Counter, Gauge

from actors.fleet.metrics import main_figures
from actors.fleet.status import FleetStatus

_EVERY_S = 1.0


class RayFigures:
    """Tells Ray a status, at most once a second; a call between costs nothing. A run is known by its label `run`."""

    def __init__(self, run_id: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._run_id, self._clock = run_id, clock
        self._next_s = clock()
        self._metrics: dict[str, Any] = {}
        self._counted: dict[str, float] = {}

    def tell(self, status: FleetStatus) -> None:
        """Set every gauge, and count what was added since the last time."""
        now = self._clock()
        if now < self._next_s:
            return
        self._next_s = now + _EVERY_S
        for family in main_figures(status):
            for sample in family.samples:
                tags = {"run": self._run_id, **sample.labels}
                if sample.name not in self._metrics:
                    kind = Counter if family.type == "counter" else Gauge
                    self._metrics[sample.name] = kind(sample.name, family.documentation, tuple(tags))
                metric = self._metrics[sample.name]
                if family.type == "gauge":
                    metric.set(sample.value, tags)
                elif (more := sample.value - self._counted.get(sample.name, 0.0)) > 0:
                    self._counted[sample.name] = sample.value
                    metric.inc(more, tags)
