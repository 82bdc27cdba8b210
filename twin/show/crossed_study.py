"""`twin validate models`: how a model's figures hold on other splits, other cohorts, shorter data, other futures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from models.bundle import Bundle, BundleError
from training.crossed import crossed
from training.fit import boost_here
from training.futures import futures
from training.histories import HistoryError, open_histories
from twin.errors import BadInput
from twin.run_directory import filling, new_directory, stamp
from twin.show.model_study import local_bundle


def validate_models(
    *, data: Path, model: str | None, folds: int, forks: int, end_soh: float, threads: int, seed: int, out: Path | None,
    say: Callable[[str], None],
) -> Path:  # fmt: skip
    """Write tables to a new folder, which is returned. `forks`: vehicles whose other futures are simulated."""
    if forks < 0 or threads < 1:
        raise BadInput(f"expected --forks of at least 0 and --threads of at least 1, got {forks} and {threads}")
    folder = new_directory(out, f"validate-models-{stamp()}")
    with filling(folder) as temporary:
        try:
            histories = open_histories(data)
            bundle = Bundle.load(local_bundle(model, "")) if forks else None
            facts = {"rul": crossed(histories, boost_here(threads), folds=folds, end_soh=end_soh, seed=seed, say=say)}
            if bundle:
                facts["futures"] = futures(bundle, histories, vehicles=forks, seed=seed, say=say)
        except (HistoryError, BundleError) as error:
            raise BadInput(str(error)) from None
        text = as_text(facts)
        (temporary / "models.txt").write_text(text + "\n")
        (temporary / "models.json").write_text(json.dumps(facts, indent=2) + "\n")
    say(f"\n{text}\n\nwritten to {folder}")
    return folder


def as_text(facts: dict[str, Any]) -> str:
    """The figures as tables."""
    rul = facts["rul"]
    splits, whole, cut = rul["splits"], rul["all"], rul["cut"]
    coverage = np.array([split["coverage"] for split in splits])
    ratio = np.array([split["mae"] / split["mean_residual_life"] for split in splits])
    interval = whole["interval90"]
    lines = [
        f"Remaining life in cycles, {len(splits)} splits by vehicle of {rul['data']['vehicles']} vehicles; each is "
        "scored once, by a fit that has not seen it.",
        f"90 % interval covers {coverage.mean():.1%} (splits from {coverage.min():.1%} to {coverage.max():.1%}); "
        f"{interval['vehicles_mostly_covered']:.0%} of vehicles have 80 % of rows covered; width "
        f"{interval['width']:.2f} of a life, in its last fifth {interval['width_last_fifth']:.2f}",
        f"MAE over that of the mean residual life {ratio.mean():.2f} (splits from {ratio.min():.2f} to "
        f"{ratio.max():.2f}); MAPE {whole['mape']:.0%}; within 20 % at half of life {whole['alpha_lambda']:.0%}, at "
        f"three quarters {whole['alpha_lambda_three_quarters']:.0%} of vehicles",
        *(
            f"  by {group}s: "
            + ", ".join(f"{name} {share:.0%}" + _of(rul, group, name) for name, share in interval[f"{group}s"].items())
            for group in ("cell", "use", "fifth")
        ),
        "",
        f"{'left out of training':<24} {'vehicles':>8} {'MAE':>6} {'seen':>6} {'ratio':>6} {'90 % covers':>12}",
    ]
    for name, cohort in rul["left_out"].items():
        if "note" in cohort:
            lines.append(f"{name:<24} {cohort['vehicles']:8d}   {cohort['note']}")
            continue
        low, high = cohort["ratio_range"]
        lines.append(
            f"{name:<24} {cohort['vehicles']:8d} {cohort['mae']:6.0f} {cohort['mae_seen']:6.0f} {cohort['ratio']:6.2f}"
            f" {cohort['coverage']:12.0%}   ({low:.2f} to {high:.2f})"
        )
    lines += [
        "",
        f"Looked at for {cut['years']:g} years only, {cut['censored']:.0%} of lives censored: bias of the median over "
        "the mean remaining life",
        *(
            f"  {words:<42} {cut[name]['bias']:+.1%} ({cut[name]['bias_range'][0]:+.1%} to "
            f"{cut[name]['bias_range'][1]:+.1%})"
            for name, words in (
                ("kept", "censored lives kept"), ("dropped", "dropped"), ("known", "all lives known to their ends"),
            )
        ),
    ]  # fmt: skip
    if "futures" in facts:
        told = facts["futures"]
        lines += [
            "",
            f"Other futures of {told['vehicles']} vehicles from half of their lives on: the best median errs by",
        ]
        lines += [
            f"  {told[key]['other_days']:.0f} {unit} where only days and weather differ, "
            f"{told[key]['other_owner']:.0f} between two owners of one use, {told[key]['other_charging']:.0f} between "
            f"two ways to charge; the model by {told[key]['model']:.0f}, of "
            f"{told[key]['left']:.0f} left"
            for key, unit in (("days", "days"), ("efc", "EFC"))
        ]
    return "\n".join(lines)


def _of(rul: dict[str, Any], group: str, name: str) -> str:
    return f" of {rul['tested'][group][name]}" if group in rul["tested"] else ""
