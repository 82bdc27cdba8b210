"""The registry on a real MLflow server, whose artefacts are on a real S3 server: what goes in comes out, and failures
are said in seconds.
"""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from models.bundle import Bundle
from tests.services import S3, MLflow
from tests.services.base import free_ports
from tests.training.test_registry import bundle_of, training_of
from training.registry import Registry, RegistryAway, RegistryError

pytestmark = pytest.mark.services

PATIENCE_S = 60.0


@pytest.fixture
def registry(mlflow_server: MLflow) -> Registry:
    return Registry(mlflow_server.url, "fleet-of-a-test")


def test_in_and_out_through_server_and_store(registry: Registry, s3: S3, tmp_path: Path) -> None:
    version = registry.register(registry.log(training_of(bundle_of(tmp_path / "bundle", "3.0.1"))))
    registry.set_alias("champion", version, "the first")
    found = registry.fetch("models:/fleet-of-a-test@champion", tmp_path / "cache")
    assert Bundle.load(found).manifest.version == "3.0.1"
    assert list(s3.files.rglob("rul_efc.ubj")), "the artefacts are in the bucket"
    assert registry.lineage("3.0.1").vehicles["test"] == ("EV-000003",)


def test_a_store_that_is_away_is_said_and_leaves_nothing_half_done(registry: Registry, s3: S3, tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path / "bundle", "3.0.2")
    version = registry.register(registry.log(training_of(bundle)))
    cache = tmp_path / "cache"
    before = registry.versions()
    s3.kill()
    try:
        for act in (
            lambda: registry.fetch(version, cache),
            lambda: registry.log(training_of(bundle_of(tmp_path / "next", "3.0.3"))),
        ):
            began = time.monotonic()
            with pytest.raises(RegistryAway) as raised:
                act()
            assert time.monotonic() - began < PATIENCE_S
            assert "\n" not in str(raised.value)
        assert not any(cache.iterdir())
        assert registry.versions() == before
    finally:
        s3.restart()
    assert Bundle.load(registry.fetch(version, cache)).manifest.version == "3.0.2"


@pytest.mark.parametrize("uri", ["http://me:hush@127.0.0.1:{}", "postgresql://me:hush@127.0.0.1:{}/mlflow"])
def test_a_server_that_is_away_is_said_in_seconds(tmp_path: Path, uri: str) -> None:
    [port] = free_ports(1)
    registry = Registry(uri.format(port))
    began = time.monotonic()
    with pytest.raises(RegistryAway) as raised:
        registry.fetch("models:/ev-battery-fleet@champion", tmp_path)
    assert time.monotonic() - began < PATIENCE_S
    assert "Connection refused" in str(raised.value)
    assert "hush" not in str(raised.value)


def test_a_server_that_says_nothing_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as mute:
        registry = Registry(f"http://127.0.0.1:{mute.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(RegistryAway, match="timed out"):
            registry.fetch("models:/ev-battery-fleet@champion", tmp_path)
        assert time.monotonic() - began < PATIENCE_S


def test_what_is_no_registry_is_said(s3: S3, tmp_path: Path) -> None:
    """Another server, which answers with an error of its own."""
    with pytest.raises(RegistryError) as raised:
        Registry(s3.url).fetch("models:/ev-battery-fleet@champion", tmp_path)
    assert "\n" not in str(raised.value)
