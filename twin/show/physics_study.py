"""`twin validate physics`: the tables as text and JSON, and one figure."""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from physics import physics_version
from training.validation import cells, groups, knee
from training.validation.aging import AgingRow, Course, aging
from training.validation.electrical import GOAL_K, ElectricalRow, Trace, electrical
from training.validation.reference import ReferenceMissing, load_pybamm
from twin.errors import BadInput, RunFailed
from twin.run_directory import filling, new_directory, stamp
from twin.show.facts import plain
from twin.show.physics_figure import draw
from twin.show.plots import save, styled

PARTS = ("electrical", "cells", "aging", "pack")


def validate_physics(
    *, quick: bool = False, out: Path | None = None, only: str | None = None, say: Callable[[str], None] = print
) -> Path:
    """Compute the tables, write them to a new folder and return it. RunFailed where a goal is missed."""
    if only is not None and only not in PARTS:
        raise BadInput(f"--only: expected one of {', '.join(PARTS)}, got {only!r}")
    folder = new_directory(out, f"validate-physics-{stamp()}")
    needs_pybamm = only != "pack"
    try:
        pybamm_version = load_pybamm().__version__ if needs_pybamm else None
    except ReferenceMissing as error:
        raise BadInput(str(error)) from None
    began = time.perf_counter()
    rows: list[ElectricalRow] = []
    trace: Trace | None = None
    cell_rows: list[cells.CellRow] = []
    aging_rows: list[AgingRow] = []
    courses: list[Course] = []
    knee_rows: list[knee.KneeRow] = []
    knee_summaries: list[knee.KneeSummary] = []
    pack_rows: list[groups.PackRow] = []
    if only in (None, "electrical"):
        rows, trace = electrical(quick=quick, say=say)
    if only in (None, "cells"):
        cell_rows = cells.cells(quick=quick, say=say)
    if only in (None, "aging"):
        aging_rows, courses = aging(quick=quick, say=say)
        if not quick:
            knee_rows, knee_summaries, further = knee.beyond(say=say)
            courses = [*courses, *further]
    if only in (None, "pack"):
        pack_rows = groups.packs(quick=quick, say=say)
    text = "\n\n".join(
        [
            *_electrical_text(rows),
            *cells.as_text(cell_rows),
            *_aging_text(aging_rows),
            *knee.as_text(knee_rows, knee_summaries),
            *groups.as_text(pack_rows),
        ]
    )
    facts = {
        "versions": {
            "physics": physics_version(),
            "pybamm": pybamm_version,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "quick": quick,
        "seconds": round(time.perf_counter() - began, 1),
        "electrical": [plain(row) | {"met": row.met} for row in rows],
        "cells": [plain(row) | {"met": row.met} for row in cell_rows],
        "aging": [plain(row) | {"ratio_percent": plain(row.ratio_percent)} for row in aging_rows],
        "beyond_20_percent": {
            "losses": [plain(row) for row in knee_rows],
            "cases": [plain(row) for row in knee_summaries],
        },
        "pack": [plain(row) for row in pack_rows],
    }
    with filling(folder) as temporary:
        (temporary / "validation.txt").write_text(text + "\n")
        (temporary / "validation.json").write_text(json.dumps(facts, indent=2, allow_nan=False) + "\n")
        if trace is not None or courses:
            with styled():
                save(draw(trace, courses), temporary, "validation")
    say(f"\n{text}\n\nwritten to {folder}")
    missed = [f"{row.peak_C:g}C at {row.ambient_C:g} degC" for row in rows if not row.met]
    missed += [f"{row.cell}, {row.load}" for row in cell_rows if not row.met]
    if missed:
        raise RunFailed(f"goals missed: {', '.join(missed)}; the tables are in {folder}")
    return folder


def _electrical_text(rows: list[ElectricalRow]) -> list[str]:
    if not rows:
        return []
    lines = [
        "Half an hour of driving from SoC 0.7: RMSE of voltage [mV] and temperature [K]",
        "(mesh: PyBaMM's default mesh against its fine one; film: our film growth relative to PyBaMM's, minus 100 %;",
        " T: ours against SPMe with heat of mixing, and without; only ours counts the film's loss as heat)",
        "",
        f"{'':>13} {'ours against PyBaMM':^36} {'PyBaMM against DFN':^17}",
        f"{'peak, ambient':>13} {'SPMe':>6} {'goal':>6} {'fine':>6} {'DFN':>6} {'mesh':>7} {'SPMe':>8} {'SPM':>8}"
        f" {'T SPMe':>7} {'T unmixed':>9} {'film %':>7}",
    ]
    for row in rows:
        lines.append(
            f"{f'{row.peak_C:g}C, {row.ambient_C:g} degC':>13} {row.ours_spme_mV:6.2f} {row.goal_mV:6.1f}"
            f" {row.ours_fine_mV:6.2f} {row.ours_dfn_mV:6.2f} {row.spme_fine_mV:7.2f} {row.spme_dfn_mV:8.2f}"
            f" {row.spm_dfn_mV:8.2f} {row.temperature_K:7.3f} {row.temperature_unmixed_K:9.3f} {row.film_percent:7.2f}"
            f"  {'met' if row.met else 'MISSED'}"
        )
    lines.append(f"goal for the temperature: {GOAL_K:g} K")
    return ["\n".join(lines)]


def _aging_text(rows: list[AgingRow]) -> list[str]:
    tables = []
    for case in dict.fromkeys((row.case, row.ambient_C, row.cycles) for row in rows):
        name, ambient, cycles = case
        lines = [
            f"Accelerated cycling, {name}: {cycles} cycles at {ambient:g} degC",
            "",
            f"{'at the end':<36} {'ours':>10} {'PyBaMM':>10} {'ratio - 1':>10}",
        ]
        for row in rows:
            if (row.case, row.ambient_C, row.cycles) == case:
                ratio = f"{row.ratio_percent:+9.2f}%" if math.isfinite(row.ratio_percent) else f"{'-':>10}"
                lines.append(f"{row.quantity:<36} {row.ours:10.4f} {row.pybamm:10.4f} {ratio}")
        tables.append("\n".join(lines))
    return tables
