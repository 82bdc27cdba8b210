"""The commands about models as a person types them: what they say when something is wrong, and that they work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from models.bundle import BUNDLED
from tests.command import Twin
from tests.training.test_real_cells import cells

ROW = {"SoC": 0.6, "SoH": 0.92, "Battery_Voltage": 355.0, "Battery_Current": 20.0, "Battery_Temperature": 24.0,
       "Charge_Cycles": 300.0, "Power_Consumption": 7.1}  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["generate", "--years", "long"], "expected --years such as 12, or eol, got 'long'"),
        (["generate", "--years", "0.1"], "expected years from 0.5 to 60, or eol, got 0.1"),
        (["generate", "--vehicles", "0"], "expected vehicles from 1"),
        (["generate", "--enrich", "rust"], "expected --enrich faults, got 'rust'"),
        (["generate", "--sensors", "good"], "expected sensors of ideal, typical, poor, got good"),
        (["generate", "--workers", "0"], "expected --workers of at least 1, got 0"),
        (["train", "--data", "nowhere"], "expected a folder that twin generate made, but nowhere holds no"),
        (["train", "--data", "nowhere", "--workers", "-1"], "expected --workers of at least 0, got -1"),
        (["evaluate", "--data", "nowhere"], "nowhere holds no histories.json"),
        (["evaluate", "--data", "nowhere", "--model", "nobody"], "expected a whole model bundle in nobody"),
        (["predict", "nowhere.csv"], "nowhere.csv: cannot read it"),
        (["predict", "x.txt"], "expected --out to end in .csv or .parquet, got x-predicted.txt"),
        (["validate", "early-life", "--data", "nowhere"], "severson2019_early_discharge.parquet: cannot read it"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_line(arguments: list[str], says: str, tmp_path: Path, twin: Twin) -> None:
    if arguments[0] in ("train", "evaluate", "generate", "validate"):
        arguments = [*arguments, "--out", str(tmp_path / "out")]
    answer = twin(*arguments)
    answer.complaint(2, says)
    assert not (tmp_path / "out").exists(), "nothing is left of what could not begin"


def test_predict_adds_columns_to_a_file(tmp_path: Path, twin: Twin) -> None:
    pd.DataFrame([ROW, ROW | {"SoH": 0.81}]).to_csv(tmp_path / "records.csv", index=False)
    answer = twin("predict", tmp_path / "records.csv")
    assert (answer.code, answer.err) == (0, "")
    told = pd.read_csv(tmp_path / "records-predicted.csv")
    assert list(told)[:7] == list(ROW)
    assert {"rul", "rul_low", "rul_high", "rul_days", "failure_probability", "failure_kind"} < set(told)
    again = twin("predict", tmp_path / "records.csv")
    assert again.code == 2
    assert "is there already; choose another with --out" in again.err
    parquet = twin("predict", tmp_path / "records.csv", "--out", tmp_path / "told.parquet")
    assert parquet.code == 0
    assert len(pd.read_parquet(tmp_path / "told.parquet")) == 2


def test_an_altered_bundle_is_refused_in_one_line(tmp_path: Path, twin: Twin) -> None:
    shutil.copytree(BUNDLED, tmp_path / "model")
    (tmp_path / "model" / "card.md").write_text("mine")
    pd.DataFrame([ROW]).to_csv(tmp_path / "records.csv", index=False)
    answer = twin("predict", tmp_path / "records.csv", "--model", tmp_path / "model")
    assert answer.code == 2
    assert "card.md is altered" in answer.err
    assert not (tmp_path / "records-predicted.csv").exists()


def test_train_and_evaluate_leave_scores_and_a_figure(histories_folder: Path, tmp_path: Path, twin: Twin) -> None:
    trained = twin("train", "--data", histories_folder, "--end-soh", "0.94", "--workers", "0", "--out", tmp_path / "m")
    assert trained.code == 0, trained.err
    scored = twin("evaluate", "--model", tmp_path / "m", "--data", histories_folder, "--out", tmp_path / "e")
    assert scored.code == 0, scored.err
    one, other = (json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("m", "e"))
    assert one["rul"]["mae"] == other["rul"]["mae"]
    for folder in ("m", "e"):
        assert (tmp_path / folder / "evaluation.png").stat().st_size > 10_000
    assert "hidden constants" in scored.out
    assert (tmp_path / "m" / "reference" / "scaler.joblib").is_file()


def test_train_takes_a_table_of_cells(tmp_path: Path, twin: Twin) -> None:
    cells().to_csv(tmp_path / "cells.csv", index=False)
    answer = twin("train", "--data", tmp_path / "cells.csv", "--out", tmp_path / "out")
    assert answer.code == 0, answer.err
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["rul"]["mae"] > 0.0
    assert "linear extrapolation" in answer.out


@pytest.mark.parametrize("command", ["generate", "train"])
def test_a_cluster_that_is_not_there_is_said_at_once(
    command: str, tmp_path: Path, twin: Twin, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"127.0.0.1:{free_port}"
    data = ["--data", tmp_path] if command == "train" else []
    twin(command, *data, "--address", address, "--out", tmp_path / "out").complaint(1, f"a Ray cluster at {address}")
    monkeypatch.setenv("RAY_ADDRESS", address)
    twin(command, *data, "--out", tmp_path / "out").complaint(1, f"expected a Ray cluster at {address}")
    assert not (tmp_path / "out").exists()


def test_damaged_histories_are_refused_and_left_as_they_are(tmp_path: Path, twin: Twin) -> None:
    (tmp_path / "histories.json").write_text("{")
    for arguments in (["generate", "--out", tmp_path], ["train", "--data", tmp_path], ["evaluate", "--data", tmp_path]):
        twin(*arguments).complaint(2, "histories.json is damaged")
    assert [path.name for path in tmp_path.iterdir()] == ["histories.json"]
