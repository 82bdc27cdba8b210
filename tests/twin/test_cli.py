"""The command as a person uses it: its own process, its exit code, its one line of complaint."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from datasets.log import read_all
from tests.command import Answer, Twin, environment
from tests.services.secured import Authority
from tests.support import HANG_S, family, wait_until
from twin.commands.doctor import examine
from twin.settings import Given

ROOT = Path(__file__).parents[2]


def process(*arguments: str, **more: str) -> Answer:
    command = [sys.executable, "-m", "twin", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment(**more), timeout=HANG_S)
    return Answer(done.returncode, done.stdout, done.stderr)


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
        (["--timescale", "postgresql://u:hush@h:1,other:x/d"], ["--timescale", "***"]),
        (["--kafka", "h:9092/a b"], ["--kafka", "topics", "'a b'"]),
        (["--kafka-partitions", "0"], ["--kafka-partitions", "got '0'"]),
        (["--mqtt", "mqtt://h/plant/#"], ["--mqtt", "# as %23"]),
        (["--mqtt", "mqtt://h/plant/+"], ["--mqtt", "topics", "'/plant/+'"]),
        (["--bundle", "/nowhere"], ["--bundle", "manifest.json"]),
        (["--predictor-model", "/nowhere"], ["--predictor-model", "manifest.json"]),
        (["--predictor-model", "models:/x"], ["--predictor-model", "models:/NAME@ALIAS"]),
        (
            ["--predictor-model", "models:/x@champion", "--tracking-uri", "sqlite:////nowhere/mlflow.db"],
            ["--predictor-model", "does not exist"],
        ),
        (["--predictor-model", "models:/x@y", "--bundle", "z"], ["either a bundle or a predictor_model"]),
        (["--min-replicas", "3"], ["min_replicas up to replicas (2), got 3"]),
        (["--telemetry-every", "1.5s"], ["telemetry_every", "whole number of steps"]),
        (["--pace", "soon"], ["--pace", "max"]),
        (["--no-such-flag"], ["--no-such-flag"]),
        (["--vehicles"], ["--vehicles"]),
    ],
)
def test_bad_input_is_one_line_and_makes_nothing(
    arguments: list[str], says: list[str], twin: Twin, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    answer = twin("run", "--out", out, *arguments)
    answer.complaint(2, *says)
    assert "hush" not in answer.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "--vehicles", "0"], ["--vehicles", "got '0'"]),
        (["run", "--no-such-flag"], ["--no-such-flag"]),
        (["consume"], ["Kafka servers", "KAFKA_BOOTSTRAP_SERVERS"]),
    ],
)
def test_so_it_is_in_a_process(arguments: list[str], says: list[str]) -> None:
    process(*arguments).complaint(2, *says)


def test_directories_that_cannot_be_used(twin: Twin, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "run.json").write_text("{}")
    twin("run", "--out", str(tmp_path / "full")).complaint(2, "--out", "already holds something")
    assert (tmp_path / "full" / "run.json").read_text() == "{}"
    (tmp_path / "file").write_text("x")
    twin("run", "--out", str(tmp_path / "file")).complaint(2, "--out", "already holds something")
    twin("run", "--out", "/proc/here/run", "--no-predict").complaint(2, "--out", "cannot write")
    twin("report", str(tmp_path / "nothing")).complaint(2, "expected a run directory", "run.json")


def test_an_altered_model_stops_the_run_before_it_begins(twin: Twin, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(ROOT / "models" / "bundled", tmp_path / "bundle"))
    (bundle / "rul_efc.ubj").write_bytes(b"x")
    answer = twin("run", "--bundle", bundle, "--out", tmp_path / "run")
    answer.complaint(2, "--bundle", "rul_efc.ubj is damaged or altered")
    assert not (tmp_path / "run").exists()


def test_print_config_merges_the_layers_and_masks_secrets(tmp_path: Path) -> None:
    config = tmp_path / "fleet.yaml"
    config.write_text("vehicles: 7\nduration: 2h\n")
    result = process(
        "run", "--config", str(config), "--duration", "3h", "--mqtt", "mqtt://me:hush@broker:1", "--print-config",
        PG_HOST="db", PG_PASSWORD="whisper", TWIN_SEED="9", TWIN_API_TOKEN="murmur",
    )  # fmt: skip
    assert result.code == 0, result.err
    shown = yaml.safe_load(result.out)
    assert (shown["vehicles"], shown["duration"], shown["seed"]) == (7, 10800.0, 9)
    assert shown["timescale"] == "postgresql://twin:***@db:5432/twin_data"
    assert not re.search("hush|whisper|murmur", result.out + result.err)


def test_doctor_says_what_is_wrong_in_one_line_each(free_port: int) -> None:
    result = process("doctor", "--kafka", f"127.0.0.1:{free_port}", "--metrics-port", "0")
    lines = result.out.strip().splitlines()
    assert result.code == 1
    assert [line.split()[1] for line in lines] == [
        "folders", "ray", "disk", "kernel", "physics", "model", "rest", "kafka", "mqtt", "timescale",
    ]  # fmt: skip
    assert [line.split()[1] for line in lines if line.startswith("WRONG")] == ["kafka"]
    assert "does not answer" in result.out
    assert not result.err


def test_doctor_tells_what_has_no_room_and_what_is_out_of_date(tmp_path: Path) -> None:
    """A log larger than its disk, a certificate that has ended, one that is none, a cluster that is not there."""
    authority = Authority(tmp_path / "authority")
    authority.issue("old", days=-1)
    ours = authority.issue("twin", days=30)
    (tmp_path / "none.pem").write_text("hello")
    files = f"cafile={tmp_path / 'none.pem'}&certfile={ours}&keyfile={ours.with_suffix('.key')}"
    (tmp_path / "kafka").write_text(f"ssl.ca.location={authority.folder / 'old.pem'}\n")
    given = {
        "vehicles": 10_000_000, "duration": "300d", "telemetry_every": "2s", "out": tmp_path / "runs" / "new",
        "address": "127.0.0.1:9", "kafka": "127.0.0.1:9", "kafka_config": tmp_path / "kafka",
        "mqtt": f"mqtts://127.0.0.1:9?{files}",
    }  # fmt: skip
    wrong = {f"{found.part}: {found.says}" for found in examine(Given(given).run()) if found.ok is False}
    for words in ("ray: expected a Ray cluster", "disk: ", "old.pem ended on", "none.pem: no certificate"):
        assert [said for said in wrong if words in said], wrong
    [found] = [f for f in examine(Given(given | {"log_max_size": "1GB"}).run()) if f.part == "disk"]
    assert found.ok
    assert f"at {tmp_path};" in found.says


@pytest.mark.parametrize(("setting", "says"), [("0\n", "each process by itself"), ("1\n", "sched_autogroup_enabled=0")])
def test_doctor_tells_a_kernel_that_schedules_sessions(
    setting: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "enabled").write_text(setting)
    monkeypatch.setattr("twin.commands.doctor.AUTOGROUP", tmp_path / "enabled")
    [found] = [finding for finding in examine(Given({}).run()) if finding.part == "kernel"]
    assert found.ok
    assert says in found.says


@pytest.mark.parametrize(
    ("variable", "value"), [("OTEL_TRACES_EXPORTER", "jaeger"), ("OTEL_TRACES_SAMPLER_ARG", "lots")]
)
def test_traces_that_cannot_be_had_leave_nothing_behind(
    variable: str, value: str, tmp_path: Path, twin: Twin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv(variable, value)
    twin("run", "--out", tmp_path / "run").complaint(2, "expected", f"got {value}")
    assert not (tmp_path / "run").exists()


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
def test_consume_complains_in_one_line(arguments: list[str], says: list[str], twin: Twin) -> None:
    twin("consume", *arguments).complaint(2, *says)


@pytest.mark.cluster
def test_a_whole_run_leaves_data_report_and_counts(tmp_path: Path, free_port: int) -> None:
    out = tmp_path / "run"
    result = process(
        "run", "--vehicles", "30", "--duration", "2min", "--shards", "2", "--seed", "4", "--out", str(out),
        "--rest-port", str(free_port), "--metrics-port", "0",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert "Traceback" not in result.err
    assert "telemetry    1,800 records" in result.out
    assert "predictions  720" in result.out
    assert f"report       {out}/report.html" in result.out
    facts = json.loads((out / "run.json").read_text())
    assert facts["state"] == "finished"
    assert (facts["counts"]["telemetry"], facts["counts"]["predictions"]) == (1800, 720)
    assert pq.read_table(out / "telemetry").num_rows == 1800
    assert pq.read_table(out / "predictions").num_rows == 720
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 7
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
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])  # Ray takes the second for itself
def test_a_signal_seals_the_log_and_exits_130(sent: signal.Signals, tmp_path: Path, free_port: int) -> None:
    out = tmp_path / "run"
    command = [
        sys.executable, "-m", "twin", "run", "--vehicles", "20", "--duration", "1h", "--pace", "10", "--shards", "2",
        "--no-predict", "--out", str(out), "--metrics-port", str(free_port),
    ]  # fmt: skip
    running = subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: running.poll() is not None or any(path.stat().st_size for path in out.glob("telemetry/*/*")))
    assert running.poll() is None, running.stderr.read() if running.stderr else ""
    with urllib.request.urlopen(f"http://127.0.0.1:{free_port}/metrics", timeout=HANG_S) as answer:
        metrics = answer.read().decode()
    assert niceness(running.pid, b"ray::ShardActor") == [os.nice(0)] * 2, "live records come in time on a busy machine"
    running.send_signal(sent)
    _, complaint = running.communicate(timeout=HANG_S)
    assert running.returncode == 130, complaint
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
