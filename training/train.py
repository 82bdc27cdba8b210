"""From histories to a bundle: splits by vehicle, fits, calibrates, evaluates on vehicles that it has not seen."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from models.bundle import Bundle, Manifest
from models.features import FEATURES
from training.drift import reference_of
from training.evaluate import evaluate
from training.fit import COVERAGE, QUANTILES, Boost, Fitted, boost_here, fit
from training.histories import Histories, HistoryError
from training.labels import END_SOH, HORIZON_DAYS, KINDS, label
from training.reference_files import write_reference_files
from training.samples import assemble

NAME: Final = "ev-battery-fleet"
SHARES: Final = (0.6, 0.2, 0.2)
FEWEST: Final = 3
"""Vehicles that training, calibration and test need at least, and how many must have reached their end."""

Split = dict[str, npt.NDArray[np.int64]]


@dataclass(frozen=True)
class Trained:
    """A bundle on the disk, and how good it is (`evaluate.evaluate`)."""

    folder: Path
    bundle: Bundle
    scores: dict[str, Any]
    seconds: dict[str, float]
    """By step."""


def split_vehicles(labels: pd.DataFrame, *, seed: int) -> Split:
    """train, calibration and test: `SHARES` of the vehicles of each cohort. HistoryError where there are too few."""
    generator = np.random.default_rng(seed)
    parts: dict[str, list[npt.NDArray[np.int64]]] = {"train": [], "calibration": [], "test": []}
    for _, cohort in labels.groupby("cohort", sort=True):
        order = generator.permutation(cohort.index.to_numpy())
        # What does not divide is dealt by chance, or small cohorts would always miss the same part.
        ends = np.floor(np.cumsum(SHARES)[:2] * order.size + generator.random()).astype(int)
        for name, dealt in zip(parts, np.split(order, np.minimum(ends, order.size)), strict=True):
            parts[name].append(dealt)
    split = {name: np.sort(np.concatenate(of)) for name, of in parts.items()}
    for name, of in split.items():
        ended = int(labels.loc[of, "ended"].sum()) if of.size else 0
        if of.size < FEWEST or ended < FEWEST:
            raise HistoryError(
                f"expected at least {FEWEST} vehicles that reached their end of life for {name}, got {ended} of "
                f"{of.size}: make histories of more vehicles (--vehicles) or for longer (--years)"
            )
    return split


def train(
    histories: Histories,
    folder: Path,
    boost: Boost,
    *,
    version: str | None = None,
    end_soh: float = END_SOH,
    seed: int = 1,
    say: Callable[[str], None] = print,
) -> Trained:
    """Write a bundle to `folder` and evaluate it as it is loaded from there.

    version  of the bundle; default: the moment, such as 20261127.093015
    end_soh  share of the fresh capacity at which a battery's life ends
    seed     of the split and of all else that is drawn
    """
    seconds: dict[str, float] = {}
    begun = time.perf_counter()
    labels = label(histories, end_soh)
    split = split_vehicles(labels, seed=seed)
    samples = assemble(histories, labels, shortened=seed)
    calibration = assemble(histories, labels).of(split["calibration"])
    say(
        f"{len(labels)} vehicles, {labels['ended'].mean():.0%} reached their end of life; {samples.vehicle.size:,} rows"
    )
    seconds["read"] = time.perf_counter() - begun
    begun = time.perf_counter()
    fitted = fit(samples.of(split["train"]), calibration, boost, seed=seed, say=say)
    seconds["fit"] = time.perf_counter() - begun
    manifest = Manifest(
        name=NAME,
        version=version or datetime.now(UTC).strftime("%Y%m%d.%H%M%S"),
        features=FEATURES,
        quantiles=QUANTILES,
        margins=fitted.margins,
        coverage=COVERAGE,
        probability_map=fitted.probability_map,
        horizon_days=HORIZON_DAYS,
        end_of_life_soh=end_soh,
        kinds=KINDS,
        data=histories.hash(),
        population=histories.plan.seed,
        physics=histories.physics,
        sha256={},
    )
    begun = time.perf_counter()
    parts = {name: of.tolist() for name, of in split.items()}
    reference = reference_of(samples.of(split["train"]), end_soh)
    # Scores come from the bundle as it is loaded, not from what is still in memory.
    Bundle.save(folder, manifest, fitted.boosters, parts, "", reference)
    scores = evaluate(Bundle.load(folder), histories, boost_here(), seed=seed, say=say)
    seconds["evaluate"] = time.perf_counter() - begun
    write_reference_files(folder / "reference", samples.of(split["train"]))
    words = card(manifest, histories, labels, split, fitted, scores)
    Bundle.save(folder, manifest, fitted.boosters, parts, words, reference)
    return Trained(folder, Bundle.load(folder), scores, seconds)


def card(
    manifest: Manifest,
    histories: Histories,
    labels: pd.DataFrame,
    split: Split,
    fitted: Fitted,
    scores: dict[str, Any],
) -> str:
    """The model card, with the numbers of this fit."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined)
    environment.keep_trailing_newline = True
    cells = labels["cell"].value_counts(normalize=True).sort_index()
    return environment.get_template("card.md.jinja").render(
        manifest=manifest,
        plan=histories.plan,
        ended=float(labels["ended"].mean()),
        cells=", ".join(f"{share:.0%} {name}" for name, share in cells.items()),
        split={name: of.size for name, of in split.items()},
        censored=fitted.censored,
        scores=scores,
    )
