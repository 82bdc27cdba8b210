"""`twin cell`: one cell under a protocol, as a table, a plot, a CSV of the cycles and a Parquet file of their course.

`physics/lab.py` does the work. This file makes what a person sees and keeps.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from datasets.bpx_file import BpxCell, BpxError, load_bpx
from physics import (
    CellParameters,
    LabResult,
    UnknownCellError,
    load_cell,
    parse_protocol,
    physics_version,
    simulate_protocol,
)
from physics.constants import COLDEST_C, HOTTEST_C
from physics.lab import Series, initial_soc_for
from physics.protocol import Step, checked_protocol
from twin.errors import BadInput
from twin.run_directory import filling, new_directory, stamp
from twin.show.plots import BLUE, GREEN, GREY, INK, RED, save, styled

_ROWS_SHOWN: Final = 8
_FEWEST_FOR_TRENDS: Final = 3
MOST_CYCLES: Final = 100_000


def cycle_cell(
    cell: str | None,
    protocol: str,
    *,
    bpx: Path | None = None,
    cycles: str = "1",
    ambient: str | None = None,
    soc: str | None = None,
    out: Path | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Run, show and write. Returns the folder with the results. BadInput, in one line, before anything is computed.

    The cell is a known one (`cell`, chen2020 by default), or comes from a file (`bpx`). Where `ambient` and `soc` are
    None, the file's State counts; without one, 25 degC and `simulate_protocol`'s default.
    """
    read = _cell(cell, bpx)
    parameters, notes = read.parameters, list(read.notes)
    steps = _protocol(parameters, protocol)
    count = _whole("--cycles", cycles, 1, MOST_CYCLES)
    ambient_C, initial_C, initial_soc = _start(read, steps, ambient, soc, notes)
    folder = new_directory(out, f"cell-{stamp()}")
    kept = (1, (count + 1) // 2, -1)
    result = simulate_protocol(
        parameters,
        steps,
        count,
        ambient_C,
        initial_soc,
        initial_C=initial_C,
        initial_hysteresis=read.initial_hysteresis,
        keep=kept,
    )
    table = cycles_table(result)
    with filling(folder) as temporary:
        table.to_csv(temporary / "cycles.csv", index=False, float_format="%.9g")
        series_table(result).to_parquet(temporary / "series.parquet", index=False)
        (temporary / "cell.json").write_text(
            json.dumps(
                {
                    "cell": result.cell,
                    "bpx": None if bpx is None else bpx.name,
                    "assumed": notes,
                    "protocol": protocol,
                    "cycles": count,
                    "ambient_C": ambient_C,
                    "initial_C": initial_C,
                    "initial_soc": initial_soc,
                    "initial_hysteresis": read.initial_hysteresis,
                    "physics": physics_version(),
                    "complaints": result.complaints(),
                },
                indent=2,
            )
            + "\n"
        )
        with styled():
            save(draw(result, f"{result.cell}, {ambient_C:g} °C: {protocol}"), temporary, "cell")
    for line in notes:
        say(f"note: {line}")
    say(shown(table))
    for line in result.complaints():
        say(f"note: {line}")
    outside = result.cycles.cycle[result.cycles.outside_valid_range]
    if outside.size:
        low, high = parameters.valid_temperature_C
        say(
            f"note: the model left its valid range ({low:g} to {high:g} degC; particles neither empty nor full at their"
            f" surface) in {outside.size} of {len(table)} cycles, first in cycle {outside[0]}"
        )
    say(f"\nplot, cycles.csv and series.parquet are in {folder}")
    return folder


def _cell(cell: str | None, bpx: Path | None) -> BpxCell:
    """The cell, what was assumed because the file does not say it, and where the file starts it."""
    if bpx is not None:
        if cell is not None:
            raise BadInput(f"--bpx: expected either a file or --cell, got both ({bpx} and {cell}); leave one out")
        try:
            return load_bpx(bpx)
        except BpxError as error:
            raise BadInput(f"--bpx: {error}") from None
    try:
        return BpxCell(load_cell(cell or "chen2020"), ())
    except UnknownCellError as error:
        raise BadInput(f"--cell: {error}") from None


def _start(
    read: BpxCell, steps: tuple[Step, ...], ambient: str | None, soc: str | None, notes: list[str]
) -> tuple[float, float, float]:
    """(temperature of the air [degC], of the cell at the start, state of charge at the start): what is asked for, else
    what the file says (then a note is added), else 25 degC and what suits the protocol."""
    suits = initial_soc_for(steps)
    ambient_C = initial_C = 25.0
    if ambient is not None:
        ambient_C = initial_C = _number("--ambient", ambient, COLDEST_C, HOTTEST_C)
    elif read.ambient_C is not None or read.initial_C is not None:
        ambient_C = read.initial_C if read.ambient_C is None else read.ambient_C  # type: ignore[assignment]
        initial_C = ambient_C if read.initial_C is None else read.initial_C
        if (ambient_C, initial_C) != (25.0, 25.0):
            notes.append(
                f"the file starts the cell at {initial_C:g} degC in air of {ambient_C:g} degC; --ambient sets both"
            )
    if soc is not None:
        return ambient_C, initial_C, _number("--soc", soc, 0.0, 1.0)
    if read.initial_soc is None:
        return ambient_C, initial_C, suits
    if abs(read.initial_soc - suits) > 0.005:
        notes.append(f"the file starts the cell at {100 * read.initial_soc:.1f} % of its charge; --soc sets another")
    return ambient_C, initial_C, read.initial_soc


def _protocol(parameters: CellParameters, text: str) -> tuple[Step, ...]:
    try:
        return checked_protocol(parse_protocol(text), parameters)
    except ValueError as error:
        raise BadInput(f"--cycle: {error}") from None


def _number(flag: str, text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise BadInput(f"{flag}: expected a number from {low:g} to {high:g}, got {text!r}")
    return value


def _whole(flag: str, text: str, low: int, high: int) -> int:
    if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
        raise BadInput(f"{flag}: expected a whole number from {low:,} to {high:,}, got {text!r}")
    return int(text)


def cycles_table(result: LabResult) -> pd.DataFrame:
    """One row per cycle, with the fields of `physics.lab.Cycles`."""
    return pd.DataFrame({field.name: getattr(result.cycles, field.name) for field in dataclasses.fields(result.cycles)})


def series_table(result: LabResult) -> pd.DataFrame:
    """The kept cycles one after another, with the fields of `physics.lab.Series`."""
    return pd.concat(
        [
            pd.DataFrame({field.name: getattr(series, field.name) for field in dataclasses.fields(series)})
            for series in result.series
        ],
        ignore_index=True,
    )


def shown(table: pd.DataFrame) -> str:
    """The first cycle, the last and some in between, as text. Columns of mechanisms that did nothing are left out."""
    chosen = np.unique(np.linspace(0, len(table) - 1, _ROWS_SHOWN).round().astype(int))
    rows = table.iloc[chosen]
    columns = {
        "cycle": rows["cycle"].map("{:d}".format),
        "discharge Ah": rows["discharge_Ah"].map("{:.3f}".format),
        "charge Ah": rows["charge_Ah"].map("{:.3f}".format),
        "discharge Wh": rows["discharge_Wh"].map("{:.2f}".format),
        "SoH %": (100 * rows["soh"]).map("{:.2f}".format),
        "R mOhm": (1e3 * rows["resistance_Ohm"]).map(lambda value: "-" if np.isnan(value) else f"{value:.1f}"),
        "max degC": rows["max_temperature_C"].map("{:.1f}".format),
        "film nm": (1e9 * rows["sei_thickness_m"]).map("{:.1f}".format),
    }
    for name, values in (
        ("plated mAh", 1e3 * table["plated_Ah"]),
        ("dead mAh", 1e3 * table["dead_Ah"]),
        ("lost active - %", 100 * (1 - table["active_n"])),
        ("lost active + %", 100 * (1 - table["active_p"])),
    ):
        if np.abs(values).max() > 0.005:
            columns[name] = values.iloc[chosen].map("{:.2f}".format)
    return pd.DataFrame(columns).to_string(index=False)


def draw(result: LabResult, title: str) -> Figure:
    """Left: voltage, current, temperature of first and last cycle. Right: voltage over charge, trends over cycles."""
    trends = len(result.cycles.cycle) >= _FEWEST_FOR_TRENDS
    figure = Figure(figsize=(10.5, 7.5))
    figure.suptitle(title if len(title) < 110 else f"{title[:107]}...", x=0.01, ha="left", fontsize=11, color=INK)
    grid = figure.add_gridspec(3, 2)
    left = [figure.add_subplot(grid[row, 0]) for row in range(3)]
    for axis in left[1:]:
        axis.sharex(left[0])
    loop = figure.add_subplot(grid[0 if trends else slice(0, 3), 1])
    first, last = result.series[0], result.series[-1]
    ends = [(first, BLUE)] if first is last else [(first, BLUE), (last, RED)]
    for series, colour in ends:
        _course(left, series, colour)
        _loop(loop, series, colour)
    left[0].legend(loc="best")
    for axis in left[:2]:
        axis.tick_params(labelbottom=False)
    if trends:
        _capacity_trend(figure.add_subplot(grid[1, 1]), result)
        _loss_trend(figure.add_subplot(grid[2, 1]), result)
    return figure


def _course(axes: list[Axes], series: Series, colour: str) -> None:
    hours = series.time_s / 3600.0
    voltage, current, temperature = axes
    voltage.plot(hours, series.voltage_V, color=colour, label=f"cycle {series.cycle}")
    voltage.set_ylabel("Voltage [V]")
    current.step(hours, series.current_A, color=colour, where="pre")
    current.axhline(0.0, color=GREY, lw=0.8, zorder=0)
    current.set_ylabel("Current [A], + discharges")
    temperature.plot(hours, series.temperature_C, color=colour)
    temperature.set_ylabel("Cell temperature [°C]")
    temperature.set_xlabel("Time in the cycle [h]")


def _loop(axis: Axes, series: Series, colour: str) -> None:
    drawn = np.cumsum(series.current_A * np.diff(series.time_s, prepend=0.0)) / 3600.0
    axis.plot(drawn, series.voltage_V, color=colour)
    axis.set_xlabel("Charge drawn since the start of the cycle [Ah]")
    axis.set_ylabel("Voltage [V]")


def _capacity_trend(axis: Axes, result: LabResult) -> None:
    cycles = result.cycles
    axis.plot(cycles.cycle, cycles.discharge_Ah, color=BLUE, label="discharged")
    axis.plot(cycles.cycle, cycles.capacity_Ah, color=INK, label="at rest, between the limits")
    axis.set_ylabel("Capacity [Ah]")
    axis.tick_params(labelbottom=False)
    low = min(cycles.discharge_Ah[1:].min(), cycles.capacity_Ah.min())
    high = max(cycles.discharge_Ah.max(), cycles.capacity_Ah.max())
    if low > 0.0:
        axis.set_ylim(low - 0.15 * (high - low) - 0.002 * high, high + 0.35 * (high - low) + 0.002 * high)
    health = axis.twinx()
    health.spines["right"].set_visible(True)
    health.grid(False)
    fresh = cycles.capacity_Ah[0] / cycles.soh[0]
    health.set_ylim(*(100.0 * limit / fresh for limit in axis.get_ylim()))
    health.set_ylabel("of fresh, at rest [%]")
    axis.legend(loc="upper right", ncols=2)


def _loss_trend(axis: Axes, result: LabResult) -> None:
    # From the second cycle on, because the first starts from rest at a state of charge that no cycle returns to.
    cycles = result.cycles
    for label, values, colour in (
        ("10 s resistance", 100.0 * (cycles.resistance_Ohm / cycles.resistance_Ohm[1] - 1.0), RED),
        ("SoH", 100.0 * (1.0 - cycles.soh / cycles.soh[1]), INK),
        ("lithium", 100.0 * (1.0 - cycles.lithium_Ah / cycles.lithium_Ah[1]), BLUE),
        ("active -", 100.0 * (1.0 - cycles.active_n / cycles.active_n[1]), GREEN),
        ("active +", 100.0 * (1.0 - cycles.active_p / cycles.active_p[1]), GREY),
    ):
        if np.isfinite(values[1:]).any() and np.nanmax(np.abs(values[1:])) > 1e-3:
            sign = "growth" if label.endswith("resistance") else "loss"
            axis.plot(cycles.cycle[1:], values[1:], color=colour, label=f"{label} ({sign})")
    axis.axhline(0.0, color=GREY, lw=0.8, zorder=0)
    axis.set_ylabel("Change since cycle 2 [%]")
    axis.set_xlabel("Cycle")
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="best")
