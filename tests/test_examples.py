"""The examples, run as a person runs them. Each opens with its scenario."""

from __future__ import annotations

import ast
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from tests.services import Kafka
from twin.commands.replay import replay_run
from twin.folders import ROOT
from twin.settings import Given, Servers

EXAMPLES = ROOT / "examples"
OLD_RUN = Path(__file__).parent / "data" / "run-of-a268f8c"


def lines_of(name: str, *arguments: str) -> list[str]:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_example_is_listed_and_opens_with_its_scenario() -> None:
    listed = (EXAMPLES / "README.md").read_text()
    for path in EXAMPLES.iterdir():
        if path.suffix == ".py":
            assert (ast.get_docstring(ast.parse(path.read_text())) or "").startswith("Scenario: ")
        elif path.suffix == ".yaml":
            assert path.read_text().startswith("# Scenario: ")
        if path.is_file() and path.name != "README.md":
            assert f"]({path.name})" in listed


def test_one_cell() -> None:
    warm, cold = lines_of("one_cell.py")[1:]
    assert warm.startswith("  25 degC")
    assert float(cold.split()[2]) < float(warm.split()[2]), "a cold cell's voltage drops further"


def test_ten_years() -> None:
    lines = lines_of("ten_years.py", "2")
    assert [line[:7] for line in lines] == ["year  1", "year  2"]
    first, second = (float(line.split()[4]) for line in lines)
    assert second < first < 1.0


def test_hottest_vehicles() -> None:
    lines = lines_of("hottest_vehicles.py", str(OLD_RUN))
    assert len(lines) == 4
    assert all(line.startswith("EV-") and "degC while" in line for line in lines)


def test_the_file_of_settings_is_one() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "twin", "run", "--config", "examples/fleet.yaml", "--print-config"],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown = yaml.safe_load(done.stdout)
    assert (shown["vehicles"], shown["mqtt"], shown["predict"], shown["payload"]) == (5000, "", False, "avro")


@pytest.mark.cluster
def test_break_a_vehicle(tmp_path: Path) -> None:
    lines = lines_of("break_a_vehicle.py", str(tmp_path))
    before, after = (float(line.split()[1]) for line in lines[:2])
    assert after - before > 1.0
    assert lines[2].startswith("EV-000007")


@pytest.mark.services
def test_read_the_stream(kafka: Kafka, tmp_path: Path) -> None:
    import shutil

    run = Path(shutil.copytree(OLD_RUN, tmp_path / "run"))
    servers = Given({"kafka": kafka.bootstrap_servers}, environ={}).group(Servers)
    replay_run(
        run, "kafka", servers, float("inf"), begin=None, end=None, out=None, stop=threading.Event(), say=lambda _: None
    )
    lines = lines_of("read_the_stream.py", kafka.bootstrap_servers, "5")
    assert len(lines) == 5
    assert all("SoC" in line for line in lines), "also what other tests have left on the topic is telemetry"
