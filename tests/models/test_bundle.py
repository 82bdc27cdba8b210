"""The bundle: loaded only when its hashes fit; its predictions are ordered and in range."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from datasets.schema import MODEL_INPUTS
from models.bundle import BUNDLED, FILES, Bundle, BundleError
from models.features import FEATURES, input_matrix, padded
from tests.support import make_batch

ROW = {"SoC": 0.6, "SoH": 0.92, "Battery_Voltage": 355.0, "Battery_Current": 20.0, "Battery_Temperature": 24.0,
       "Charge_Cycles": 300.0, "Power_Consumption": 7.1}  # fmt: skip


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BUNDLED, tmp_path / "bundle"))


def test_predictions_are_ordered_finite_and_in_range() -> None:
    rng = np.random.default_rng(5)
    low = [0, 0.5, 250, -300, -30, 0, -100]
    high = [1, 1.0, 420, 400, 60, 3000, 200]
    answer = Bundle.load().predict(rng.uniform(low, high, size=(2000, 7)))
    assert np.isfinite(answer.rul).all()
    assert (answer.rul_low >= 0).all()
    assert (answer.rul_low <= answer.rul).all()
    assert (answer.rul <= answer.rul_high).all()
    assert ((answer.failure_probability >= 0) & (answer.failure_probability <= 1)).all()


def test_a_worn_battery_has_less_left_than_a_fresh_one() -> None:
    fresh, worn = ({**ROW, "SoH": 0.97}, {**ROW, "SoH": 0.803})
    answer = Bundle.load().predict(np.array([[row[name] for name in MODEL_INPUTS] for row in (fresh, worn)]))
    assert answer.rul[1] < 0.6 * answer.rul[0]
    assert answer.failure_probability[1] > answer.failure_probability[0]


def test_what_is_not_known_may_be_left_out_or_be_nan() -> None:
    matrix = input_matrix(make_batch(20, range(4)))
    bundle = Bundle.load()
    few, whole = bundle.predict(matrix), bundle.predict(padded(matrix))
    for name in ("rul", "rul_low", "rul_high", "failure_probability"):
        np.testing.assert_array_equal(getattr(few, name), getattr(whole, name))
    assert bundle.kinds(matrix).shape == (len(matrix), len(bundle.manifest.kinds))
    days = bundle.life("days", matrix)
    assert (days.low <= days.median).all()
    assert (days.median <= days.high).all()


def test_a_past_narrows_what_a_record_alone_leaves_open() -> None:
    """Months of a vehicle that fades faster than most: the model believes them."""
    row = padded(np.array([[ROW[name] for name in MODEL_INPUTS]]))
    told = np.repeat(row, 2, axis=0)
    for k, (slope, pace) in enumerate(((-0.002, 20.0), (-0.03, 60.0))):
        known = {"age_years": 5.0, "months": 24.0, "soh_3": 0.92, "soh_trend_24": slope, "soh_trend_12": slope,
                 "efc_a_year_12": pace, "efc_a_year_24": pace, "fade_a_year": -slope, "straight_years": 0.12 / -slope,
                 "trend_years": 0.12 / -slope}  # fmt: skip
        for name, value in known.items():
            told[k, FEATURES.index(name)] = value
    days = Bundle.load().life("days", told)
    assert days.median[1] < 0.7 * days.median[0]


def test_a_row_is_predicted_the_same_alone_and_in_a_batch() -> None:
    matrix = input_matrix(make_batch(50, range(4)))
    bundle = Bundle.load()
    together = bundle.predict(matrix).rul
    alone = [bundle.predict(matrix[i : i + 1]).rul[0] for i in range(len(matrix))]
    assert together.tolist() == alone


@pytest.mark.parametrize("name", FILES)
def test_an_altered_file_is_refused(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(bytes(content))
    with pytest.raises(BundleError, match=f"{name} is damaged or altered: the manifest expects SHA-256"):
        Bundle.load(copy)
    (copy / name).unlink()
    with pytest.raises(BundleError, match="got no such file"):
        Bundle.load(copy)


def test_a_damaged_manifest_is_refused(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    for change, says in (
        ({"features": ["SoC"]}, "wants other inputs than this version makes"),
        ({"quantiles": "x"}, "manifest.json is damaged"),
    ):
        (copy / "manifest.json").write_text(json.dumps(manifest | change))
        with pytest.raises(BundleError, match=says) as error:
            Bundle.load(copy)
        assert "\n" not in str(error.value)
    (copy / "manifest.json").write_text("{")
    with pytest.raises(BundleError, match="damaged"):
        Bundle.load(copy)
    with pytest.raises(BundleError, match="expected a model bundle"):
        Bundle.load(copy / "nowhere")


@pytest.mark.parametrize(
    ("name", "value"),
    [("coverage", "true"), ("horizon_days", '"3.5"'), ("end_of_life_soh", "NaN"), ("horizon_days", "[1]")],
)
def test_only_a_number_is_a_number(copy: Path, name: str, value: str) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    text = json.dumps(manifest | {name: "here"}).replace('"here"', value)
    (copy / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match=rf"manifest.json is damaged \({name}: "):
        Bundle.load(copy)


def test_the_card_says_what_the_model_is_and_how_it_scores() -> None:
    card = (BUNDLED / "card.md").read_text().lower()
    for word in ("mean residual life", "by vehicle", "covers", "a leak", "not claim"):
        assert word in card
