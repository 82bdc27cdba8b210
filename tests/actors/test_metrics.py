"""The metrics say of each sink what the ledger says."""

from __future__ import annotations

import json
import socket
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from actors.exporter import Exporter
from actors.fleet.metrics import FleetCollector
from actors.fleet.status import FleetStatus, LogStatus, SinkStatus
from actors.latency import BUCKETS_S, Latencies
from datasets.log.cursor import Cursor
from datasets.observed import Observation
from tests.services.secured import Authority
from tests.support import HANG_S

STATUS = FleetStatus(
    vehicles=9, tick=12, simulated_s=12.0, elapsed_s=1.0, real_time_factor=12.0, records=54, predictions=6,
    predictor_backlog=0, prediction_latency_s=0.0, restarts=1,
)  # fmt: skip
ALARMS = ("hot", "risk", "silent")
FLOWS = '{"status": "ok", "waits_for": {}}'


def fleet(*sinks: SinkStatus, **more: Any) -> CollectorRegistry:
    status = replace(STATUS, sinks=sinks, **more)
    registry = CollectorRegistry()
    registry.register(FleetCollector(lambda: status, Path()))
    return registry


def test_a_sink_in_the_metrics_is_the_sink_in_the_ledger() -> None:
    """Two shards: of the first, 8 of 24 records are dealt with, one dead, two known before; the second is done."""
    since_ns = time.time_ns() - 30_000_000_000
    counts = [0] * (len(BUCKETS_S) + 1)
    counts[0], counts[3], counts[-1] = 5, 2, 1
    logs = (
        LogStatus("telemetry", 0, 24, Cursor(8, 2, 1), since_ns, "a"),
        LogStatus("telemetry", 1, 30, Cursor(30), 0, "b"),
        LogStatus(
            "predictions", 0, 3, Cursor(3), since_ns - 10**9, "a"
        ),  # nothing waits here: its time counts for nothing
    )
    registry = fleet(SinkStatus("kafka", logs, 4, Latencies(counts, 0.5)), waiting={"kafka": "a broker"})

    def value(name: str, **labels: str) -> float:
        found = registry.get_sample_value(name, {"sink": "kafka", **labels})
        assert found is not None, (name, labels)
        return found

    telemetry = {"stream": "telemetry"}
    made = value("ev_sink_made_records_total", **telemetry)
    delivered = value("ev_sink_delivered_records_total", **telemetry)
    backlog = value("ev_sink_backlog_records", **telemetry)
    dead = value("ev_sink_dead_letters_total")
    assert (made, delivered, backlog, dead) == (54, 37, 16, 1)
    assert made == delivered + backlog + dead
    assert value("ev_sink_made_records_total", stream="predictions") == 3
    assert value("ev_sink_duplicates_total") == 2
    assert value("ev_sink_retries_total") == 4
    assert value("ev_sink_oldest_waiting_seconds", node="a") == pytest.approx(30, abs=5)
    assert value("ev_sink_oldest_waiting_seconds", node="b") == 0
    assert registry.get_sample_value("ev_waiting", {"part": "kafka"}) == 1
    assert registry.get_sample_value("ev_waiting", {"part": "fleet"}) == 0


def test_the_histogram_counts_from_due_and_is_cumulative() -> None:
    counts = [0] * (len(BUCKETS_S) + 1)
    counts[0], counts[3], counts[-1] = 5, 2, 1
    registry = fleet(SinkStatus("mqtt", (), 0, Latencies(counts, 612.5)))

    def bucket(bound: str) -> float | None:
        return registry.get_sample_value("ev_sink_latency_seconds_bucket", {"sink": "mqtt", "le": bound})

    assert [bucket(str(BUCKETS_S[n])) for n in (0, 2, 3)] == [5, 5, 7]
    assert (bucket(str(BUCKETS_S[-1])), bucket("+Inf")) == (7, 8)
    assert registry.get_sample_value("ev_sink_latency_seconds_sum", {"sink": "mqtt"}) == 612.5
    assert registry.get_sample_value("ev_sink_latency_seconds_count", {"sink": "mqtt"}) == 8


def test_vehicles_with_an_alarm_and_replicas_that_are_down() -> None:
    registry = fleet(hot=2, at_risk=3, silent=4, replicas=(1, 2))
    alarmed = {alarm: registry.get_sample_value("ev_alarmed_vehicles", {"alarm": alarm}) for alarm in ALARMS}
    assert alarmed == {"hot": 2, "risk": 3, "silent": 4}
    assert registry.get_sample_value("ev_predictor_replicas") == 1
    assert registry.get_sample_value("ev_predictor_replicas_wanted") == 2
    without = fleet()
    assert without.get_sample_value("ev_alarmed_vehicles", {"alarm": "risk"}) is None, "nothing is predicted"
    assert without.get_sample_value("ev_predictor_replicas") is None


def test_what_was_found_of_the_model_is_shown(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    registry.register(FleetCollector(lambda: STATUS, tmp_path))
    assert registry.get_sample_value("ev_model_observed_timestamp_seconds") is None, "nobody has looked"
    Observation(1.5e9, {"SoH": (0.4, 0.25)}, None).save(tmp_path)
    assert registry.get_sample_value("ev_model_observed_timestamp_seconds") == 1.5e9
    assert registry.get_sample_value("ev_model_input_psi", {"input": "SoH"}) == 0.4
    assert registry.get_sample_value("ev_model_input_psi_limit", {"input": "SoH"}) == 0.25
    assert registry.get_sample_value("ev_model_interval_coverage_ratio") is None, "too few vehicles tell it"
    Observation(1.6e9, {}, 0.8).save(tmp_path)
    assert registry.get_sample_value("ev_model_input_psi", {"input": "SoH"}) is None
    assert registry.get_sample_value("ev_model_interval_coverage_ratio") == 0.8
    for damaged in ("{", "[]", '{"psi": {}}'):
        (tmp_path / "observed.json").write_text(damaged)
        assert registry.get_sample_value("ev_model_observed_timestamp_seconds") is None


def test_a_fleet_without_sinks_has_no_sink_in_its_metrics() -> None:
    names = {sample.name for family in fleet().collect() for sample in family.samples}
    assert not {name for name in names if name.startswith("ev_sink_")}
    assert {"ev_vehicles", "ev_telemetry_records_total", "ev_shard_restarts_total"} <= names


def answer_of(exporter: Exporter, path: str, token: str = "") -> tuple[int, str]:
    headers = {"Authorization": token} if token else {}
    request = urllib.request.Request(f"http://127.0.0.1:{exporter.port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=HANG_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_health_says_that_it_lives_and_ready_whether_all_flows(free_port: int) -> None:
    waits: dict[str, str] = {}
    exporter = Exporter("127.0.0.1", free_port, FleetCollector(lambda: STATUS, Path()), lambda: waits)
    try:
        assert exporter.port == free_port
        assert answer_of(exporter, "/ready") == answer_of(exporter, "/health") == (200, FLOWS)
        waits["kafka"] = "a broker"
        code, said = answer_of(exporter, "/ready")
        assert (code, json.loads(said)) == (503, {"status": "ok", "waits_for": {"kafka": "a broker"}})
        assert answer_of(exporter, "/health") == (200, said)
        code, metrics = answer_of(exporter, "/metrics")
        assert code == 200
        assert "ev_vehicles 9.0" in metrics
        code, said = answer_of(exporter, "/")
        assert (code, json.loads(said)) == (404, {"detail": "expected /metrics, /health or /ready"})
        with pytest.raises(OSError, match="in use"):
            Exporter("127.0.0.1", free_port, FleetCollector(lambda: STATUS, Path()), lambda: waits)
    finally:
        exporter.close()
    with pytest.raises(urllib.error.URLError):
        answer_of(exporter, "/health")


def test_with_a_certificate_a_caller_who_says_nothing_keeps_nobody_waiting(
    free_port: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither does one who speaks no TLS, or hangs up; and none of them is a traceback."""
    ours, others = Authority(tmp_path / "ours"), Authority(tmp_path / "others")
    certificate = ours.issue("server")
    collector = FleetCollector(lambda: STATUS, Path())
    files = (str(certificate), str(certificate.with_suffix(".key")))
    exporter = Exporter("127.0.0.1", free_port, collector, dict, tls=files)
    url = f"https://127.0.0.1:{free_port}/health"
    try:
        with (
            socket.create_connection(("127.0.0.1", free_port)),
            socket.create_connection(("127.0.0.1", free_port)) as rude,
        ):
            rude.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            trust = ssl.create_default_context(cafile=str(ours.ca))
            with urllib.request.urlopen(url, timeout=HANG_S, context=trust) as answer:
                assert answer.read().decode() == FLOWS
            with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
                urllib.request.urlopen(url, context=ssl.create_default_context(cafile=str(others.ca)))
            assert not rude.recv(100).startswith(b"HTTP")
    finally:
        exporter.close()
    assert capfd.readouterr().err == ""


def test_with_a_token_only_those_who_have_it_read_metrics(free_port: int) -> None:
    exporter = Exporter("127.0.0.1", free_port, FleetCollector(lambda: STATUS, Path()), dict, "hush")
    try:
        assert answer_of(exporter, "/ready")[0] == answer_of(exporter, "/health")[0] == 200
        code, said = answer_of(exporter, "/metrics")
        assert (code, json.loads(said)) == (401, {"detail": "expected the header 'Authorization: Bearer <token>'"})
        sent = ("Bearer hush", "Bearer hus", "hush", "Bearer \u00fc")
        told = [answer_of(exporter, "/metrics", header)[0] for header in sent]
        assert told == [200, 401, 401, 401]
    finally:
        exporter.close()
