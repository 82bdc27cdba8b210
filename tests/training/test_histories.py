"""Histories on disk: the same however they are made, resumable, and refused when they are not what they should be."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.histories import PLAN
from training.histories import TABLES, HistoryError, generate, make_part, open_histories
from training.labels import KINDS, label
from training.samples import Samples, assemble


def test_reported_and_true_are_apart_and_join(histories_folder: Path) -> None:
    histories = open_histories(histories_folder)
    tables = {name: histories.read(name) for name in TABLES}
    lives, states = tables["truth/lives"], tables["truth/states"]
    assert sorted(lives["vehicle"]) == list(range(PLAN.vehicles))
    assert (lives["cohort"] == lives["cell"] + "-" + lives["use"]).all()
    for name in ("reported/months", "reported/records"):
        assert not {"lli", "lam_ne", "fault", "soh_usable"} & set(tables[name])
    first = states.groupby("vehicle").first()
    assert (first["day"] == 0.0).all()
    assert first["soh"].to_numpy() == pytest.approx(1.0)
    end = lives.set_index("vehicle")["day"]
    for name, day in (("reported/records", "known_day"), ("truth/states", "day")):
        assert (tables[name][day] <= end.loc[tables[name]["vehicle"]].to_numpy() + 1.0).all()
    reported = tables["reported/records"].merge(states, on="vehicle", suffixes=("", "_true"))
    near = reported[np.abs(reported["day"] - reported["day_true"]) < 1.0]
    assert np.abs(near["charge_cycles"] / near["efc"] - 1.0).median() < 0.01


def test_a_part_made_again_is_the_same(histories_folder: Path, tmp_path: Path) -> None:
    make_part({"part": 1}, str(tmp_path), asdict(PLAN))
    for name in TABLES:
        for path in (tmp_path / name).rglob("*.parquet"):
            assert path.read_bytes() == (histories_folder / path.relative_to(tmp_path)).read_bytes(), path


def test_labels_keep_what_is_censored(histories_folder: Path) -> None:
    labels = label(open_histories(histories_folder), end_soh=0.94)
    assert 0 < labels["ended"].sum() < PLAN.vehicles
    ended = labels[labels["ended"]]
    assert (ended["end_day"] <= ended["seen_day"]).all()
    assert (labels.loc[~labels["ended"], "end_day"] == labels.loc[~labels["ended"], "seen_day"]).all()
    known = labels[[f"{kind}_day" for kind in KINDS]].min(axis=1)
    pd.testing.assert_series_equal(labels["first_day"], known, check_names=False)
    assert (labels["first_kind"] != "").equals(known.notna())
    with pytest.raises(HistoryError, match=r"expected an end of life of at least 0\.94"):
        label(open_histories(histories_folder), end_soh=0.9)


def test_rows_end_with_the_life_and_count_down_to_it(histories_folder: Path) -> None:
    samples = assemble(open_histories(histories_folder), label(open_histories(histories_folder), 0.94))
    assert (samples.rul_days > 0.0).all()
    for vehicle in np.unique(samples.vehicle):
        of = samples.of(np.array([vehicle]))
        assert np.ptp(of.day + of.rul_days) == pytest.approx(0.0, abs=1e-6)
        assert np.ptp(of.efc + of.rul_efc) < 0.05 * (of.efc + of.rul_efc).max()
        assert of.weight.sum() == pytest.approx(len(of.day))
    known = samples.at(samples.fails >= 0)
    assert set(known.fails) == {0, 1}
    shortened = assemble(open_histories(histories_folder), label(open_histories(histories_folder), 0.94), shortened=1)
    assert np.isnan(shortened.inputs).mean() > np.isnan(samples.inputs).mean()
    assert isinstance(samples, Samples)


@pytest.mark.cluster
def test_killed_it_goes_on_where_it_was(histories_folder: Path, tmp_path: Path, ray_cluster: None) -> None:
    plan = replace(PLAN, vehicles=4, part_vehicles=2, years=0.5)
    said: list[str] = []
    generate(tmp_path / "whole", plan, say=said.append)
    assert [line[:6] for line in said] == ["1 of 2", "2 of 2"]
    cut = tmp_path / "whole" / "parts" / "0001.json"
    before = {path: path.read_bytes() for path in (tmp_path / "whole").rglob("*.parquet")}
    cut.unlink()
    with pytest.raises(HistoryError, match="1 of 2 parts are missing; go on with the same twin generate"):
        open_histories(tmp_path / "whole")
    generate(tmp_path / "whole", plan, say=said.append)
    assert said[2:3] == ["1 of 2 parts are there already"]
    assert {path: path.read_bytes() for path in before} == before
    assert "2 in" not in (tmp_path / "whole" / "card.md").read_text()
    with pytest.raises(HistoryError, match="was begun with seed=3: expected the same options, or a new folder"):
        generate(tmp_path / "whole", replace(plan, seed=4), say=said.append)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(HistoryError, match="expected a new or empty folder"):
        generate(tmp_path / "other", plan, say=said.append)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"vehicles": 0}, "expected vehicles from 1"),
        ({"years": 0.1}, "expected years from 0.5 to 60, or eol, got 0.1"),
        ({"sensors": "good"}, "expected sensors of ideal"),
        ({"end_soh": 0.2}, "expected end_soh from 0.5"),
    ],
)
def test_a_bad_plan_is_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(HistoryError, match=says):
        replace(PLAN, **change)  # type: ignore[arg-type]


def test_a_damaged_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match=r"holds no histories\.json"):
        open_histories(tmp_path)
    (tmp_path / "histories.json").write_text("{")
    with pytest.raises(HistoryError, match="is damaged"):
        open_histories(tmp_path)
    (tmp_path / "histories.json").write_text(json.dumps({"format": 9, "physics": "x", "plan": asdict(PLAN)}))
    with pytest.raises(HistoryError, match="expected histories of format 1, got 9"):
        open_histories(tmp_path)
