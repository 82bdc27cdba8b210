"""A few lives for all tests of training. They end early, so that some have ended."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

import numpy as np
import pytest
import xgboost as xgb

from models.bundle import Bundle
from physics import physics_version
from training.fit import Params, Table, boost_here, fit
from training.histories import Plan, make_part, open_histories
from training.labels import label
from training.samples import assemble
from training.train import Trained, train

PLAN: Final = Plan(vehicles=60, years=6.0, seed=3, end_soh=0.94, part_vehicles=30)
END_SOH: Final = PLAN.end_soh


@pytest.fixture(scope="session")
def histories_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two parts, made in this process: what tasks of Ray do."""
    folder = tmp_path_factory.mktemp("histories")
    facts = {"format": 1, "physics": physics_version(), "plan": asdict(PLAN)}
    (folder / "histories.json").write_text(json.dumps(facts))
    for part in range(PLAN.parts):
        make_part({"part": part}, str(folder), asdict(PLAN))
    return folder


@pytest.fixture(scope="session")
def trained(histories_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("model") / "bundle"
    return train(
        open_histories(histories_folder), folder, boost_here(), version="1.2.3", end_soh=END_SOH, say=lambda _: None
    )


@pytest.fixture(scope="session")
def worse(trained: Trained, histories_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the same rows whose labels were shuffled among them, whose lives are twice as long, and which always
    fails with 70 %: of so few vehicles nothing less is surely worse."""
    generator, histories = np.random.default_rng(0), open_histories(histories_folder)

    def shuffled(name: str, params: Params, table: Table, rounds: int) -> xgb.Booster:
        longer = np.log(2.0) if name.startswith("rul") else 0.0
        return boost_here()(name, params, replace(table, label=generator.permutation(table.label) + longer), rounds)

    samples, seen = assemble(histories, label(histories, END_SOH)), trained.bundle.seen
    fitted = fit(samples.of(seen["train"]), samples.of(seen["calibration"]), shuffled, say=lambda _: None)
    manifest = replace(
        trained.bundle.manifest, version="0.1.0", margins=fitted.margins, probability_map=((0.0, 1.0), (0.7, 0.7))
    )
    folder = tmp_path_factory.mktemp("worse") / "bundle"
    parts = {part: of.tolist() for part, of in seen.items()}
    Bundle.save(folder, manifest, fitted.boosters, parts, "shuffled", trained.bundle.reference)
    return folder
