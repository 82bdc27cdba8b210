"""`twin validate vehicle`: range against temperature and a real car's trips beside ours, as text, JSON and figures."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from datasets.table_file import DataError
from physics import physics_version
from physics.trip import TripResult
from training.validation.ranges import MIDDLES, PUBLISHED, Ranges, drive_all_year, render_ranges
from training.validation.trips import Trip, drive_again, read_trips, render, trip_tables
from twin.errors import BadInput, RunFailed
from twin.run_directory import filling, new_directory, stamp
from twin.show.facts import plain
from twin.show.plots import BLUE, GREY, INK, save, styled


def validate_vehicle(*, data: Path | None = None, out: Path | None = None, say: Callable[[str], None] = print) -> Path:
    """Compute the tables, write them to a new folder and return it. RunFailed where a goal is missed. Without `data`
    there are no trips, only the ranges."""
    folder = new_directory(out, f"validate-vehicle-{stamp()}")
    try:
        trips = read_trips(data) if data else []
    except DataError as error:
        raise BadInput(f"--data: {error}") from None
    ranges = drive_all_year()
    tables = trip_tables(trips) if trips else None
    text = "\n\n".join([render_ranges(ranges), *([render(tables)] if tables else [])])
    facts: dict[str, Any] = {
        "versions": {"physics": physics_version(), "numpy": np.__version__, "python": platform.python_version()},
        "ranges": {"air_C": MIDDLES, "Wh_km": plain(ranges.Wh_km), "published": plain(PUBLISHED)},
    }
    if tables:
        facts |= {"missed": tables.missed(), **{name: plain(value) for name, value in vars(tables).items()}}
    with filling(folder) as temporary:
        (temporary / "vehicle.txt").write_text(text + "\n")
        (temporary / "vehicle.json").write_text(json.dumps(facts, indent=2, allow_nan=False) + "\n")
        with styled():
            save(draw_ranges(ranges), temporary, "ranges")
            if tables:
                middle = trips[int(np.argsort([row.energy_percent for row in tables.rows])[len(trips) // 2])]
                save(draw(middle, drive_again(middle)), temporary, "vehicle")  # of the upper median
    say(f"{text}\n\nwritten to {folder}")
    if tables and tables.missed():
        raise RunFailed(f"goals missed: {'; '.join(tables.missed())}; the tables are in {folder}")
    return folder


def draw_ranges(ranges: Ranges) -> Figure:
    """Range relative to that at 20 degC: of each vehicle model, of the fleet, and as published."""
    figure = Figure(figsize=(8, 4.5))
    axis = figure.subplots()
    for model in ranges.Wh_km:
        whole = model == "fleet"
        axis.plot(
            MIDDLES, ranges.relative(model), color=INK if whole else BLUE, lw=2 if whole else 0.9,
            alpha=1.0 if whole else 0.6, label="fleet" if whole else None,
        )  # fmt: skip
        if not whole:
            cold = MIDDLES.index(-5.0)
            axis.annotate(
                model, (MIDDLES[cold], ranges.relative(model)[cold]), xytext=(-3, 3), textcoords="offset points",
                ha="right", color=BLUE, fontsize=8,
            )  # fmt: skip
    for one in PUBLISHED:
        axis.fill_between(one.air_C, one.low, one.high, color=GREY, alpha=0.25)
        if one.air_C[0] == one.air_C[1]:
            axis.plot(one.air_C[0], one.low, "o", color=GREY)
        axis.annotate(one.source, (one.air_C[0], one.high), xytext=(4, -11), textcoords="offset points", fontsize=8)
    axis.set_xlabel("Outside air [°C]")
    axis.set_ylabel("Range, relative to 20 °C")
    axis.set_xlim(-18, 40)
    axis.set_ylim(0.35, 1.1)
    axis.legend(loc="lower right")
    axis.set_title("Range against temperature: the default fleet on the road; grey: published")
    return figure


def draw(trip: Trip, ours: TripResult) -> Figure:
    """The trip whose energy error is the median one: measured and ours over time."""
    figure = Figure(figsize=(9, 8))
    minutes = np.arange(1, len(trip.speed_mps)) / 60.0
    panels = figure.subplots(5, 1, sharex=True)
    panels[0].plot(minutes, 3.6 * trip.speed_mps[1:], color=INK)
    panels[0].set_ylabel("Speed [km/h]")
    panels[0].set_title(f"{trip.name}, the trip of the median energy error; grey: measured, blue: ours")
    for axis, label, measured, simulated in (
        (panels[1], "Power [kW], + discharges", trip.voltage_V * trip.current_A / 1e3, ours.power_W / 1e3),
        (panels[2], "Voltage [V]", trip.voltage_V, ours.voltage_V),
        (panels[3], "Temperature [°C]", trip.temperature_C, ours.temperature_C),
        (panels[4], "State of charge [%]", 100.0 * trip.soc, 100.0 * ours.soc),
    ):
        axis.plot(minutes, measured[1:], color=GREY)
        axis.plot(minutes, simulated, color=BLUE, lw=0.9)
        axis.set_ylabel(label)
    panels[4].set_xlabel("Minutes")
    return figure
