"""A block's way as a collector of OpenTelemetry sees it: whose parent is what, over all processes of a real run."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from actors.traces import Trace, TracePlan, Tracer, trace_plan, tracer_of
from tests.services import Mosquitto
from tests.support import wait_until
from twin import Fleet
from twin.errors import BadInput

HERE = "http://127.0.0.1:4318"
PLAN = TracePlan(f"{HERE}/v1/traces", "log", "twin", 1.0)


class Collector:
    """Takes OTLP over HTTP. `spans` by name; each knows its part and its attributes."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, bytes]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.requests.append((self.path, body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """No noise."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def spans(self) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for _, body in list(self.requests):
            for resource in json.loads(body)["resourceSpans"]:
                of = plain(resource["resource"])
                for span in resource["scopeSpans"][0]["spans"]:
                    found.setdefault(span["name"], []).append(span | plain(span) | {"part": of["twin.part"]})
        return found


def plain(thing: dict[str, Any]) -> dict[str, Any]:
    return {of["key"]: next(iter(of["value"].values())) for of in thing["attributes"]}


@pytest.fixture
def collector() -> Iterator[Collector]:
    started = Collector()
    yield started
    started.close()


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.timeout(300)
def test_every_part_of_a_run_adds_to_the_trace_of_a_block(
    collector: Collector, mosquitto: Mosquitto, free_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "1")
    broker = f"mqtt://127.0.0.1:{mosquitto.port}"
    with Fleet(vehicles=6, shards=2, mqtt=broker, rest_port=free_port, pace=20, out=tmp_path / "run") as fleet:

        def predicted() -> bool:
            fleet.run("20s")
            streams = {span["stream"] for span in collector.spans().get("deliver to mqtt", ())}
            return streams == {"telemetry", "predictions"}

        wait_until(predicted, collector.spans)
        made = fleet.run("2s").records
    spans = collector.spans()
    assert set(spans) == {"block", "compute", "log", "predict", "ask", "deliver to mqtt"}
    roots = {span["traceId"]: span for span in spans["block"]}
    assert len(roots) == len(spans["block"]), "a trace for each block"
    assert sum(int(span["rows"]) for span in spans["block"]) == made
    assert {span["shard"] for span in spans["block"]} == {"0", "1"}
    assert not any("parentSpanId" in span for span in spans["block"])
    parents = {"compute": ["block"], "predict": ["block"], "ask": ["predict"], "log": ["block", "predict"],
               "deliver to mqtt": ["block", "predict"]}  # fmt: skip
    by_id = {span["spanId"]: span for several in spans.values() for span in several}
    assert len(by_id) == sum(map(len, spans.values())), "no two have the same id"
    for name, allowed in parents.items():
        for span in spans[name]:
            parent = by_id[span["parentSpanId"]]
            assert parent["name"] in allowed
            assert parent["traceId"] == span["traceId"] in roots
            assert int(parent["startTimeUnixNano"]) <= int(span["startTimeUnixNano"]) <= int(span["endTimeUnixNano"])
    for span in spans["deliver to mqtt"]:
        assert by_id[span["parentSpanId"]]["name"] == {"telemetry": "block", "predictions": "predict"}[span["stream"]]
    parts = {name: {span["part"] for span in several} for name, several in spans.items()}
    assert parts["block"] == parts["compute"] == {"shard"}
    assert parts["predict"] == parts["ask"] == {"predictor"}
    assert parts["deliver to mqtt"] == {"mqtt"}
    for path, body in collector.requests:
        assert path == "/v1/traces"
        json_format.Parse(body, ExportTraceServiceRequest())  # knows every name in it, with its type


def test_all_choose_the_same_blocks_and_one_in_so_many() -> None:
    plan = TracePlan(PLAN.url, "log", "twin", 0.01)
    one, other = Tracer(plan, "shard"), Tracer(plan, "kafka")
    chosen = [due_ns for due_ns in range(1, 20_000) if one.trace(3, due_ns)]
    assert chosen == [due_ns for due_ns in range(1, 20_000) if other.trace(3, due_ns)]
    assert 100 < len(chosen) < 300
    assert one.trace(3, chosen[0]) != one.trace(4, chosen[0])
    assert one.trace(3, 0) is one.trace(3, None) is None, "when it was due is not known"
    one.close()
    other.close()


def test_a_collector_that_is_away_costs_its_spans_and_nothing_else(
    free_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    tracer = Tracer(TracePlan(f"http://127.0.0.1:{free_port}/v1/traces", "log", "twin", 1.0), "shard")
    for number in range(3000):
        tracer.span(Trace("0" * 32), "block", number, number + 1, "")
    tracer.close()
    assert [record.message[:19] for record in caplog.records] == ["traces do not reach"]


def test_nothing_is_traced_unless_it_is_asked_for() -> None:
    for environ in ({}, {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": HERE},
                    {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": HERE}):  # fmt: skip
        assert trace_plan(environ, "log") is None
    assert tracer_of(None, "shard") is None


def test_what_the_variables_ask_for() -> None:
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"{HERE}/"}
    assert trace_plan(endpoint, "log") == TracePlan(PLAN.url, "log", "twin", 0.01)
    more = {"OTEL_TRACES_SAMPLER_ARG": "1", "OTEL_SERVICE_NAME": "fleet"}
    assert trace_plan(endpoint | more, "log") == TracePlan(PLAN.url, "log", "fleet", 1.0)
    found = trace_plan({"OTEL_TRACES_EXPORTER": "otlp"}, "log")
    assert found is not None
    assert found.url == "http://localhost:4318/v1/traces"


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "expected OTLP over HTTP"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "expected OTLP over HTTP"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "127.0.0.1:4318"}, "expected OTLP over HTTP"),
        ({"OTEL_TRACES_SAMPLER_ARG": "two"}, "OTEL_TRACES_SAMPLER_ARG: expected a share from 0 to 1, got two"),
    ],
)
def test_what_cannot_be_done_is_said_before_the_run(
    environ: dict[str, str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ({"OTEL_EXPORTER_OTLP_ENDPOINT": HERE} | environ).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadInput, match=words):
        Fleet(vehicles=6, out=tmp_path / "run").start()
    assert not (tmp_path / "run" / "run.json").exists()
