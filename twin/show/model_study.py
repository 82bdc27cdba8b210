"""`twin train` and `twin evaluate`: a bundle, its scores as JSON and text, and a figure."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import xgboost as xgb
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from models.bundle import BUNDLED, Bundle, BundleError
from models.registry import Reader, RegistryError
from physics import physics_version
from training.distributed import TrainingLost, boost_on_ray
from training.evaluate import evaluate
from training.fit import Boost, boost_here
from training.histories import HistoryError, open_histories
from training.train import train
from twin.errors import BadInput, RunFailed
from twin.fleet import expect_cluster
from twin.run_directory import filling, new_directory, stamp
from twin.settings import Pool
from twin.show.plots import BLUE, GREY, INK, RED, save, styled

_UNITS = {"rul": "EFC", "rul_days": "days"}


def train_model(
    *,
    data: Path,
    out: Path | None,
    workers: int,
    end_soh: float,
    seed: int,
    register: bool,
    tracking_uri: str,
    address: str | None,
    say: Callable[[str], None],
) -> Path:
    """Train on histories and write the bundle with its scores to a new folder, which is returned."""
    if workers < 0:
        raise BadInput(f"expected --workers of at least 0, got {workers}")
    if workers:
        expect_cluster(address)
    folder = new_directory(out, f"model-{stamp()}")
    begun = time.perf_counter()
    with _told(), filling(folder) as temporary:
        histories = open_histories(data)
        with _booster(workers, address) as boost:
            started = time.perf_counter() - begun
            trained = train(histories, temporary, boost, end_soh=end_soh, seed=seed, say=say)
        seconds = {"ray": started} | trained.seconds
        text = _write(temporary, trained.scores, seconds)
    say(f"\n{text}\n\n{', '.join(f'{step} {value:.0f} s' for step, value in seconds.items())}; written to {folder}")
    if register:
        from twin.show.register import register_model

        register_model(folder, histories, trained, tracking_uri, say=say)
    return folder


def evaluate_model(
    *, model: str | None, data: Path, out: Path | None, seed: int, tracking_uri: str, say: Callable[[str], None]
) -> Path:
    """Score a model and write tables and figures to a new folder, which is returned."""
    folder = new_directory(out, f"evaluation-{stamp()}")
    begun = time.perf_counter()
    with _told(), filling(folder) as temporary:
        bundle = Bundle.load(local_bundle(model, tracking_uri))
        facts = evaluate(bundle, open_histories(data), boost_here(), seed=seed, say=say)
        text = _write(temporary, facts, {"evaluate": time.perf_counter() - begun})
    say(f"\n{text}\n\nwritten to {folder}")
    return folder


def local_bundle(model: str | None, tracking_uri: str) -> Path:
    """The folder of a model: the bundled one, a folder, or one fetched from the registry. BadInput where it is not."""
    if model is None:
        return BUNDLED
    try:
        return Reader(tracking_uri).fetch(model, Pool().cache)
    except RegistryError as error:
        raise BadInput(str(error)) from None


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (HistoryError, BundleError) as error:
        raise BadInput(str(error)) from None
    except (TrainingLost, ConnectionError) as error:
        raise RunFailed(str(error)) from error


def _booster(workers: int, address: str | None) -> AbstractContextManager[Boost]:
    return boost_on_ray(workers, address=address) if workers else nullcontext(boost_here())


def _write(folder: Path, scores: dict[str, Any], seconds: dict[str, float]) -> str:
    """evaluation.json, .txt and the figure. Returns the text."""
    facts = scores | {
        "versions": {"physics": physics_version(), "xgboost": xgb.__version__, "numpy": np.__version__,
                     "python": platform.python_version()},
        "seconds": {step: round(value, 1) for step, value in seconds.items()},
    }  # fmt: skip
    text = as_text(scores)
    (folder / "evaluation.json").write_text(json.dumps(facts, indent=2) + "\n")
    (folder / "evaluation.txt").write_text(text + "\n")
    with styled():
        save(draw(scores), folder, "evaluation")
    return text


def as_text(scores: dict[str, Any]) -> str:
    """The scores as tables."""
    split = scores["split"]
    lines = [
        f"{split['test']} {split['how']}, {split['test_rows']:,} rows; {split['test_ended']} reached their end of "
        "life. In brackets 95 % of a bootstrap over vehicles."
    ]
    for key, unit in _UNITS.items():
        s = scores[key]
        interval = s["interval90"]
        low, high = s["mae_range"]
        lines += [
            "",
            f"{'remaining life by':<42} {'MAE [' + unit + ']':>12}   the model's MAE over it",
            f"{'this model':<42} {s['mae']:12.0f}   ({low:.0f} to {high:.0f})",
            *(
                f"{name.replace('_', ' '):<42} {b['mae']:12.0f}   {b['ratio']:.2f} ({b['ratio_range'][0]:.2f} to "
                f"{b['ratio_range'][1]:.2f})"
                for name, b in s["baselines"].items()
            ),
            f"{'rows split, not vehicles: a leak, no result':<42} {s['leaky']['mae']:12.0f}",
            f"bias {s['bias']:+.0f} of a mean of {s['mean']:.0f} {unit}; MAPE {s['mape']:.0%}; within 20 % at half of "
            f"life {s['alpha_lambda']:.0%}, at three quarters {s['alpha_lambda_three_quarters']:.0%} of vehicles",
            f"90 % interval: covers {interval['coverage']:.1%} ({interval['coverage_range'][0]:.1%} to "
            f"{interval['coverage_range'][1]:.1%}); {interval['vehicles_mostly_covered']:.0%} of vehicles have 80 % of "
            f"rows covered; width {interval['width']:.2f} of a life, in its last fifth "
            f"{_number(interval['width_last_fifth'])}",
            *(
                f"  by {group:<8} " + ", ".join(f"{name} {value:.0%}" for name, value in interval[group].items())
                for group in ("cells", "uses", "cohorts", "fifths")
            ),
        ]
        if split["alike"] and s["mae"] < s["baselines"]["hidden_constants"]["mae"]:
            lines.append(
                "ALARM: better than the same learner that is told what no vehicle knows of itself. Look for a leak."
            )
    f = scores["failure"]
    lines.append("")
    if "average_precision" not in f:
        lines.append(f"failure: {f['note']}")
        return "\n".join(lines)
    logistic = f["baselines"]["logistic_soh_age"]
    lines += [
        f"failure within the horizon, {f['base_rate']:.1%} of rows: average precision {f['average_precision']:.2f} "
        f"({f['average_precision_range'][0]:.2f} to {f['average_precision_range'][1]:.2f}), logistic on SoH and age "
        f"{logistic['average_precision']:.2f}; Brier skill {f['brier_skill']:.2f}; calibration error {f['ece']:.4f}, "
        f"{f['ece_relative']:.0%} of the base rate",
        "rows before each kind of failure: "
        + ", ".join(f"{name} {count}" for name, count in f["kinds"].items())
        + (f"; kind named right {f['kind_right']:.0%}" if f["kind_right"] is not None else ""),
    ]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def draw(scores: dict[str, Any]) -> Figure:
    """Errors beside those of other ways, and coverage by group, for cycles and for days."""
    figure = Figure(figsize=(11.5, 7.2))
    axes = figure.subplots(2, 2)
    for row, (key, unit) in zip(axes, _UNITS.items(), strict=True):
        _errors(row[0], scores[key], unit)
        _coverage(row[1], scores[key]["interval90"])
    return figure


def _errors(axes: Axes, s: dict[str, Any], unit: str) -> None:
    bars = {"this model": (s["mae"], BLUE)}
    bars |= {name.replace("_", " "): (b["mae"], GREY) for name, b in s["baselines"].items()}
    bars["rows split: a leak"] = (s["leaky"]["mae"], RED)
    axes.barh(list(bars), [value for value, _ in bars.values()], color=[colour for _, colour in bars.values()])
    low, high = s["mae_range"]
    axes.errorbar([s["mae"]], ["this model"], xerr=[[s["mae"] - low], [high - s["mae"]]], color=INK, capsize=3)
    axes.set_axisbelow(True)
    for k, (value, _) in enumerate(bars.values()):
        axes.text(high if k == 0 else value, k, f"  {value:.0f}", va="center", fontsize=8)
    axes.invert_yaxis()
    axes.set_title(f"Mean absolute error of remaining life [{unit}], vehicles never seen")


def _coverage(axes: Axes, interval: dict[str, Any]) -> None:
    groups = {
        f"{name}. fifth of life" if group == "fifths" else name: value
        for group in ("fifths", "uses", "cells")
        for name, value in interval[group].items()
    }
    axes.plot(list(groups.values()), list(groups), "o", color=BLUE)
    axes.axvline(0.9, color=INK, linewidth=0.8)
    axes.set_xlim(min(0.6, *groups.values()) - 0.02, 1.0)
    axes.invert_yaxis()
    axes.set_title("Share of rows that the 90 % interval covers")
