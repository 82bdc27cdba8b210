"""A run's main figures are among the metrics of the node of Ray."""

from __future__ import annotations

import json
import re
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from ray.util.metrics import Counter

from actors.fleet.metrics import main_figures
from actors.fleet.ray_figures import RayFigures
from tests.actors.test_metrics import STATUS
from tests.support import HANG_S, wait_until
from twin import Fleet

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]


def scraped(log: str) -> dict[str, float]:
    """What the agent of the node says of a run: by name, with the labels of ours that are not the run's."""
    [node] = ray.nodes()  # type: ignore[no-untyped-call]
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(url, timeout=HANG_S) as answer:
        text = answer.read().decode()
    found = {}
    for name, labels, value in re.findall(r"^(ray_ev_\w+)\{(.*)\} (\S+)$", text, flags=re.MULTILINE):
        of = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if of["log_id"] == log:
            ours = "/".join(of[label] for label in ("sink", "stream") if label in of)
            found[f"{name}/{ours}".rstrip("/")] = float(value)
    return found


@pytest.mark.timeout(300)
def test_a_run_is_scraped_from_its_node(tmp_path: Path) -> None:
    """Also where another run of the same settings, and so the same `run_id`, was in this process."""
    for name in ("one", "two"):
        with Fleet(vehicles=6, shards=1, predict=False, pace="max", out=tmp_path / name) as fleet:
            fleet.run("20s")
            run = json.loads((fleet.directory / "run.json").read_text())["log_id"]

            def says(name: str, run: str = run, fleet: Fleet = fleet) -> float | None:
                fleet.run("2s")
                return scraped(run).get(name)

            wait_until(lambda: says("ray_ev_vehicles") == 6, lambda: scraped(run))  # noqa: B023
            wait_until(lambda: (says("ray_ev_telemetry_records_total") or 0) >= 60, lambda: scraped(run))  # noqa: B023
            assert scraped(run)["ray_ev_telemetry_records_total"] <= fleet.run("2s").records
            assert {"ray_ev_real_time_factor", "ray_ev_predictor_backlog_records"} <= scraped(run).keys()


def test_a_status_is_told_once_a_second() -> None:
    now = [100.0]
    figures = RayFigures("run", "log-of-a-clock", lambda: now[0])
    looked: list[float] = []

    class Status:
        def __getattr__(self, name: str) -> object:
            looked.append(now[0])
            return getattr(STATUS, name)

    for now[0] in (100.0, 100.2, 100.9, 101.0):
        figures.tell(Status())  # type: ignore[arg-type]
    assert set(looked) == {100.0, 101.0}
    assert {family.name for family in main_figures(STATUS)} == {
        "ev_vehicles", "ev_real_time_factor", "ev_telemetry_records", "ev_predictions", "ev_predictor_backlog_records",
    }  # fmt: skip


def test_a_run_that_is_resumed_in_the_same_process_counts_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    added: list[float] = []
    monkeypatch.setattr(Counter, "inc", lambda self, value, tags: added.append(value))
    for records in (54, 60):
        RayFigures("run", "log-of-a-resumed", lambda: 0.0).tell(replace(STATUS, records=records, predictions=0))
    assert added == [54, 6]
