"""The figure of `twin validate physics`: the hardest drive, and the course of aging."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.validation.aging import Course
from training.validation.electrical import Trace, rms
from twin.show.plots import BLUE, GREEN, GREY, INK, RED

_COLOURS = {"SPMe": RED, "SPMe fine": GREEN, "DFN": INK, "SPM": GREY}


def draw(trace: Trace | None, courses: list[Course]) -> Figure:
    """From the left: driving (voltage, error, temperature), then one column per case of aging. Draws what was run."""
    columns = (trace is not None) + len(courses)
    figure = Figure(figsize=(max(7.0, 4.2 * columns), 8.0))
    axes = figure.subplots(3, columns, squeeze=False)
    if trace is not None:
        _drive(axes[:, 0], trace)
    for column, course in zip(axes.T[columns - len(courses) :], courses, strict=True):
        _aging(column, course)
    return figure


def _drive(axes: np.ndarray, trace: Trace) -> None:
    minutes = trace.time_s / 60.0
    voltage, error, temperature = axes
    voltage.set_title(f"Driving, {trace.title}")
    voltage.plot(minutes, trace.others["SPM"]["voltage_V"][1:], color=GREY, label="SPM", lw=0.9)
    voltage.plot(minutes, trace.others["DFN"]["voltage_V"][1:], color=INK, label="DFN")
    voltage.plot(minutes, trace.ours.voltage_V, color=BLUE, label="ours", ls=(0, (4, 2)))
    voltage.set_ylabel("Voltage [V]")
    for name in ("DFN", "SPMe", "SPMe fine"):
        difference = 1000.0 * (trace.ours.voltage_V - trace.others[name]["voltage_V"][1:])
        error.plot(minutes, difference, color=_COLOURS[name], lw=0.9, label=f"{name}: {rms(difference):.1f} mV RMS")
    error.set_ylabel("Ours minus PyBaMM [mV]")
    low, high = error.get_ylim()
    error.set_ylim(low, high + 0.5 * (high - low))  # room for the legend
    temperature.plot(minutes, trace.others["DFN"]["temperature_C"][1:], color=INK, label="DFN")
    temperature.plot(minutes, trace.ours.temperature_C, color=BLUE, ls=(0, (4, 2)), label="ours")
    temperature.set_ylabel("Temperature [°C]")
    temperature.set_xlabel("Time [min]")
    for axis in axes:
        _legend(axis)


def _aging(axes: np.ndarray, course: Course) -> None:
    case, mine, other = course.case, course.ours, course.pybamm
    cycle, cycle_other = (np.arange(1, side.fade_percent.size + 1) for side in (mine, other))  # PyBaMM may stop early
    fade, losses, metal = axes
    fade.set_title(f"{case.name.capitalize()}, {case.ambient_C:g} °C")
    fade.plot(cycle_other, other.fade_percent, color=INK, label="PyBaMM")
    fade.plot(cycle, mine.fade_percent, color=BLUE, ls=(0, (4, 2)), label="ours")
    fade.set_ylabel("Capacity lost [%]")
    for colour, label, a, b in (
        (RED, "lithium", mine.lithium_loss, other.lithium_loss),
        (BLUE, "active material, negative", mine.active_loss_n, other.active_loss_n),
        (GREEN, "active material, positive", mine.active_loss_p, other.active_loss_p),
    ):
        if a.any() or b.any():
            losses.plot(cycle_other, 100.0 * b, color=colour, label=label)
            losses.plot(cycle, 100.0 * a, color=colour, ls=(0, (4, 2)))
    losses.set_ylabel("Lost [%]; dashed: ours")
    for colour, label, a, b in (
        (BLUE, "film [nm]", 1e9 * mine.film_m, 1e9 * other.film_m),
        (RED, "plated [mAh]", 1e3 * mine.plated_Ah, 1e3 * other.plated_Ah),
        (INK, "dead [mAh]", 1e3 * mine.dead_Ah, 1e3 * other.dead_Ah),
    ):
        if a.any() or b.any():
            metal.plot(cycle_other, b, color=colour, label=label)
            metal.plot(cycle, a, color=colour, ls=(0, (4, 2)))
    metal.set_ylabel("Film, metal; dashed: ours")
    metal.set_xlabel("Cycle")
    for axis in axes:
        axis.set_ylim(bottom=0.0)
        _legend(axis)


def _legend(axis: Axes) -> None:
    axis.legend(fontsize=8, loc="best")
