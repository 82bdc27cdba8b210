"""The fleet's main figures among Ray's own metrics, and so in Ray's dashboard: `ray_ev_vehicles{run_id="..."}`.

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
_counted: dict[tuple[str, str], float] = {}
"""By log and counter. Ray adds up what one process counts under one label, also of a fleet that is resumed in it."""


class RayFigures:
    """Tells Ray a status, at most once a second; a call between costs nothing. The labels `run_id` and `log_id` are
    those of run.json: only the second one is of this run alone."""

    def __init__(self, run_id: str, log_id: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._run, self._clock = {"run_id": run_id, "log_id": log_id}, clock
        self._next_s = clock()
        self._metrics: dict[str, Any] = {}

    def tell(self, status: FleetStatus) -> None:
        """Set every gauge, and count what was added since the last time."""
        now = self._clock()
        if now < self._next_s:
            return
        self._next_s = now + _EVERY_S
        for family in main_figures(status):
            for sample in family.samples:
                tags = self._run | sample.labels
                counter = self._run["log_id"], sample.name
                if sample.name not in self._metrics:
                    kind = Counter if family.type == "counter" else Gauge
                    self._metrics[sample.name] = kind(sample.name, family.documentation, tuple(tags))
                metric = self._metrics[sample.name]
                if family.type == "gauge":
                    metric.set(sample.value, tags)
                elif (more := sample.value - _counted.get(counter, 0.0)) > 0:
                    _counted[counter] = sample.value
                    metric.inc(more, tags)
