"""The schedule of `make chaos`: what a seed decides."""

from __future__ import annotations

from tests.chaos import KINDS, Stage, schedule


def test_a_seed_decides_the_faults() -> None:
    faults = schedule(7, 1800)
    assert faults == schedule(7, 1800)
    assert faults != schedule(8, 1800)
    assert faults[: len(schedule(7, 300))] == schedule(7, 300), "a longer run begins like a shorter one"
    assert {fault.kind for fault in faults[: len(KINDS)]} == set(KINDS), "each kind before one comes again"
    assert sum(fault.lasts + fault.pause for fault in faults) <= 1800
    assert all(callable(getattr(Stage, kind)) for kind in KINDS)
