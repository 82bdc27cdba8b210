"""Schemathesis attacks the REST interface by its own description: nothing undocumented, no 500, good data is taken."""

from __future__ import annotations

from typing import Any

import schemathesis
from hypothesis import HealthCheck, settings

from actors.prediction.pool import Pool
from actors.prediction.rest import rest_api
from datasets.schema import MODEL_INPUTS
from models.bundle import BUNDLED
from tests.actors.test_swap import WINDOWED, Echo, pool_of

open_pool, wide_pool = Pool(BUNDLED), pool_of(Echo("1", (*MODEL_INPUTS, *WINDOWED), 0))
described = schemathesis.openapi.from_asgi("/openapi.json", rest_api(None, lambda: open_pool))
guarded = schemathesis.openapi.from_asgi("/openapi.json", rest_api("secret", lambda: open_pool))
wide = schemathesis.openapi.from_asgi("/openapi.json", rest_api(None, lambda: wide_pool))
patient = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@described.parametrize()
@patient
def test_an_open_pool(case: Any) -> None:
    case.call_and_validate()


@wide.parametrize()
@patient
def test_a_pool_with_windowed_features(case: Any) -> None:
    case.call_and_validate()


@guarded.parametrize()
@patient
def test_a_pool_with_a_token(case: Any) -> None:
    case.call_and_validate(headers={"Authorization": "Bearer secret"})


def test_what_is_described() -> None:
    paths = guarded.raw_schema["paths"]
    assert set(paths) == {"/predict", "/vehicles/{vehicle_id}", "/health", "/ready", "/model"}
    assert {"200", "401", "413", "422", "503"} <= set(paths["/predict"]["post"]["responses"])
    limited = rest_api("secret", lambda: open_pool, 1).openapi()["paths"]
    assert all(
        "429" in limited[path][method]["responses"]
        for path in set(paths) - {"/health", "/ready"}
        for method in limited[path]
    )
    assert paths["/predict"]["post"]["security"]
