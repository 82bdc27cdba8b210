"""Simulated time against the wall clock."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from actors.fleet.plan import FleetPlan

POLL_S = 0.2
"""The longest wait of the supervisor for anything, and so the longest time between two rounds of its loop [s]."""


class Pacer:
    """Starts now, at step `tick`. `clock` [s] says how much time has passed, `wall_ns` what time it is."""

    def __init__(
        self, plan: FleetPlan, tick: int, clock: Callable[[], float], wall_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._pace, self._step_s, self._period = plan.pace, plan.step_s, plan.telemetry_ticks
        self._tick, self._clock, self._wall_ns = tick, clock, wall_ns
        self._began = clock()

    def allowed_tick(self) -> int:
        """The newest step that may be done by now."""
        if math.isinf(self._pace):
            return 1 << 62
        return self._tick + int((self._clock() - self._began) * self._pace / self._step_s + 1e-9)

    def due_ns(self, tick: int) -> int | None:
        """When step `tick` is due on the wall clock [ns since 1970]; None without a pace."""
        if math.isinf(self._pace):
            return None
        due_in_s = (tick - self._tick) * self._step_s / self._pace - (self._clock() - self._began)
        return self._wall_ns() + int(due_in_s * 1e9)

    def sleep_s(self, tick: int) -> float:
        """How long the supervisor may wait before there is a new block to hand out."""
        if math.isinf(self._pace):
            return POLL_S
        next_tick = (tick // self._period + 1) * self._period
        due = self._began + (next_tick - self._tick) * self._step_s / self._pace
        return min(POLL_S, max(0.001, due - self._clock()))
