"""The registry in a local database: runs, versions, aliases, lineage; what is altered or missing is one clear line."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from models.bundle import BUNDLED, Bundle
from models.registry import verified, without_secrets
from tests.models.test_bundle import ROW
from training.registry import Registry, RegistryAway, RegistryError, TrainingRun

VEHICLES = {"train": ["EV-000001", "EV-000002"], "test": ["EV-000003"]}


def bundle_of(folder: Path, version: str) -> Path:
    """A bundle that predicts the same, and says another version."""
    shutil.copytree(BUNDLED, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"version": version}))
    return folder


def training_of(bundle: Path) -> TrainingRun:
    return TrainingRun(
        bundle, "d" * 64, "0123abc", VEHICLES, {"rounds": 300, "split": "by vehicle"}, {"rul.mae": 212.5}
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("registry")


@pytest.fixture(scope="module")
def registry(folder: Path) -> Registry:
    """With two versions, of which the second is champion."""
    registry = Registry(f"sqlite:///{folder}/mlflow.db")
    for number in ("2.0.1", "2.0.2"):
        version = registry.register(registry.log(training_of(bundle_of(folder / number, number))))
    registry.set_alias("champion", version, "better by a fifth")
    return registry


def test_versions_are_numbered_and_carry_their_bundle(registry: Registry) -> None:
    assert [(v.number, v.bundle) for v in registry.versions()] == [(2, "2.0.2"), (1, "2.0.1")]
    assert registry.alias("champion") == registry.resolve("models:/ev-battery-fleet@champion") == registry.version(2)


def test_an_alias_says_why_and_what_it_replaced(registry: Registry) -> None:
    registry.set_alias("challenger", 1, "trained anew")
    again = registry.set_alias("challenger", registry.version(2), "trained once more")
    assert again.tags["challenger.reason"] == "trained once more"
    assert again.tags["challenger.before"] == "1"
    assert registry.find_alias("nobody") is None
    registry.tag(1, "rejected", "worse than the champion on vehicles it has not seen")
    assert registry.version(1).tags["rejected"].startswith("worse")


def test_a_prediction_leads_to_its_run_its_data_and_its_vehicles(registry: Registry) -> None:
    lineage = registry.lineage("2.0.1")
    assert lineage.version.number == 1
    assert lineage.data_sha256 == "d" * 64
    assert lineage.code_version == "0123abc"
    assert lineage.vehicles == {part: tuple(ids) for part, ids in VEHICLES.items()}
    assert lineage.params["split"] == "by vehicle"
    assert lineage.metrics == {"rul.mae": 212.5}
    with pytest.raises(RegistryError, match=r"expected a version of ev-battery-fleet that predicts as 9\.9"):
        registry.lineage("9.9")


@pytest.mark.parametrize("uri", ["models:/ev-battery-fleet@champion", "models:/ev-battery-fleet/2", "runs:/{}/model"])
def test_what_is_fetched_is_the_bundle(registry: Registry, tmp_path: Path, uri: str) -> None:
    uri = uri.format(registry.version(2).run_id)
    found = registry.fetch(uri, tmp_path)
    assert Bundle.load(found).manifest.version == "2.0.2"
    assert found.name == verified(found)
    assert registry.fetch(uri, tmp_path) == found
    known = registry.remembered(uri, tmp_path)
    assert known is not None
    assert known[1] == found
    (found / "rul_efc.ubj").write_bytes(b"altered")
    assert registry.remembered(uri, tmp_path) is None
    assert Bundle.load(registry.fetch(uri, tmp_path)).manifest.version == "2.0.2", "fetched anew"


def test_a_folder_is_its_own_cache(registry: Registry, tmp_path: Path) -> None:
    assert registry.fetch(BUNDLED, tmp_path) == BUNDLED
    assert not any(tmp_path.iterdir())


def test_mlflow_loads_it_without_this_repository(registry: Registry, tmp_path: Path) -> None:
    code = (
        "import json, sys, mlflow, pandas as pd\n"
        "mlflow.set_tracking_uri(sys.argv[1])\n"
        "model = mlflow.pyfunc.load_model('models:/ev-battery-fleet@champion')\n"
        "print(model.predict(pd.DataFrame([json.loads(sys.argv[2])])).to_json(orient='records'))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code, registry.tracking_uri, json.dumps(ROW)], cwd=tmp_path, capture_output=True,
        text=True, env=environment | {"MLFLOW_DISABLE_TELEMETRY": "true"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [answer] = json.loads(done.stdout.splitlines()[-1])
    assert set(answer) == {"rul", "rul_low", "rul_high", "failure_probability"}
    assert 0 <= answer["rul_low"] <= answer["rul"] <= answer["rul_high"]


def test_the_same_bundle_again_is_the_same_version(registry: Registry, folder: Path) -> None:
    assert registry.register(registry.log(training_of(folder / "2.0.1"))).number == 1


def test_another_bundle_of_the_same_version_is_refused(registry: Registry, folder: Path, tmp_path: Path) -> None:
    other = bundle_of(tmp_path / "other", "2.0.1")
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps(manifest | {"coverage": 0.5}))
    with pytest.raises(RegistryError, match=r"version 1 predicts as 2\.0\.1 already"):
        registry.register(registry.log(training_of(other)))


def damaged(bundle: Path) -> None:
    (bundle / "failure.ubj").write_bytes(b"x")


def lost(bundle: Path) -> None:
    (bundle / "failure.ubj").unlink()


def escaping(bundle: Path) -> None:
    (bundle / "manifest.json").write_text('{"sha256": {"../rul_efc.ubj": "0"}}')


def empty(bundle: Path) -> None:
    (bundle / "manifest.json").write_text("{}")


@pytest.mark.parametrize("harm", [damaged, lost, escaping, empty])
def test_an_altered_bundle_is_neither_logged_nor_taken(
    registry: Registry, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    bundle = bundle_of(tmp_path / "bundle", "2.0.3")
    harm(bundle)
    for act in (lambda: registry.log(training_of(bundle)), lambda: registry.fetch(bundle, tmp_path)):
        with pytest.raises(RegistryError) as raised:
            act()
        assert "\n" not in str(raised.value)


def test_a_bundle_altered_in_the_store_is_refused(registry: Registry, folder: Path, tmp_path: Path) -> None:
    """Its manifest, too: the version knows the manifest's digest."""
    version = registry.register(registry.log(training_of(bundle_of(tmp_path / "new", "2.0.4"))))
    [stored] = folder.glob(f"mlflow-artifacts/{version.run_id}/artifacts/model/artifacts/bundle")
    text = (stored / "manifest.json").read_text()
    (stored / "manifest.json").write_text(text.replace('"coverage": 0.9', '"coverage": 0.5'))
    cache = tmp_path / "cache"
    with pytest.raises(RegistryError, match="is altered: its manifest was registered with SHA-256"):
        registry.fetch(f"models:/ev-battery-fleet/{version.number}", cache)
    assert not any(cache.iterdir())


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("models:/ev-battery-fleet@nobody", "expected a version of ev-battery-fleet with the alias nobody"),
        ("models:/ev-battery-fleet/77", "expected version 77 of ev-battery-fleet"),
        ("models:/another@champion", "expected a version of another with the alias champion"),
        ("models:/ev-battery-fleet/latest", "expected a folder, models:/NAME@ALIAS"),
        ("runs:/0123/model", "expected run 0123"),
        ("/nowhere", "expected a whole model bundle in /nowhere"),
    ],
)
def test_what_is_not_there_is_said_in_a_line(registry: Registry, tmp_path: Path, uri: str, says: str) -> None:
    with pytest.raises(RegistryError) as raised:
        registry.fetch(uri, tmp_path)
    assert str(raised.value).startswith(says)
    assert "\n" not in str(raised.value)
    assert not isinstance(pickle.loads(pickle.dumps(raised.value)), RegistryAway)


def test_to_ask_makes_no_registry(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="which does not exist; is MLFLOW_TRACKING_URI set"):
        Registry(f"sqlite:///{tmp_path}/mlflow.db").alias("champion")
    assert not any(tmp_path.iterdir())


def test_an_address_is_told_without_its_password() -> None:
    assert without_secrets("https://me:hush@host:1/x") == "https://host:1/x"
    assert without_secrets("sqlite:///a@b.db") == "sqlite:///a@b.db"


def test_mlflow_is_loaded_only_when_it_is_asked() -> None:
    code = "import sys, training.registry, actors.prediction.pool, twin.fleet, twin.cli; print('mlflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
