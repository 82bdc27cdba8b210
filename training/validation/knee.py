"""Beyond 20 % of lost capacity, through a knee: cold fast cycling against PyBaMM's SPMe, and where the two diverge.

Both cases run at 0 degC: 1C down to 2.8 V; 1C up to 4.2 V, held there to C/10. The film is that of okane2022 and is not
accelerated. The mechanism that drives the loss is accelerated:

knee    Loss of active material in the negative electrode times 40 and dying of plated lithium times 10. The electrode
        shrinks, the same current stresses it more (the loss goes with 1/eps^2), and every charge fills it higher. The
        knee is where it is full at the upper voltage limit. Before that lithium limits the cell, after it graphite.
pores   No loss of active material, dying of plated lithium times 100: dead metal fills the negative electrode's pores.
        Ours fill evenly. In PyBaMM by default each x of the electrode fills separately, near the separator up to six
        times as fast; with "x-average side reactions" it fills evenly, too. Both are run, which isolates this cause.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from training.validation.aging import Ageing, Case, Course, ours, theirs
from training.validation.reference import FloatArray

PROTOCOL: Final = "CC 1C to 2.8V; CCCV 1C 4.2V C/10"
PYBAMM_PROTOCOL: Final = ("Discharge at 1C until 2.8V", "Charge at 1C until 4.2V", "Hold at 4.2V until C/10")
KNEE: Final = Case(
    "knee by stress",
    0.0,
    140,
    plating=True,
    mechanics=True,
    protocol=PROTOCOL,
    pybamm_protocol=PYBAMM_PROTOCOL,
    sei_factor=1.0,
    lam_n_factor=40.0,
    lam_p_factor=0.0,
    dead_factor=10.0,
)
PORES: Final = dataclasses.replace(
    KNEE, name="pores filled by dead lithium", cycles=110, mechanics=False, dead_factor=100.0
)
EVEN_PORES: Final = dataclasses.replace(PORES, name="pores filled evenly", averaged=True)
LOSSES: Final = (5.0, 10.0, 15.0, 20.0, 25.0)
_SMOOTH: Final = 10
"""Cycles over which a rate of loss is measured."""
_STEEPER: Final = 1.5


@dataclass(frozen=True)
class KneeRow:
    """When a case reaches one loss of capacity, and what has happened by then. NaN where it does not."""

    case: str
    loss_percent: float
    cycle: float
    cycle_pybamm: float
    active_percent: float
    """Active material lost in the negative electrode [%]."""
    active_percent_pybamm: float
    dead_mAh: float
    dead_mAh_pybamm: float


@dataclass(frozen=True)
class KneeSummary:
    """When the rate of loss, over ten cycles, exceeds one and a half times its smallest so far; NaN: never."""

    case: str
    cycles: int
    cycles_pybamm: int
    """Fewer than asked for: its solver gave up."""
    knee: float
    knee_pybamm: float
    largest_apart_points: float
    """Largest difference in lost capacity, over all cycles that both completed."""


def beyond(*, say: Callable[[str], None]) -> tuple[list[KneeRow], list[KneeSummary], list[Course]]:
    """All cases (two minutes)."""
    rows: list[KneeRow] = []
    summaries, courses = [], []
    for case in (KNEE, PORES, EVEN_PORES):
        say(f"{case.cycles} cycles at {case.ambient_C:g} degC, beyond 20 % of loss: {case.name}")
        course = Course(case, ours(case), theirs(case))
        rows += _rows(course)
        summaries.append(_summary(course))
        courses.append(course)
    return rows, summaries, courses


def knee_of(fade_percent: FloatArray) -> float:
    """The cycle at which loss is faster than `_STEEPER` times its smallest rate so far; NaN if it never is."""
    rate = fade_percent[_SMOOTH:] - fade_percent[:-_SMOOTH]
    faster = np.flatnonzero(rate > _STEEPER * np.minimum.accumulate(rate))
    return float(faster[0] + 1 + _SMOOTH) if faster.size else float("nan")


def _at(side: Ageing, loss: float) -> tuple[float, float, float]:
    """Cycle, active material lost [%], dead lithium [mAh] at a loss of capacity."""
    fade = np.maximum.accumulate(side.fade_percent)
    if fade[-1] < loss:
        return float("nan"), float("nan"), float("nan")
    cycle = np.arange(1.0, fade.size + 1.0)
    when = float(np.interp(loss, fade, cycle))
    return (
        when,
        float(np.interp(when, cycle, 100.0 * side.active_loss_n)),
        float(np.interp(when, cycle, 1e3 * side.dead_Ah)),
    )


def _rows(course: Course) -> list[KneeRow]:
    rows = []
    for loss in LOSSES:
        mine, other = _at(course.ours, loss), _at(course.pybamm, loss)
        pairs = [value for pair in zip(mine, other, strict=True) for value in pair]
        rows.append(KneeRow(course.case.name, loss, *pairs))
    return rows


def _summary(course: Course) -> KneeSummary:
    mine, other = course.ours.fade_percent, course.pybamm.fade_percent
    both = min(mine.size, other.size)
    return KneeSummary(
        course.case.name,
        mine.size,
        other.size,
        knee_of(mine),
        knee_of(other),
        float(np.abs(mine[:both] - other[:both]).max()),
    )


def as_text(rows: list[KneeRow], summaries: list[KneeSummary]) -> list[str]:
    """One table per case."""
    tables = []
    for s in summaries:
        lines = [
            f"Beyond 20 %, {s.case}: 0 degC, 1C, {s.cycles} cycles"
            + ("" if s.cycles_pybamm == s.cycles else f"; PyBaMM's solver gave up in cycle {s.cycles_pybamm + 1}"),
            "",
            f"{'':>8} {'cycle':^15} {'active lost, - [%]':^19} {'dead [mAh]':^17}",
            f"{'lost':>8} {'ours':>7} {'PyBaMM':>7} {'ours':>9} {'PyBaMM':>9} {'ours':>8} {'PyBaMM':>8}",
        ]
        for r in (r for r in rows if r.case == s.case):
            lines.append(
                f"{r.loss_percent:6g} % {_text(r.cycle, 7, 1)} {_text(r.cycle_pybamm, 7, 1)}"
                f" {_text(r.active_percent, 9, 2)} {_text(r.active_percent_pybamm, 9, 2)}"
                f" {_text(r.dead_mAh, 8, 1)} {_text(r.dead_mAh_pybamm, 8, 1)}"
            )
        lines += [
            f"knee (loss {_STEEPER:g} times faster than at its slowest) in cycle:"
            f" ours {_text(s.knee, 0, 0)}, PyBaMM {_text(s.knee_pybamm, 0, 0)}",
            f"largest difference of lost capacity over {min(s.cycles, s.cycles_pybamm)} cycles:"
            f" {s.largest_apart_points:.2f} points",
        ]
        tables.append("\n".join(lines))
    return tables


def _text(value: float, width: int, digits: int) -> str:
    return f"{value:{width}.{digits}f}" if np.isfinite(value) else f"{'-':>{width}}" if width else "none"
