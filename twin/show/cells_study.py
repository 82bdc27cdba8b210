"""`twin train` on real cells, and `twin validate early-life`: tables, JSON, a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from datasets.table_file import DataError
from training.fit import boost_here
from training.real_cells import CellModel, EarlyRow, early_life, train_cells
from twin.errors import BadInput
from twin.run_directory import filling, new_directory, stamp


def train_on_cells(*, data: Path, out: Path | None, end_soh: float, seed: int, say: Callable[[str], None]) -> Path:
    """Learn remaining cycles from a table of cells. Write model and scores to a new folder, which is returned."""
    if not 0.5 <= end_soh < 1.0:
        raise BadInput(f"expected --end-soh from 0.5 to below 1, got {end_soh:g}")
    folder = new_directory(out, f"cells-{stamp()}")
    with filling(folder) as temporary:
        try:
            model = train_cells(data, boost_here(), end_soh=end_soh, seed=seed, say=say)
        except DataError as error:
            raise BadInput(str(error)) from None
        text = _cells_text(model)
        model.booster.save_model(temporary / "rul_cycles.ubj")
        facts = {"features": model.features, "margin": model.margin, "quantiles": [0.05, 0.5, 0.95]}
        (temporary / "features.json").write_text(json.dumps(facts, indent=2) + "\n")
        (temporary / "evaluation.json").write_text(json.dumps(model.scores, indent=2) + "\n")
        (temporary / "evaluation.txt").write_text(text + "\n")
    say(f"\n{text}\n\nwritten to {folder}")
    return folder


def _cells_text(model: CellModel) -> str:
    scores = model.scores
    rul = scores["rul"]
    return "\n".join(
        [
            f"{scores['cells']} cells, {scores['ended']} to {scores['end_soh']:g} of their first capacity; every "
            f"score is of cells left out, {scores['folds']} folds by cell",
            f"{'remaining life by':<24} {'MAE [cycles]':>12}",
            f"{'this model':<24} {rul['mae']:12.0f}",
            *(f"{name.replace('_', ' '):<24} {of['mae']:12.0f}" for name, of in rul["baselines"].items()),
            f"MAPE {rul['mape']:.0%}; the 90 % interval covers {rul['interval90']['coverage']:.1%}",
        ]
    )


def validate_early_life(*, data: Path, out: Path | None, say: Callable[[str], None]) -> Path:
    """Predict the cycle life of Severson's cells. Write the table to a new folder, which is returned."""
    folder = new_directory(out, f"validate-early-life-{stamp()}")
    say("cycle life of 124 LFP cells from their first hundred cycles")
    with filling(folder) as temporary:
        try:
            rows = early_life(data, boost_here())
        except DataError as error:
            raise BadInput(str(error)) from None
        text = _early_text(rows)
        (temporary / "early-life.txt").write_text(text + "\n")
        (temporary / "early-life.json").write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    say(f"\n{text}\n\nwritten to {folder}")
    return folder


def _early_text(rows: list[EarlyRow]) -> str:
    lines = [
        "Cycle life from cycles 2 to 100, learned from the training cells of Severson et al. 2019 only.",
        f"{'learner':<16} {'part':<6} {'cells':>5} {'RMSE [cycles]':>14} {'MAPE [%]':>9} {'90 % interval covers':>21}",
    ]
    lines += [
        f"{row.learner.replace('_', ' '):<16} {row.part:<6} {row.cells:5d} {row.rmse_cycles:14.0f} "
        f"{row.mape_percent:9.1f} {100.0 * row.coverage:19.1f} %"
        for row in rows
    ]
    return "\n".join(lines)
