"""`twin validate vehicle`: a real car's trips beside ours, as text, JSON and a figure."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from datasets.table_file import DataError
from physics import physics_version
from physics.trip import TripResult
from training.validation.trips import Trip, drive_again, read_trips, render, trip_tables
from twin.errors import BadInput, RunFailed
from twin.run_directory import filling, new_directory, stamp
from twin.show.facts import plain
from twin.show.plots import BLUE, GREY, INK, save, styled


def validate_vehicle(*, data: Path, out: Path | None = None, say: Callable[[str], None] = print) -> Path:
    """Compute the tables, write them to a new folder and return it. RunFailed where a goal is missed."""
    folder = new_directory(out, f"validate-vehicle-{stamp()}")
    try:
        trips = read_trips(data)
    except DataError as error:
        raise BadInput(f"--data: {error}") from None
    tables = trip_tables(trips)
    text = render(tables)
    facts = {
        "versions": {"physics": physics_version(), "numpy": np.__version__, "python": platform.python_version()},
        "missed": tables.missed(),
        **{name: plain(value) for name, value in vars(tables).items()},
    }
    middle = trips[int(np.argsort([row.energy_percent for row in tables.rows])[len(trips) // 2])]  # the upper median
    with filling(folder) as temporary:
        (temporary / "vehicle.txt").write_text(text + "\n")
        (temporary / "vehicle.json").write_text(json.dumps(facts, indent=2, allow_nan=False) + "\n")
        with styled():
            save(draw(middle, drive_again(middle)), temporary, "vehicle")
    say(f"{text}\n\nwritten to {folder}")
    if tables.missed():
        raise RunFailed(f"goals missed: {'; '.join(tables.missed())}; the tables are in {folder}")
    return folder


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
