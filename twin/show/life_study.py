"""`twin validate life`: what cells should lose over years and cycles, and what ours do, as text, JSON and a figure."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from physics import physics_version
from training.validation.life import LifeTables, Row, life_tables, render
from training.validation.reference import ReferenceMissing
from twin.errors import BadInput, RunFailed
from twin.run_directory import filling, new_directory, stamp
from twin.show.facts import plain
from twin.show.plots import BLUE, GREEN, GREY, INK, RED, save, styled

_COLOURS: Final = (BLUE, GREEN, INK, GREY, RED)
_SHOWN_CHARGE: Final = "70% charge"
_SHOWN_RATE: Final = "0.50C"


def validate_life(*, quick: bool = False, out: Path | None = None, say: Callable[[str], None] = print) -> Path:
    """Compute the tables, write them to a new folder and return it. RunFailed where a goal is missed."""
    folder = new_directory(out, f"validate-life-{stamp()}")
    say("storage and cycling of our cells against published ones")
    began = time.perf_counter()
    try:
        tables = life_tables(quick=quick)
    except ReferenceMissing as error:
        raise BadInput(str(error)) from None
    text = render(tables)
    facts = {
        "versions": {"physics": physics_version(), "numpy": np.__version__, "python": platform.python_version()},
        "quick": quick,
        "seconds": round(time.perf_counter() - began, 1),
        "rms_points": {
            cell: {
                "calendar": round(tables.rms_points(tables.calendar, cell), 3),
                "cycling": round(tables.rms_points(tables.cycling, cell), 3),
            }
            for cell in dict.fromkeys(row.cell for row in tables.calendar)
        },
        "missed": tables.missed(),
        "calendar": [plain(r) | {"residual_points": round(r.residual_points, 3)} for r in tables.calendar],
        "cycling": [plain(r) | {"residual_points": round(r.residual_points, 3)} for r in tables.cycling],
        "sensitivity": [plain(r) | {"factor": round(r.factor, 4), "met": r.met} for r in tables.sensitivity],
        "cities": [plain(r) for r in tables.cities],
        "field": [plain(r) for r in tables.field],
    }
    with filling(folder) as temporary:
        (temporary / "life.txt").write_text(text + "\n")
        (temporary / "life.json").write_text(json.dumps(facts, indent=2, allow_nan=False) + "\n")
        with styled():
            save(draw(tables), temporary, "life")
    say(f"\n{text}\n\nwritten to {folder}")
    if tables.missed():
        raise RunFailed(f"goals missed: {'; '.join(tables.missed())}; the tables are in {folder}")
    return folder


def draw(tables: LifeTables) -> Figure:
    """One row per cell: storage over years, every residual of storage, cycling over cycles."""
    cells = list(dict.fromkeys(row.cell for row in tables.calendar))
    figure = Figure(figsize=(12.5, 3.9 * len(cells)))
    axes = figure.subplots(len(cells), 3, squeeze=False)
    for row, cell in zip(axes, cells, strict=True):
        storage = [r for r in tables.calendar if r.cell == cell]
        _courses(row[0], [r for r in storage if r.condition.endswith(_SHOWN_CHARGE)], kernel=True)
        row[0].set_title(f"{cell}: storage at {_SHOWN_CHARGE}; dashed: ours")
        row[0].set_ylabel("Share of fresh capacity left")
        row[0].set_xlabel("Years")
        _residuals(row[1], storage)
        _courses(
            row[2],
            [r for r in tables.cycling if r.cell == cell and r.fitted and _SHOWN_RATE in r.condition],
            kernel=False,
        )
        row[2].set_title("Lost by cycling; bands: published cells")
        row[2].set_ylabel("Share of fresh capacity")
        row[2].set_xlabel("Equivalent full cycles")
    return figure


def _courses(axis: Axes, rows: list[Row], *, kernel: bool) -> None:
    for k, condition in enumerate(dict.fromkeys(r.condition for r in rows)):
        course = [r for r in rows if r.condition == condition]
        after = [r.after for r in course]
        colour = _COLOURS[k % len(_COLOURS)]
        label = condition.split(",")[0] if kernel else condition
        axis.plot(after, [r.published for r in course], color=colour, label=label)
        axis.plot(after, [r.kernel if kernel else r.ours for r in course], color=colour, ls=(0, (4, 2)))
        axis.fill_between(after, [r.lowest for r in course], [r.highest for r in course], color=colour, alpha=0.1, lw=0)
    axis.legend(fontsize=7, loc="best")


def _residuals(axis: Axes, rows: list[Row]) -> None:
    shown = [r for r in rows if r.fitted]
    for k, temperature in enumerate(dict.fromkeys(r.condition.split(",")[0] for r in shown)):
        some = [r for r in shown if r.condition.startswith(temperature + ",")]
        axis.scatter(
            [100.0 * (1.0 - r.published) for r in some],
            [r.residual_points for r in some],
            s=12,
            color=_COLOURS[k % len(_COLOURS)],
            label=temperature,
        )
    axis.axhline(0.0, color=GREY, lw=0.8, zorder=0)
    axis.set_title("Storage, all fitted conditions, 1-10 years")
    axis.set_xlabel("Published loss [points]")
    axis.set_ylabel("Our kernel minus published [points]")
    axis.legend(fontsize=7, loc="best")
