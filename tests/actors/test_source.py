"""Which model a pool has whose model is in a registry: a database here, whose file is taken away and brought back."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from actors.prediction.plan import ModelPlan
from actors.prediction.source import ModelSource
from models.bundle import BUNDLED, Bundle
from models.registry import RegistryError
from tests.services.base import free_ports
from tests.training.test_registry import bundle_of, training_of
from training.registry import Registry, Version

BUNDLED_VERSION = Bundle.load().manifest.version


class Scene:
    """A registry with versions 4.0.1 (champion) and 4.0.2, and the plan of a pool that follows the champion."""

    def __init__(self, folder: Path, template: Path) -> None:
        self.folder = Path(shutil.copytree(template, folder / "registry"))
        self.registry = Registry(f"sqlite:///{self.folder}/mlflow.db")
        self.plan = ModelPlan(
            "models:/ev-battery-fleet@champion", self.registry.tracking_uri, folder / "cache", BUNDLED
        )

    def promote(self, number: int) -> Version:
        return self.registry.set_alias("champion", number, "a test")

    def away(self) -> None:
        (self.folder / "mlflow.db").rename(self.folder / "away.db")

    def back(self) -> None:
        (self.folder / "away.db").rename(self.folder / "mlflow.db")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its artefacts stay where they are; only the database is copied."""
    artefacts = tmp_path_factory.mktemp("template")
    registry = Registry(f"sqlite:///{artefacts}/mlflow.db")
    for version in ("4.0.1", "4.0.2"):
        registry.register(registry.log(training_of(bundle_of(artefacts / version, version))))
    registry.set_alias("champion", 1, "the first")
    only = tmp_path_factory.mktemp("database")
    shutil.copy(artefacts / "mlflow.db", only)
    return only


@pytest.fixture
def scene(tmp_path: Path, template: Path) -> Scene:
    return Scene(tmp_path, template)


def version_of(source: ModelSource) -> str:
    offered = pickle.loads(pickle.dumps(source.offered))
    version: str = offered.load().manifest.version
    return version


def test_it_begins_with_the_champion_and_knows_where_it_is_from(scene: Scene) -> None:
    source = ModelSource(scene.plan)
    assert Bundle.load(source.begin()).manifest.version == version_of(source) == "4.0.1"
    assert source.notice == ""
    assert source.offered.origin["version"] == "ev-battery-fleet version 1"
    assert source.offered.origin["run_id"] == scene.registry.version(1).run_id
    assert source.offered.origin["data_sha256"] == "d" * 64
    assert source.offered.origin["champion.reason"] == "the first"


def test_it_follows_the_alias(scene: Scene) -> None:
    source = ModelSource(scene.plan)
    source.begin()
    assert not source.look()
    scene.promote(2)
    assert source.look()
    assert version_of(source) == "4.0.2"
    scene.promote(1)
    assert source.look()
    assert version_of(source) == "4.0.1"


def test_while_the_registry_is_away_the_champion_stays(scene: Scene) -> None:
    source = ModelSource(scene.plan)
    source.begin()
    scene.away()
    assert not source.look()
    assert source.notice.endswith("ev-battery-fleet version 1 is kept")
    scene.back()
    assert not source.look()
    assert source.notice == ""


def test_a_pool_that_starts_while_it_is_away_takes_what_it_had_last(scene: Scene) -> None:
    ModelSource(scene.plan).begin()
    scene.away()
    source = ModelSource(scene.plan)
    source.begin()
    assert version_of(source) == "4.0.1"
    assert source.notice.endswith("ev-battery-fleet version 1 is used, which was fetched last")
    scene.back()
    scene.promote(2)
    assert source.look()
    assert version_of(source) == "4.0.2"


def test_with_nothing_fetched_it_takes_the_bundled_one(scene: Scene) -> None:
    [port] = free_ports(1)
    source = ModelSource(replace(scene.plan, tracking_uri=f"http://127.0.0.1:{port}"))
    assert source.begin(required=True) == BUNDLED, "required, but whether it is there is not known"
    assert "Connection refused" in source.notice
    assert source.notice.endswith("the bundled model is used")
    assert not source.look()
    assert source.notice.endswith("the bundled model is kept")


def test_a_champion_may_come_later(scene: Scene) -> None:
    source = ModelSource(replace(scene.plan, uri="models:/ev-battery-fleet@winner"))
    source.begin()
    assert version_of(source) == BUNDLED_VERSION
    assert "expected a version of ev-battery-fleet with the alias winner" in source.notice
    scene.registry.set_alias("winner", 2, "a test")
    assert source.look()
    assert version_of(source) == "4.0.2"


@pytest.mark.parametrize("uri", ["models:/ev-battery-fleet@nobody", "models:/ev-battery-fleet/9", "models:/x"])
def test_what_is_asked_for_by_name_must_be_there(scene: Scene, uri: str) -> None:
    with pytest.raises(RegistryError, match="expected"):
        ModelSource(replace(scene.plan, uri=uri)).begin(required=True)


def altered(bundle: Path) -> None:
    (bundle / "rul_efc.ubj").write_bytes(b"altered")


def incomplete(bundle: Path) -> None:
    (bundle / "failure.ubj").unlink()


@pytest.mark.parametrize("harm", [altered, incomplete])
def test_an_unsound_champion_is_refused_and_the_old_one_stays(
    scene: Scene, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    source = ModelSource(scene.plan)
    source.begin()
    new = scene.registry.register(scene.registry.log(training_of(bundle_of(tmp_path / "new", "4.0.3"))))
    harm(Path(new.source.removeprefix("file://")) / "artifacts" / "bundle")
    scene.promote(new.number)
    for _ in range(2):
        assert not source.look()
        assert version_of(source) == "4.0.1"
        assert "ev-battery-fleet version 1 is kept" in source.notice
        assert "\n" not in source.notice
    scene.promote(2)
    assert source.look()
    assert source.notice == ""


def test_a_champion_for_other_inputs_is_refused(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = ModelSource(scene.plan)
    source.begin()
    scene.promote(2)
    monkeypatch.setattr("models.bundle.FEATURES", ("SoC",))
    assert not source.look()
    assert "wants other inputs" in source.notice
    assert version_of_kept(source) == "ev-battery-fleet version 1"


def version_of_kept(source: ModelSource) -> str:
    return source.offered.origin["version"]
