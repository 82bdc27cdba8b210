"""The closed loop on a registry in a local file: what is judged, what moves, what a dry run leaves alone."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from datasets.observed import Observation
from datasets.schema import MODEL_INPUTS
from models.bundle import BUNDLED, Bundle
from tests.command import Twin
from tests.histories import END_SOH
from training.histories import open_histories
from training.labels import label
from training.registry import Registry, TrainingRun
from training.samples import assemble
from training.train import Trained
from twin.errors import RunFailed
from twin.loop import retrain
from twin.loop.observe import Observed, observe
from twin.loop.retrain import Loop, retrain_model

START = pd.Timestamp("2026-01-01", tz="UTC")


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: Trained, worse: Path) -> Registry:
    """The model without sense is champion, the other one challenger."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    registry = Registry(f"sqlite:///{tmp_path}/mlflow.db")
    for alias, bundle in (("champion", worse), ("challenger", trained.folder)):
        version = registry.register(registry.log(TrainingRun(bundle, "d" * 64, "0123abc", {"train": ["EV-000001"]})))
        registry.set_alias(alias, version, "at first")
    return registry


def a_run(folder: Path, telemetry: pd.DataFrame, **others: pd.DataFrame) -> Path:
    """A run directory with these tables. `day` and `number` become time and identity."""
    for name, table in ({"telemetry": telemetry} | others).items():
        (folder / name / "shard=0000").mkdir(parents=True)
        rows = table.assign(
            ts=(START + pd.to_timedelta(table["day"], unit="D")).dt.floor("s"),
            vehicle_id=[f"EV-{k:06d}" for k in table["number"]],
        )
        rows.drop(columns=["day", "number"]).to_parquet(
            folder / name / "shard=0000" / "rows.parquet", coerce_timestamps="us"
        )
    facts: dict[str, Any] = {"run_id": "r", "settings": {}, "versions": {}, "period_s": 86400.0}
    (folder / "run.json").write_text(json.dumps(facts))
    return folder


def told(histories_folder: Path, fade: float = 0.0) -> pd.DataFrame:
    """Telemetry of the vehicles of the histories, less healthy by `fade`."""
    histories = open_histories(histories_folder)
    samples = assemble(histories, label(histories, END_SOH))
    table = pd.DataFrame(samples.inputs[:, : len(MODEL_INPUTS)], columns=list(MODEL_INPUTS.values()))
    table = table.assign(number=samples.vehicle, day=samples.day, soh=table["soh"] - fade)
    return table.assign(seq=table.groupby("number").cumcount())


def test_promote_moves_the_alias_and_says_why(twin: Twin, registry: Registry, histories_folder: Path) -> None:
    options = ["--data", histories_folder, "--tracking-uri", registry.tracking_uri]
    dry = twin("promote", *options, "--dry-run")
    assert dry.code == 0, dry.err
    assert "dry run, nothing is changed: would be promoted" in dry.out
    assert registry.alias("champion").number == 1
    assert "promotion.refused" not in registry.version(2).tags
    done = twin("promote", *options)
    assert done.code == 0, done.err
    assert "passed  error" in done.out
    champion = registry.alias("champion")
    assert champion.number == 2
    assert champion.tags["champion.reason"].startswith("covers ")
    assert champion.tags["champion.before"] == "1"
    assert "is the champion already" in twin("promote", *options).out
    back = twin("promote", *options, "--challenger", "1")
    back.complaint(5, "version 1 does not pass the gate")
    assert "FAILED  error" in back.out
    assert registry.alias("champion").number == 2
    assert "MAE" in registry.version(1).tags["promotion.refused"]
    for arguments, words in (
        (["--challenger", "nobody"], "alias nobody"),
        (["--challenger", str(histories_folder)], "twin train --register"),
        (["--challenger", "models:/other/1"], "version 1 of other"),
    ):
        twin("promote", *options, *arguments).complaint(2, words)
    twin("promote", "--data", "nowhere", *options[2:], "--challenger", "1").complaint(2, "histories.json")
    twin("promote", *options[:2], "--tracking-uri", "sqlite:///none.db").complaint(2, "does not exist")


def test_a_run_is_compared_with_its_model(trained: Trained, histories_folder: Path, tmp_path: Path) -> None:
    same = observe(a_run(tmp_path / "same", told(histories_folder)), trained.bundle)
    assert same.alarms == ()
    assert "coverage cannot be told yet" in str(same)
    other = observe(a_run(tmp_path / "other", told(histories_folder, 0.05).query("soh > 0.94")), trained.bundle)
    assert len(other.drift) == 3
    assert other.alarms == () or other.alarms[0].startswith("drift: SoH PSI")


def test_live_coverage_is_of_the_truth(trained: Trained, tmp_path: Path) -> None:
    """Vehicles that live 100, 101, ... days at a cycle a day, 60 of them, and predictions of 110 to 130 on day 0."""
    number, day = (grid.ravel() for grid in np.meshgrid(np.arange(60), np.arange(300), indexing="ij"))
    telemetry = pd.DataFrame({"number": number, "day": day, "seq": day, "soh": 0.97, "charge_cycles": 1.0 * day})
    telemetry = telemetry.assign(**{name: 1.0 for name in MODEL_INPUTS.values() if name not in telemetry})
    # The weakest group begins at 0.97 of the cells, which is not its wear.
    usable = 0.97 * (1.0 - (1.0 - END_SOH) * day / (100.0 + number))
    truth = pd.DataFrame({"number": number, "day": day, "soh": usable / 0.97, "soh_usable": usable})
    predictions = pd.DataFrame({"number": np.arange(60), "day": 0, "seq": 0, "rul_low": 110.0, "rul_high": 130.0})
    predictions["model_version"] = trained.bundle.manifest.version
    found = observe(a_run(tmp_path / "run", telemetry, truth=truth, predictions=predictions), trained.bundle).coverage
    assert (found.vehicles, found.ended, found.predictions) == (60, 60, 60)
    assert found.share == pytest.approx(21 / 60, abs=0.02)  # those that live 110 to 130 days
    assert found.rings
    assert Observed((), found).figures().coverage == found.share
    short = telemetry[telemetry["day"] < 90]
    early = observe(
        a_run(tmp_path / "early", short, truth=truth[truth["day"] < 90], predictions=predictions), trained.bundle
    )
    assert early.coverage.share is None
    others = predictions.assign(model_version="0.0.1")
    assert (
        observe(a_run(tmp_path / "others", telemetry, truth=truth, predictions=others), trained.bundle).coverage.share
        is None
    )


def test_from_an_alarm_to_a_new_champion(
    twin: Twin, registry: Registry, histories_folder: Path, tmp_path: Path
) -> None:
    run = a_run(tmp_path / "run", told(histories_folder))
    options = ["--run", run, "--data", histories_folder, "--tracking-uri", registry.tracking_uri]
    quiet = twin("retrain", *options)
    assert quiet.code == 0, quiet.err
    assert "model 0.1.0: no alarm: SoH PSI" in quiet.out
    shown = Observation.load(run)
    assert shown is not None
    assert f"SoH PSI {shown.psi['SoH'][0]:.2f} (limit {shown.psi['SoH'][1]:.2f}, " in quiet.out
    assert shown.coverage is None, "no prediction is decided"
    dry = twin("retrain", *options, "--force", "--dry-run")
    assert "dry run: would train on" in dry.out
    assert [version.number for version in registry.versions()] == [2, 1]
    done = twin("retrain", *options, "--force")
    assert done.code == 0, done.err
    assert "promoted: ev-battery-fleet version 3 is champion" in done.out
    champion = registry.alias("champion")
    assert champion.number == 3
    assert champion.tags["data_sha256"] == open_histories(histories_folder).hash()
    assert champion.tags["champion.before"] == "1"
    assert len(list((tmp_path / "runs").glob("model-*"))) == 1


def test_what_cannot_be_registered_is_kept_and_registered_later(
    registry: Registry, trained: Trained, histories_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry goes away after the training. The next step trains nothing."""
    (trained.folder / "evaluation.json").write_text(json.dumps(trained.scores))
    for name in ("evaluation.txt", "evaluation.png", "evaluation.svg"):
        (trained.folder / name).write_text("")
    trainings, answers = [], iter([RunFailed("it does not answer"), None])

    def train(**options: Any) -> Path:
        trainings.append(options)
        return trained.folder

    def register(*arguments: Any, **options: Any) -> None:
        if (error := next(answers)) is not None:
            raise error

    monkeypatch.setattr(retrain, "train_model", train)
    monkeypatch.setattr(retrain, "register_model", register)
    said: list[str] = []
    stop = threading.Event()

    def say(words: str) -> None:
        said.append(words)
        if words.startswith("promoted") or len(said) > 20:
            stop.set()

    class Stopped:
        def __enter__(self) -> threading.Event:
            return stop

        def __exit__(self, *_: object) -> None:
            return None

    monkeypatch.setattr(retrain, "stopped_by_signals", Stopped)
    run = a_run(tmp_path / "run", told(histories_folder))
    loop = Loop(run, histories_folder, registry.tracking_uri, 10, 0, say)
    retrain_model(loop, watch=True, every_s=0.01, force=True)
    assert len(trainings) == 1
    assert "it does not answer; tried again in 0.01 s" in said
    assert said[-1].startswith("promoted: ev-battery-fleet version 2")
    assert registry.alias("champion").number == 2


def test_retrain_refuses_what_it_cannot_use(twin: Twin, tmp_path: Path) -> None:
    for arguments, words in (
        (["--every", "soon"], "--every: expected a duration"),
        (["--workers", "-1"], "--workers of at least 0"),
        ([], "holds no run.json"),
    ):
        twin("retrain", "--run", tmp_path, "--data", tmp_path, *arguments).complaint(2, words)


def test_the_bundled_model_loads_without_a_reference_too() -> None:
    assert isinstance(Bundle.load(BUNDLED).reference, dict)
