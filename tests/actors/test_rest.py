"""REST on the predictor: what fits is answered, what does not is a 422 that names the field."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from actors.prediction.pool import MAX_REST_ROWS, Pool, rest_api
from models.bundle import BUNDLED
from tests.models.test_bundle import ROW

pool = Pool(BUNDLED)


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(rest_api(None, lambda: pool)) as client:
        yield client


def test_one_and_many(client: TestClient) -> None:
    one = client.post("/predict", json=ROW)
    many = client.post("/predict", json=[ROW, {**ROW, "SoH": 0.85}])
    assert one.status_code == many.status_code == 200
    assert many.json()[0] == one.json()
    assert many.json()[1] != one.json()
    assert set(one.json()) == {"rul", "rul_low", "rul_high", "failure_probability", "model_version"}


@pytest.mark.parametrize("name", list(ROW))
@pytest.mark.parametrize("value", [None, "x", 1e9, -1e9])
def test_a_wrong_field_is_named(client: TestClient, name: str, value: object) -> None:
    body = {k: v for k, v in ROW.items() if k != name} if value is None else {**ROW, name: value}
    for sent, where in ((body, ["body", name]), ([ROW, body], ["body", 1, name])):
        answer = client.post("/predict", json=sent)
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["loc"] == where


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"3", b'{"SoC": NaN}', b"null", b"[[]]", b"\xff", b'{"extra": 1}']
)
def test_a_body_that_is_no_request(client: TestClient, content: bytes) -> None:
    answer = client.post("/predict", content=content)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["msg"]


def test_too_many_rows(client: TestClient) -> None:
    assert client.post("/predict", json=[ROW] * (MAX_REST_ROWS + 1)).status_code == 422


def test_health_model_and_documentation(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/model").json()["version"] == pool.model()["version"]
    assert "/predict" in client.get("/openapi.json").json()["paths"]


def test_a_token_is_asked_for() -> None:
    with TestClient(rest_api("secret", lambda: pool)) as client:
        assert client.post("/predict", json=ROW).status_code == 401
        assert client.get("/model").status_code == 401
        assert client.get("/health").status_code == 200
        good = {"Authorization": "Bearer secret"}
        assert client.post("/predict", json=ROW, headers=good).status_code == 200
        assert client.post("/predict", json=ROW, headers={"Authorization": "Bearer no"}).status_code == 401


def test_the_pool_loads_no_damaged_bundle(tmp_path: Path) -> None:
    from models.bundle import BundleError

    with pytest.raises(BundleError):
        Pool(tmp_path)
