"""`twin validate reports`: what vehicles report beside what is true, as text and JSON."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from physics import physics_version
from physics.faults import SEVERITIES
from training.validation.reports import FIELD_SOC, render, reports
from twin.errors import BadInput
from twin.run_directory import filling, new_directory, stamp
from twin.show.facts import plain


def validate_reports(*, vehicles: int = 500, out: Path | None = None, say: Callable[[str], None] = print) -> Path:
    """Compute the tables, write them to a new folder and return it."""
    if vehicles < len(SEVERITIES):
        raise BadInput(f"--vehicles: expected {len(SEVERITIES)} or more, one for each kind of fault, got {vehicles}")
    folder = new_directory(out, f"validate-reports-{stamp()}")
    began = time.perf_counter()
    found = reports(vehicles, say=say)
    text = render(found)
    facts = {
        "versions": {"physics": physics_version(), "numpy": np.__version__, "python": platform.python_version()},
        "vehicles": vehicles,
        "seconds": round(time.perf_counter() - began, 1),
        "field_soc_points": dict(zip(("mean", "sd"), FIELD_SOC, strict=True)),
        "reports": [plain(one) for one in found],
    }
    with filling(folder) as temporary:
        (temporary / "reports.txt").write_text(text + "\n")
        (temporary / "reports.json").write_text(json.dumps(facts, indent=2, allow_nan=False) + "\n")
    say(f"\n{text}\n\nwritten to {folder}")
    return folder
