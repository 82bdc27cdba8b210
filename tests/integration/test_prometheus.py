"""Rules and alerts, by promtool and by a real Prometheus that scrapes a real run."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from datasets.alarms import HOT_C, RISKY
from datasets.observed import Observation
from scripts.documents import metrics_page
from tests.services import Alertmanager, Mosquitto, Prometheus
from tests.services.base import free_ports
from tests.services.prometheus import FOLDER
from tests.support import HANG_S, wait_until
from training.drift import COVERAGE_ALARM
from twin import Fleet

RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"] for rule in group["rules"]
]


@pytest.mark.parametrize(
    "check", [["check", "config", "prometheus.yml"], ["test", "rules", "rules_test.yml"]], ids=lambda check: check[0]
)
def test_promtool_finds_nothing_wrong(check: list[str], prometheus: Prometheus) -> None:
    done = subprocess.run(["promtool", *check], cwd=FOLDER, capture_output=True, text=True, timeout=HANG_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


def test_amtool_finds_nothing_wrong_and_critical_alerts_go_to_who_is_on_call(alertmanager: Alertmanager) -> None:
    def amtool(*words: str) -> str:
        done = subprocess.run(["amtool", *words], cwd=FOLDER, capture_output=True, text=True, timeout=HANG_S)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "SUCCESS" in amtool("check-config", "alertmanager.yml")
    for severity, receiver in (("critical", "on-call"), ("warning", "operators")):
        found = amtool("config", "routes", "test", "--config.file=alertmanager.yml", f"severity={severity}")
        assert found.strip() == receiver


def test_every_rule_has_a_case_and_reads_metrics_that_there_are() -> None:
    cases = yaml.safe_load((FOLDER / "rules_test.yml").read_text())["tests"]
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    asked = " ".join(case["expr"] for test in cases for case in test.get("promql_expr_test", []))
    assert {name for name in recorded if name not in asked} == set()
    fired = {case["alertname"] for test in cases for case in test.get("alert_rule_test", []) if case["exp_alerts"]}
    assert fired == {rule["alert"] for rule in RULES if "alert" in rule}
    there = set(re.findall(r"`(ev_\w+)`", metrics_page()))
    for rule in RULES:
        for name in re.findall(r"(?<![:\w])ev_\w+", rule["expr"]):
            assert name.removesuffix("_bucket") in there, name
        if "alert" in rule:
            assert rule["labels"]["severity"] in ("warning", "critical")
            assert set(rule["annotations"]) == {"summary", "action"}


def test_the_rules_have_the_limits_of_the_code() -> None:
    alerts = {rule["alert"]: rule for rule in RULES if "alert" in rule}
    assert alerts["CoverageLow"]["expr"].endswith(f"< {COVERAGE_ALARM:g}")
    assert f"above {HOT_C:g} degrees" in alerts["BatteriesHot"]["annotations"]["summary"]
    assert RISKY == 0.5, "more likely than not"


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.timeout(600)
def test_a_run_is_scraped_and_a_broker_that_goes_is_told_until_it_is_back(
    prometheus: Prometheus, alertmanager: Alertmanager, mosquitto: Mosquitto, free_port: int, tmp_path: Path
) -> None:
    """What `twin consume` tells is asked in test_dashboards.py."""
    broker = f"mqtt://127.0.0.1:{mosquitto.port}"

    def until(what: str, holds: Callable[[], bool]) -> None:
        wait_until(holds, lambda: f"{what} did not come; firing: {prometheus.firing()}")

    [rest_port] = free_ports(1)
    with Fleet(
        vehicles=8, shards=1, mqtt=broker, metrics_port=free_port, rest_port=rest_port, out=tmp_path / "run"
    ) as fleet:

        def reads(expression: str) -> bool:
            fleet.run("2s")
            return bool(prometheus.query(expression))

        def waits() -> bool:
            fleet.run("2s")
            return ("SinkWaits", "mqtt") in prometheus.firing()

        def told(state: str) -> bool:
            fleet.run("2s")
            return ("warning", "SinkWaits", state) in alertmanager.told

        until("a scrape", lambda: reads("up == 1 and on (instance) ev_vehicles == 8"))
        Observation(time.time(), {"SoH": (0.1, 0.25)}, 0.9).save(fleet.directory)
        for rule in RULES:
            asked = [rule["record"]] if "record" in rule else re.findall(r"ev_\w+(?:\{[^}]*\})?", rule["expr"])
            for expression in asked:
                if not expression.startswith("ev_consume"):
                    until(expression, partial(reads, expression))
        until("delivery", lambda: reads("ev_sink_delivered_records_total{sink='mqtt',stream='telemetry'} > 20"))
        assert not {name for name, _ in prometheus.firing()} & {"TwinDown", "SinkWaits", "RecordsLost"}
        assert not {name for name, _ in prometheus.firing()} & {"InputsDrift", "CoverageLow"}
        Observation(time.time(), {"SoH": (0.4, 0.25)}, 0.8).save(fleet.directory)
        until("both alerts of the model", lambda: reads("count(ALERTS{alertname=~'InputsDrift|CoverageLow'}) == 2"))
        mosquitto.kill()
        until("an alert", waits)
        until("a message of it", lambda: told("firing"))
        mosquitto.restart()
        until("its end", lambda: not waits())
        until("a message of that", lambda: told("resolved"))
        healthy = {
            rule["name"]: rule["health"] for group in prometheus.asked("rules")["groups"] for rule in group["rules"]
        }
        assert set(healthy.values()) == {"ok"}, healthy
        assert len(healthy) == len(RULES)
    until("the end of the run", lambda: ("TwinDown", "") in prometheus.firing())
