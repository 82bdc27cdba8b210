"""`twin validate faults`: what of each kind of fault is found in what vehicles report, how soon, at which cost."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training.detection import detection
from training.fit import boost_here
from training.histories import HistoryError, open_histories
from twin.errors import BadInput
from twin.run_directory import filling, new_directory, stamp


def validate_faults(*, data: Path, seed: int, out: Path | None, say: Callable[[str], None]) -> Path:
    """Write tables to a new folder, which is returned."""
    folder = new_directory(out, f"validate-faults-{stamp()}")
    with filling(folder) as temporary:
        try:
            facts = detection(open_histories(data), boost_here(), seed=seed, say=say)
        except HistoryError as error:
            raise BadInput(str(error)) from None
        text = as_text(facts)
        (temporary / "faults.txt").write_text(text + "\n")
        (temporary / "faults.json").write_text(json.dumps(facts, indent=2) + "\n")
    say(f"\n{text}\n\nwritten to {folder}")
    return folder


def as_text(facts: dict[str, Any]) -> str:
    """The figures as a table."""
    trees, codes = facts["trees"], facts["codes"]
    lines = [
        f"{facts['vehicles']} vehicles by month, each judged by trees that have not seen it, beside the trouble codes "
        "of the BMS.",
        "Found: an alarm within a year of the onset, of vehicles that were watched for so long.",
        "",
        f"{'':<22} {'':>8} {'trees':>8} {'':>7} {'':>12} {'codes':>10} {'':>7}",
        f"{'kind of fault':<22} {'vehicles':>8} {'AUROC':>8} {'found':>7} {'after [d]':>12} {'AUROC':>10} {'found':>7}",
    ]
    for name, found in sorted(trees["kinds"].items(), key=lambda item: -item[1]["auroc"]):
        other = codes["kinds"][name]
        lines.append(
            f"{name:<22} {found['vehicles']:8d} {found['auroc']:8.2f} {_share(found['within_a_year']):>7} "
            f"{_days(found['delay_days']):>12} {other['auroc']:10.2f} {_share(other['within_a_year']):>7}"
        )
    lines.append("")
    for name, told in (("trees", trees), ("codes", codes)):
        field = told["at_field_rates"]
        lines.append(
            f"{name}: {told['false_alarms_a_year']:.3f} false alarms a vehicle-year. At the field's rates "
            f"{field['faults_a_year']:.4f} faults a vehicle-year, {field['found_a_year']:.4f} found; "
            f"{_share(field['right_of_alarms'])} of alarms right; costs of {field['inspections_a_year']:.3f} "
            f"inspections a vehicle-year, {field['inspections_without']:.3f} without any alarm (a missed fault costs "
            f"{facts['missed_costs']:g})"
        )
    return "\n".join(lines)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _days(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"
