"""`twin validate reports`: its tables hold what the profiles and the field say, and it writes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from physics import MODES
from physics.faults import SEVERITIES
from physics.sensors import PROFILES
from training.validation import reports
from training.validation.reports import Report, report_of
from twin.errors import BadInput
from twin.show import reports_study

PARKED, DRIVING = MODES.index("parked"), MODES.index("driving")


@pytest.fixture(scope="module")
def one() -> Report:
    return report_of("chen2020", PROFILES["typical"], 48)


def test_errors_are_near_the_field(one: Report) -> None:
    assert one.soc.mean == pytest.approx(-3.2, abs=1.5)
    assert one.soc.sd == pytest.approx(2.8, abs=1.3)
    assert one.soh.sd > 1.0
    assert one.soc.p5 < one.soc.p50 < one.soc.p95


def test_what_a_reader_sees_is_what_the_profile_says(one: Report) -> None:
    for seen in one.seen:
        assert seen.resolution == pytest.approx(seen.resolution_expected), seen.column
    current = next(seen for seen in one.seen if seen.column == "battery_current")
    assert current.noise == pytest.approx(current.noise_expected, rel=0.15)


def test_sound_vehicles_have_no_codes_and_some_faults_are_found(one: Report) -> None:
    rows = {row.kind: row for row in one.noticed}
    assert set(rows) == {"none", *SEVERITIES}
    assert rows["none"].any_code < 0.05
    assert 0.0 < sum(row.any_code for kind, row in rows.items() if kind != "none") < len(SEVERITIES)


def test_parked_is_counted_from_the_last_trip() -> None:
    mode = np.array([PARKED, PARKED, DRIVING, PARKED, PARKED, PARKED])[:, None]
    assert reports._long_parked(mode, 2)[:, 0].tolist() == [False, True, False, False, True, True]


def test_command_writes_tables(tmp_path: Path, one: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports_study, "reports", lambda vehicles, say: [one])
    said: list[str] = []
    folder = reports_study.validate_reports(vehicles=48, out=tmp_path / "x", say=said.append)
    assert {file.name for file in folder.iterdir()} == {"reports.txt", "reports.json"}
    [told] = json.loads((folder / "reports.json").read_text())["reports"]
    assert told["soc"]["mean"] == pytest.approx(one.soc.mean, abs=1e-6)
    assert "98 vehicles" in said[-1]


def test_too_few_vehicles_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--vehicles: expected 18 or more"):
        reports_study.validate_reports(vehicles=3, out=tmp_path / "x")
    assert not any(tmp_path.iterdir())
