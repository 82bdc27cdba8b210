"""The predictor without a run, as Serve imports it from a configuration."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from ray import serve

from models.bundle import Bundle
from tests.support import HANG_S
from twin.errors import BadInput
from twin.served import application

ROW = {"SoC": 0.6, "SoH": 0.92, "Battery_Voltage": 355, "Battery_Current": 20, "Battery_Temperature": 24,
       "Charge_Cycles": 300, "Power_Consumption": 7.1}  # fmt: skip


@pytest.fixture
def address(ray_cluster: None, monkeypatch: pytest.MonkeyPatch, free_port: int) -> Iterator[str]:
    monkeypatch.setenv("TWIN_API_TOKEN", "right")
    monkeypatch.setenv("TWIN_REPLICAS", "1")
    serve.start(http_options={"host": "127.0.0.1", "port": free_port})
    serve.run(application({}), name="predictor", route_prefix="/")
    yield f"http://127.0.0.1:{free_port}"
    serve.shutdown()  # type: ignore[no-untyped-call]


@pytest.mark.timeout(600)
def test_it_answers_who_has_the_token(address: str) -> None:
    asked = urllib.request.Request(f"{address}/predict", json.dumps(ROW).encode())
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(asked, timeout=HANG_S)
    asked.add_header("Authorization", "Bearer right")
    with urllib.request.urlopen(asked, timeout=HANG_S) as answer:
        assert json.load(answer)["model_version"] == Bundle.load().manifest.version


def test_without_a_token_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TWIN_API_TOKEN", raising=False)
    with pytest.raises(BadInput, match="TWIN_API_TOKEN"):
        application({})


def test_settings_are_in_the_environment() -> None:
    with pytest.raises(BadInput, match="replicas"):
        application({"replicas": "3"})
