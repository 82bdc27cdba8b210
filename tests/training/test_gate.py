"""The gate: a better model passes, a worse one does not, and nothing that was seen is scored."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.bundle import Bundle
from tests.histories import END_SOH
from training.evaluate import unseen_vehicles
from training.gate import FEWEST, judge
from training.histories import Histories, open_histories
from training.labels import label
from training.samples import Samples, assemble
from training.train import Trained


@pytest.fixture
def histories(histories_folder: Path) -> Histories:
    return open_histories(histories_folder)


def changed(bundle: Path, folder: Path, **facts: Any) -> Bundle:
    """The bundle, whose manifest says something else."""
    shutil.copytree(bundle, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | facts))
    return Bundle.load(folder)


def test_a_better_model_passes_and_a_worse_one_does_not(trained: Trained, worse: Path, histories: Histories) -> None:
    good, bad = trained.bundle, Bundle.load(worse)
    better = judge(bad, good, histories)
    assert better.promote, better.reason
    assert [rule.name for rule in better.rules] == ["coverage", "error", "failure"]
    assert better.facts["difference_range"][1] < 0.0
    assert f"MAE {better.facts['mae']:.1f} against {better.facts['champion_mae']:.1f} EFC" in better.reason
    json.dumps(better.facts, allow_nan=False)
    back = judge(good, bad, histories)
    assert not back.promote
    assert not next(rule for rule in back.rules if rule.name == "error").passed
    assert "FAILED  error" in back.table()
    assert not judge(None, bad, histories).promote
    assert judge(None, good, histories).promote


def test_intervals_that_hold_too_seldom_or_always_are_refused(
    trained: Trained, worse: Path, histories: Histories, tmp_path: Path
) -> None:
    for name, margin in (("narrow", -3.0), ("wide", 9.0)):
        broken = changed(trained.folder, tmp_path / name, margins={"efc": margin, "days": margin})
        verdict = judge(Bundle.load(worse), broken, histories)
        assert not verdict.promote
        assert [rule.name for rule in verdict.rules if not rule.passed] == ["coverage"]
        assert "expected 85% to 95%" in verdict.reason


def test_the_same_model_passes_only_where_the_champion_s_coverage_alarm_rings(
    trained: Trained, histories: Histories
) -> None:
    assert not judge(trained.bundle, trained.bundle, histories).promote
    assert judge(trained.bundle, trained.bundle, histories, alarm=True).promote


def test_only_what_neither_has_seen_is_scored(trained: Trained, histories: Histories, tmp_path: Path) -> None:
    samples = assemble(histories, label(histories, END_SOH))
    good = trained.bundle
    scored = unseen_vehicles([good, good], histories, samples)
    assert np.isin(scored, good.seen["test"]).all()
    asked: list[Samples] = []

    class Spy(Bundle):
        def life(self, target: str, inputs: Any) -> Any:
            asked.append(inputs)
            return super().life(target, inputs)

    judge(good, Spy.load(trained.folder), histories)
    seen = samples.of(np.concatenate([good.seen["train"], good.seen["calibration"]]))
    known = {row.tobytes() for row in seen.inputs}
    assert asked
    assert not known & {row.tobytes() for rows in asked for row in np.asarray(rows)}
    # Another model has learned from the vehicles that this one has not seen: nothing is left to judge by.
    rest = Bundle(good.manifest, {}, {"train": good.seen["test"], "calibration": good.seen["test"]})
    verdict = judge(rest, good, histories)
    assert not verdict.promote
    assert f"expected at least {FEWEST} vehicles" in verdict.reason
    assert "--vehicles" in verdict.reason


def test_models_of_another_end_of_life_are_not_compared(trained: Trained, histories: Histories, tmp_path: Path) -> None:
    other = changed(trained.folder, tmp_path / "other", end_of_life_soh=0.95)
    verdict = judge(other, trained.bundle, histories)
    assert not verdict.promote
    assert "the champion's 0.95" in verdict.reason
