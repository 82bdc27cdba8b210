"""REST on the predictor: what fits is answered, what does not is a 422 that names the field."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from actors.prediction.plan import Known
from actors.prediction.pool import Feeders, Pool
from actors.prediction.rest import MAX_REST_BYTES, MAX_REST_ROWS, rest_api
from models.bundle import BUNDLED
from models.features import padded
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


class Told(Feeders):
    """One vehicle is known."""

    async def known(self, vehicle: int) -> Known | None:
        inputs = padded(np.array([list(ROW.values())]))[0]
        return Known(59, 1_767_225_720_500_000, inputs) if vehicle == 42 else None


def test_a_vehicle_of_the_run_is_predicted_from_what_is_known_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_feeders", Told(""))
    with TestClient(rest_api(None, lambda: pool)) as client:
        told = client.get("/vehicles/EV-000042")
        assert told.status_code == 200
        found = told.json()
        assert (found.pop("vehicle_id"), found.pop("seq")) == ("EV-000042", 59)
        assert found.pop("ts") == "2026-01-01T00:02:00.500000Z"
        assert found == client.post("/predict", json=ROW).json()
        gone = client.get("/vehicles/EV-000043")
        assert gone.status_code == 404
        assert gone.json()["detail"] == "expected a vehicle that has reported to this run, got EV-000043"
        for wrong in ("42", "EV-42", "EV-00004x", "EV-0000000000042", "ev-000042"):
            answer = client.get(f"/vehicles/{wrong}")
            assert answer.status_code == 422, wrong
            assert answer.json()["detail"][0]["loc"] == ["path", "vehicle_id"]
    with TestClient(rest_api("secret", lambda: pool)) as client:
        assert client.get("/vehicles/EV-000042").status_code == 401


def test_an_address_that_asks_too_often_is_told_when_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are not, and whoever guesses tokens is slowed down, too."""
    now = [1_800_000_000.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    app = rest_api("secret", lambda: pool, 3)
    with TestClient(app, client=("192.0.2.1", 1)) as one, TestClient(app, client=("192.0.2.2", 1)) as other:
        right, wrong = ({"Authorization": f"Bearer {token}"} for token in ("secret", "guess"))
        assert [one.get("/model", headers=wrong).status_code for _ in range(4)] == [401, 401, 401, 429]
        late = one.post("/predict", json=ROW, headers=right)
        assert (late.status_code, late.headers["Retry-After"]) == (429, "1")
        assert late.json()["detail"] == "expected at most 3 requests a second from one address"
        assert other.post("/predict", json=ROW, headers=right).status_code == 200
        assert one.get("/health").status_code == 200
        now[0] += 1.01
        assert one.post("/predict", json=ROW, headers=right).status_code == 200


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


@pytest.mark.parametrize("name", list(ROW))
@pytest.mark.parametrize("value", [True, False, "0.5", [0.5]])
def test_only_a_number_is_a_number(client: TestClient, name: str, value: object) -> None:
    answer = client.post("/predict", json={**ROW, name: value})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", name]


def test_a_whole_number_is_a_number(client: TestClient) -> None:
    assert client.post("/predict", json={**ROW, "SoC": 1, "Charge_Cycles": 300}).status_code == 200


class Endless:
    """A body of which a server may take as much as it wants; `length` is what the header says, None for chunks."""

    def __init__(self, length: int | None) -> None:
        self.taken = 0
        self.status = 0
        fields = [] if length is None else [(b"content-length", str(length).encode())]
        self.scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
            "path": "/predict", "raw_path": b"/predict", "query_string": b"", "headers": fields,
        }  # fmt: skip

    async def receive(self) -> dict[str, object]:
        self.taken += 1 << 16
        assert self.taken < 4 * MAX_REST_BYTES, "it would read for ever"
        return {"type": "http.request", "body": b"[" * (1 << 16), "more_body": True}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        self.status = message.get("status", self.status)


@pytest.mark.parametrize(
    ("length", "most"),
    [(MAX_REST_BYTES + 1, 0), (None, MAX_REST_BYTES + (1 << 16)), (10, MAX_REST_BYTES + (1 << 16))],
)
def test_a_body_beyond_the_limit_is_not_read(length: int | None, most: int) -> None:
    """Neither where the header says so, nor where it says nothing or lies."""
    body = Endless(length)
    asyncio.run(rest_api(None, lambda: pool)(body.scope, body.receive, body.send))
    assert body.status == 413
    assert body.taken <= most


def test_the_largest_request_fits(client: TestClient) -> None:
    """As a person writes it, indented, with every digit a double has."""
    row = dict.fromkeys(ROW, 0.12345678901234567)
    content = json.dumps([row] * MAX_REST_ROWS, indent=4)
    assert len(content) <= MAX_REST_BYTES
    assert client.post("/predict", content=content).status_code == 200


@pytest.mark.parametrize("header", ["Bearer schl\u00fcssel".encode(), b"Bearer schl\xfcssel", b"Bearer \xff", b"\xff"])
def test_a_token_beyond_ascii_is_a_wrong_one(header: bytes) -> None:
    with TestClient(rest_api("secret", lambda: pool), raise_server_exceptions=False) as client:
        answer = client.post("/predict", json=ROW, headers=[(b"authorization", header)])
        assert answer.status_code == 401


def test_too_many_rows(client: TestClient) -> None:
    assert client.post("/predict", json=[ROW] * (MAX_REST_ROWS + 1)).status_code == 422


def test_health_model_and_documentation(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "ok", "model_version": pool.version, "notice": ""}
    assert client.get("/ready").json() == {"ready": True}
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


def test_a_token_that_this_node_does_not_have_opens_nothing() -> None:
    """A replica on a node whose environment lacks it."""
    with TestClient(rest_api("", lambda: pool)) as client:
        for header in ({}, {"Authorization": ""}, {"Authorization": "Bearer "}, {"Authorization": "Bearer x"}):
            assert client.post("/predict", json=ROW, headers=header).status_code == 401


def test_the_pool_loads_no_damaged_bundle(tmp_path: Path) -> None:
    from models.bundle import BundleError

    with pytest.raises(BundleError):
        Pool(tmp_path)
