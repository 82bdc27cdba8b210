"""The command as a person uses it: its own process, its exit code, its one line of complaint."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from datasets.log import read_all
from tests.support import family

ROOT = Path(__file__).parents[2]


def environment(**more: str) -> dict[str, str]:
    service_names = ("KAFKA_", "MQTT_", "PG_", "TWIN_")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(service_names)}
    return clean | {"COLUMNS": "200"} | more


def twin(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "twin", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment(**more), timeout=240)


def assert_one_line(result: subprocess.CompletedProcess[str], code: int, *says: str) -> None:
    assert result.returncode == code, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("twin: ")
    for words in says:
        assert words in lines[0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--vehicles", "0"], ["--vehicles", "got '0'"]),
        (["--vehicles", "-5"], ["--vehicles", "got '-5'"]),
        (["--cell", "unobtainium"], ["--cell", "unobtainium", "chen2020"]),
        (["--kafka", "localhost"], ["--kafka", "host:port"]),
        (["--mqtt", "tcp://x:1"], ["--mqtt", "mqtt://"]),
        (["--timescale", "postgresql://twin@127.0.0.1"], ["--timescale", "database"]),
        (["--timescale", "postgresql://u:hush@h:x/d"], ["--timescale", "***"]),
        (["--bundle", "/nowhere"], ["--bundle", "manifest.json"]),
        (["--telemetry-every", "1.5s"], ["telemetry_every", "whole number of steps"]),
        (["--pace", "soon"], ["--pace", "max"]),
        (["--no-such-flag"], ["--no-such-flag"]),
        (["--vehicles"], ["--vehicles"]),
    ],
)
def test_bad_input_is_one_line_and_makes_nothing(arguments: list[str], says: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = twin("run", "--out", str(out), *arguments)
    assert_one_line(result, 2, *says)
    assert "hush" not in result.stderr
    assert not out.exists()


def test_directories_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "run.json").write_text("{}")
    assert_one_line(twin("run", "--out", str(tmp_path / "full")), 2, "--out", "already holds something")
    assert (tmp_path / "full" / "run.json").read_text() == "{}"
    (tmp_path / "file").write_text("x")
    assert_one_line(twin("run", "--out", str(tmp_path / "file")), 2, "--out", "already holds something")
    assert_one_line(twin("run", "--out", "/proc/here/run", "--no-predict"), 2, "--out", "cannot write")
    assert_one_line(twin("report", str(tmp_path / "nothing")), 2, "expected a run directory", "run.json")


def test_an_altered_model_stops_the_run_before_it_begins(tmp_path: Path) -> None:
    import shutil

    bundle = Path(shutil.copytree(ROOT / "models" / "bundled", tmp_path / "bundle"))
    (bundle / "rul.ubj").write_bytes(b"x")
    result = twin("run", "--bundle", str(bundle), "--out", str(tmp_path / "run"))
    assert_one_line(result, 2, "--bundle", "rul.ubj is damaged or altered")
    assert not (tmp_path / "run").exists()


def test_print_config_merges_the_layers_and_masks_secrets(tmp_path: Path) -> None:
    config = tmp_path / "fleet.yaml"
    config.write_text("vehicles: 7\nduration: 2h\n")
    result = twin(
        "run", "--config", str(config), "--duration", "3h", "--mqtt", "mqtt://me:hush@broker:1", "--print-config",
        PG_HOST="db", PG_PASSWORD="whisper", TWIN_SEED="9", TWIN_API_TOKEN="murmur",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    shown = yaml.safe_load(result.stdout)
    assert (shown["vehicles"], shown["duration"], shown["seed"]) == (7, 10800.0, 9)
    assert shown["timescale"] == "postgresql://twin:***@db:5432/twin_data"
    assert not re.search("hush|whisper|murmur", result.stdout + result.stderr)


def test_doctor_says_what_is_wrong_in_one_line_each(free_port: int) -> None:
    result = twin("doctor", "--kafka", f"127.0.0.1:{free_port}", "--metrics-port", "0")
    lines = result.stdout.strip().splitlines()
    assert result.returncode == 1
    assert [line.split()[1] for line in lines] == ["folders", "physics", "model", "rest", "kafka", "mqtt", "timescale"]
    assert [line.split()[1] for line in lines if line.startswith("WRONG")] == ["kafka"]
    assert "does not answer" in result.stdout
    assert not result.stderr


SERVERS = ("--kafka", "127.0.0.1:9", "--timescale", "postgresql://twin:hush@127.0.0.1:9/twin")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], ["Kafka servers", "KAFKA_BOOTSTRAP_SERVERS"]),
        (["--kafka", "127.0.0.1:9"], ["a database", "PG_HOST"]),
        (["--kafka", "localhost"], ["--kafka", "host:port"]),
        ([*SERVERS, "--lateness", "soon"], ["--lateness", "duration", "'soon'"]),
        ([*SERVERS, "--max-open", "0"], ["--max-open", "got '0'"]),
        ([*SERVERS, "--topic", "a/b"], ["--topic", "a/b"]),
        ([*SERVERS, "--metrics-port", "70000"], ["--metrics-port", "70000"]),
    ],
)
def test_consume_complains_in_one_line(arguments: list[str], says: list[str]) -> None:
    assert_one_line(twin("consume", *arguments), 2, *says)


@pytest.mark.cluster
def test_a_whole_run_leaves_data_report_and_counts(tmp_path: Path, free_port: int) -> None:
    out = tmp_path / "run"
    result = twin(
        "run", "--vehicles", "30", "--duration", "2min", "--shards", "2", "--seed", "4", "--out", str(out),
        "--rest-port", str(free_port), "--metrics-port", "0",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert "telemetry    1,800 records" in result.stdout
    assert "predictions  720" in result.stdout
    assert f"report       {out}/report.html" in result.stdout
    facts = json.loads((out / "run.json").read_text())
    assert facts["state"] == "finished"
    assert (facts["counts"]["telemetry"], facts["counts"]["predictions"]) == (1800, 720)
    assert pq.read_table(out / "telemetry").num_rows == 1800
    assert pq.read_table(out / "predictions").num_rows == 720
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 5
    assert not re.search(r"(src|href)=[\"']https?:", page)
    for words in ("1,800", "720", "State of health", "Remaining useful life", "Throughput", facts["run_id"]):
        assert words in page
    assert "Delivery" not in page, "no sink was on"


def niceness(ancestor: int, command: bytes) -> list[int]:
    """Of each process of this name that descends from `ancestor`."""
    parents, found = {}, {}
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            pid = int(entry.name)
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            parents[pid] = int(fields[1])
            if (entry / "cmdline").read_bytes().startswith(command):
                found[pid] = int(fields[16])
    descendants = family(parents, ancestor)
    return [nice for pid, nice in found.items() if pid in descendants]


@pytest.mark.cluster
def test_ctrl_c_seals_the_log_and_exits_130(tmp_path: Path, free_port: int) -> None:
    out = tmp_path / "run"
    command = [
        sys.executable, "-m", "twin", "run", "--vehicles", "20", "--duration", "1h", "--pace", "10", "--shards", "2",
        "--no-predict", "--out", str(out), "--metrics-port", str(free_port),
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not any(path.stat().st_size for path in out.glob("telemetry/*/*")):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with urllib.request.urlopen(f"http://127.0.0.1:{free_port}/metrics", timeout=10) as answer:
        metrics = answer.read().decode()
    assert niceness(process.pid, b"ray::ShardActor") == [os.nice(0)] * 2, "live records come in time on a busy machine"
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=120)
    assert process.returncode == 130, complaint
    assert "Traceback" not in complaint
    assert not list(out.glob("**/*.open"))
    facts = json.loads((out / "run.json").read_text())
    assert facts["state"] == "interrupted"
    tables = [read_all(folder) for folder in (out / "telemetry").iterdir()]
    rows = sum(table.num_rows for table in tables if table is not None)
    assert rows == facts["counts"]["telemetry"] > 0
    assert "ev_vehicles 20.0" in metrics
    for name in ("ev_telemetry_records_total", "ev_real_time_factor", "ev_shard_restarts_total"):
        assert name in metrics
