"""A few lives for all tests of training. They end early, so that some have ended."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Final

import pytest

from physics import physics_version
from training.histories import Plan, make_part

PLAN: Final = Plan(vehicles=60, years=6.0, seed=3, end_soh=0.94, part_vehicles=30)
END_SOH: Final = PLAN.end_soh


@pytest.fixture(scope="session")
def histories_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two parts, made in this process: what tasks of Ray do."""
    folder = tmp_path_factory.mktemp("histories")
    facts = {"format": 1, "physics": physics_version(), "plan": asdict(PLAN)}
    (folder / "histories.json").write_text(json.dumps(facts))
    for part in range(PLAN.parts):
        make_part({"part": part}, str(folder), asdict(PLAN))
    return folder
