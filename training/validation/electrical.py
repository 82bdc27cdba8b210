"""Voltage and temperature over half an hour of driving, against SPMe, SPMe on a fine mesh and DFN."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from physics import CellResult, simulate_cell
from training.validation.reference import OPTIONS, FloatArray, drive_like_profile, simulation, solve

NOMINAL_A = 5.0
INITIAL_SOC = 0.7

GOALS_MV = {
    (1.0, 0.0): 11.0,
    (2.0, 0.0): 13.0,
    (1.0, 25.0): 4.0,
    (2.0, 25.0): 6.0,
    (1.0, 40.0): 2.5,
    (2.0, 40.0): 4.0,
}
"""Peak [C] and ambient [degC]: largest RMSE against SPMe on its default mesh [mV]."""
GOAL_K = 0.5

UNMIXED = OPTIONS | {"heat of mixing": "false"}
MODELS: dict[str, dict[str, Any]] = {
    "SPMe": {"model": "SPMe"},
    "SPMe fine": {"model": "SPMe", "fine": True},
    "SPMe unmixed": {"model": "SPMe", "options": UNMIXED},
    "DFN": {"model": "DFN", "options": UNMIXED},  # with heat of mixing it takes minutes
    "SPM": {"model": "SPM"},
}
"""All heats of ours are in SPMe too, but for the film's, which ours has alone."""


@dataclass(frozen=True)
class ElectricalRow:
    """RMSE over the profile [mV, K]. Each name says what is compared with what."""

    peak_C: float
    ambient_C: float
    ours_spme_mV: float
    goal_mV: float
    ours_fine_mV: float
    ours_dfn_mV: float
    spme_fine_mV: float
    """PyBaMM's default mesh against its fine one: the reference's own error."""
    spme_dfn_mV: float
    spm_dfn_mV: float
    temperature_K: float
    """Ours against SPMe, both with heat of mixing."""
    temperature_unmixed_K: float
    """Ours, with heat of mixing, against SPMe without."""
    film_percent: float
    """Film growth of ours over that of SPMe, minus 100 %."""

    @property
    def met(self) -> bool:
        """Whether the goals are met."""
        return self.ours_spme_mV <= self.goal_mV and self.temperature_K <= GOAL_K


@dataclass(frozen=True)
class Trace:
    """What the figure shows of one row: our voltage and the others, shape (n,)."""

    title: str
    time_s: FloatArray
    current_A: FloatArray
    ours: CellResult
    others: dict[str, dict[str, FloatArray]]


def rms(x: FloatArray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(x**2)))


def electrical(*, quick: bool, say: Callable[[str], None]) -> tuple[list[ElectricalRow], Trace]:
    """All rows (quick: those at 25 degC), and the trace of the hardest row at 25 degC."""
    rows, trace = [], None
    for peak, ambient in GOALS_MV:
        if quick and ambient != 25.0:
            continue
        say(f"driving, peaks of {peak:g}C at {ambient:g} degC")
        row, course = _row(peak, ambient)
        rows.append(row)
        if ambient == 25.0:
            trace = course
    assert trace is not None
    return rows, trace


def _row(peak_C: float, ambient_C: float) -> tuple[ElectricalRow, Trace]:
    t, current = drive_like_profile(peak_A=peak_C * NOMINAL_A)
    ours = simulate_cell("okane2022", current[1:], initial_soc=INITIAL_SOC, ambient_C=ambient_C, voltage_limits=False)
    theirs = {
        name: solve(simulation(t, current, ambient_C, **settings), t, INITIAL_SOC) for name, settings in MODELS.items()
    }
    volts = {name: 1000.0 * values["voltage_V"][1:] for name, values in theirs.items()} | {
        "ours": 1000.0 * ours.voltage_V
    }
    kelvin = {name: values["temperature_C"][1:] for name, values in theirs.items()}
    fresh = theirs["SPMe"]["sei_thickness_m"][0]
    grown, grown_theirs = (film[-1] - fresh for film in (ours.sei_thickness_m, theirs["SPMe"]["sei_thickness_m"]))

    def apart(one: str, other: str) -> float:
        return rms(volts[one] - volts[other])

    row = ElectricalRow(
        peak_C=peak_C,
        ambient_C=ambient_C,
        ours_spme_mV=apart("ours", "SPMe"),
        goal_mV=GOALS_MV[peak_C, ambient_C],
        ours_fine_mV=apart("ours", "SPMe fine"),
        ours_dfn_mV=apart("ours", "DFN"),
        spme_fine_mV=apart("SPMe", "SPMe fine"),
        spme_dfn_mV=apart("SPMe", "DFN"),
        spm_dfn_mV=apart("SPM", "DFN"),
        temperature_K=rms(ours.temperature_C - kelvin["SPMe"]),
        temperature_unmixed_K=rms(ours.temperature_C - kelvin["SPMe unmixed"]),
        film_percent=100.0 * (grown / grown_theirs - 1.0),
    )
    return row, Trace(f"{peak_C:g}C peaks at {ambient_C:g} °C", t[1:], current[1:], ours, theirs)
