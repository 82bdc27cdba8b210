"""One replica in this process: rows asked for together are predicted together, and a swap mixes no two models."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from fastapi.testclient import TestClient

from actors.prediction.pool import Pool
from actors.prediction.rest import rest_api
from datasets.schema import MODEL_INPUTS
from models.bundle import BUNDLED, Bundle, Predictions
from tests.models.test_bundle import ROW

SEVEN = tuple(MODEL_INPUTS)
WINDOWED = ("capacity_trend_6m", "time_hot")


class Echo:
    """Stands for a bundle: RUL is a column that the test chooses, and what it was given is kept."""

    def __init__(self, version: str, features: tuple[str, ...], column: int) -> None:
        self.manifest = replace(Bundle.load(BUNDLED).manifest, version=version, features=features)
        self.column = column
        self.given: list[npt.NDArray[np.floating]] = []

    def predict(self, inputs: npt.NDArray[np.floating]) -> Predictions:
        self.given.append(np.array(inputs))
        column = np.asarray(inputs[:, self.column], np.float64)
        return Predictions(column, column, column, np.zeros(len(inputs)))


def pool_of(model: Any) -> Pool:
    pool = Pool(BUNDLED)
    pool.swap(model, {})
    return pool


def test_what_is_asked_in_one_turn_is_predicted_together() -> None:
    model = Echo("1", SEVEN, 0)
    pool = pool_of(model)

    async def ask() -> list[dict[str, Any]]:
        return await asyncio.gather(*(pool.predict_row(np.full(7, i)) for i in range(20)))

    answers = asyncio.run(ask())
    assert [answer["rul"] for answer in answers] == list(range(20))
    assert [len(given) for given in model.given] == [20]


def test_one_caller_who_has_gone_does_not_hurt_the_others() -> None:
    pool = pool_of(Echo("1", SEVEN, 0))

    async def ask() -> float:
        gone = asyncio.ensure_future(pool.predict_row(np.zeros(7)))
        stays = asyncio.ensure_future(pool.predict_row(np.full(7, 3.0)))
        await asyncio.sleep(0)
        gone.cancel()
        rul: float = (await stays)["rul"]
        return rul

    assert asyncio.run(ask()) == 3.0


def test_a_failure_reaches_every_caller() -> None:
    pool = pool_of(Echo("1", SEVEN, 0))

    async def ask() -> list[BaseException | dict[str, Any]]:
        return await asyncio.gather(*(pool.predict_row(np.full((2, 2), i)) for i in range(3)), return_exceptions=True)

    assert all(isinstance(answer, Exception) for answer in asyncio.run(ask()))


def test_a_swap_answers_with_the_old_model_what_was_asked_of_it() -> None:
    old, new = Echo("old", SEVEN, 0), Echo("new", (*MODEL_INPUTS, "b", "a"), 8)
    pool = pool_of(old)

    async def ask() -> tuple[dict[str, Any], dict[str, Any]]:
        before = asyncio.ensure_future(pool.predict_row(np.full(7, 1.0)))
        await asyncio.sleep(0)
        pool.swap(new, {})  # type: ignore[arg-type]
        after = asyncio.ensure_future(pool.predict_row(np.full(9, 2.0)))
        return await before, await after

    before, after = asyncio.run(ask())
    assert (before["model_version"], before["rul"]) == ("old", 1.0)
    assert (after["model_version"], after["rul"]) == ("new", 2.0)


def test_a_batch_of_the_seven_is_filled_up() -> None:
    model = Echo("1", (*MODEL_INPUTS, *WINDOWED), 0)
    answer = pool_of(model).predict_batch(np.ones((5, 7), np.float32))
    assert answer["rul"].tolist() == [1.0] * 5
    assert model.given[0].shape == (5, 9)
    assert model.given[0].dtype == np.float32
    assert np.isnan(model.given[0][:, 7:]).all()


def test_a_request_may_carry_the_windowed_features() -> None:
    model = Echo("1", (*MODEL_INPUTS, *WINDOWED), 8)
    with TestClient(rest_api(None, lambda: pool_of(model))) as client:
        one = client.post("/predict", json={**ROW, "time_hot": 12.5})
        assert one.json()["rul"] == 12.5
        row = model.given[-1][0]
        assert row[:7].tolist() == pytest.approx(list(ROW.values()))
        assert np.isnan(row[7])
        many = client.post("/predict", json=[{**ROW, "time_hot": 1.0}, {**ROW, "time_hot": 2, WINDOWED[0]: None}])
        assert [answer["rul"] for answer in many.json()] == [1.0, 2.0]
        described = client.get("/openapi.json").json()["components"]["schemas"]["PredictRequest"]
        assert set(described["properties"]) == {*MODEL_INPUTS, *WINDOWED}
        assert set(described["required"]) == set(MODEL_INPUTS)


@pytest.mark.parametrize(
    ("extra", "where", "says"),
    [
        ('"tyre": 1', "tyre", "expected a feature of the model (capacity_trend_6m, time_hot)"),
        ('"time_hot": "1"', "time_hot", "valid number"),
        ('"time_hot": true', "time_hot", "valid number"),
        ('"time_hot": NaN', "time_hot", ""),
        ('"time_hot": Infinity', "time_hot", ""),
        ('"time_hot": 1e300', "time_hot", "less than or equal"),
    ],
)
def test_what_is_no_feature_is_named(extra: str, where: str, says: str) -> None:
    model = Echo("1", (*MODEL_INPUTS, *WINDOWED), 8)
    row = ", ".join(f'"{name}": {value}' for name, value in ROW.items())
    with TestClient(rest_api(None, lambda: pool_of(model))) as client:
        for body, place in ((f"{{{row}, {extra}}}", ["body", where]), (f"[{{{row}, {extra}}}]", ["body", 0, where])):
            answer = client.post("/predict", content=body)
            assert answer.status_code == 422
            [detail] = answer.json()["detail"]
            assert detail["loc"] == place
            assert says in detail["msg"]
