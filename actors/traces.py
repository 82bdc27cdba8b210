"""Traces of a block's way, to an OpenTelemetry collector: who made, logged, predicted and delivered it, and when.

block                         from when its records were due to the end of the shard's work; one trace each
|- compute, log               in the shard
|- predict                    in the feeder, from what it has read to logging
|  |- ask, log
|  `- deliver to kafka ..     of its predictions, in the shipper: from what it has read to the acknowledgement
`- deliver to kafka ..        of its telemetry

Its ids follow from the run's log, the shard and the moment at which the block was due, which both logs carry with each
frame. So processes need not tell each other anything, and all choose the same blocks. OTLP is spoken over HTTP as JSON.
Queue: `_MOST` spans; what comes when it is full, or cannot be sent, is dropped. A trace never holds up a record.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from queue import Empty, Full, Queue
from typing import Any

_log = logging.getLogger(__name__)

_MOST = 2000
_SEND_S = 1.0
_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class TracePlan:
    """`url`: where spans go. `share` of the blocks is traced."""

    url: str
    log_id: str
    service: str
    share: float


def trace_plan(environ: Mapping[str, str], log_id: str) -> TracePlan | None:
    """By OpenTelemetry's own variables; None where they ask for no traces. ValueError where they ask for others."""
    exporter, protocol = environ.get("OTEL_TRACES_EXPORTER", ""), environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "")
    base = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or ("http://localhost:4318" if exporter == "otlp" else "")
    if not base or exporter == "none" or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    if exporter not in ("", "otlp") or protocol == "grpc" or not base.startswith(("http://", "https://")):
        came = " ".join(filter(None, [exporter, protocol, base]))
        raise ValueError(
            f"traces: expected OTLP over HTTP (OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318), got {came}"
        )
    said = environ.get("OTEL_TRACES_SAMPLER_ARG", "0.01")
    try:
        share = float(said)
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"OTEL_TRACES_SAMPLER_ARG: expected a share from 0 to 1, got {said}")
    return TracePlan(f"{base.rstrip('/')}/v1/traces", log_id, environ.get("OTEL_SERVICE_NAME") or "twin", share)


@dataclass(frozen=True)
class Trace:
    """The trace of one block."""

    id: str

    @property
    def root(self) -> str:
        """The id of the whole block's span."""
        return self._named("block")

    def predict(self, position: int) -> str:
        """The id of the feeder's span, for telemetry up to this row: the mark of the predictions' frame."""
        return self._named(f"predict/{position}")

    def _named(self, name: str) -> str:
        return sha256(f"{self.id}/{name}".encode()).hexdigest()[:16]


class Tracer:
    """Sends the spans of one process; `part` says which."""

    def __init__(self, plan: TracePlan, part: str) -> None:
        self._plan = plan
        resource = {"service.name": plan.service, "twin.part": part, "twin.log_id": plan.log_id}
        self._resource = {"attributes": _attributes(resource)}
        self._spans: Queue[dict[str, Any]] = Queue(_MOST)
        self._stopping = threading.Event()
        self._failed = False
        self._thread = threading.Thread(target=self._send_all, name="traces", daemon=True)
        self._thread.start()

    def trace(self, shard: int, due_ns: int | None) -> Trace | None:
        """The trace of a block; None where it is not chosen, or when it was due is not known (any more)."""
        if not due_ns:
            return None
        found = sha256(f"{self._plan.log_id}/{shard}/{due_ns}".encode()).hexdigest()[:32]
        return Trace(found) if int(found[16:], 16) < self._plan.share * 2.0**64 else None

    def span(self, trace: Trace, name: str, start_ns: int, end_ns: int, parent: str, id: str = "", **more: Any) -> None:
        """Something that was done for a block. `parent`: another's id, "" for none; `id`: where others name it."""
        span = {
            "traceId": trace.id, "spanId": id or os.urandom(8).hex(), "name": name, "kind": 1,
            "startTimeUnixNano": str(start_ns), "endTimeUnixNano": str(max(start_ns, end_ns)),
            "attributes": _attributes(more),
        }  # fmt: skip
        with suppress(Full):
            self._spans.put_nowait(span | ({"parentSpanId": parent} if parent else {}))

    def close(self) -> None:
        """Send what is there."""
        self._stopping.set()
        self._thread.join(_TIMEOUT_S + _SEND_S)

    def _send_all(self) -> None:
        while not self._stopping.wait(_SEND_S):
            self._send()
        self._send()

    def _send(self) -> None:
        spans = []
        with suppress(Empty):
            while True:
                spans.append(self._spans.get_nowait())
        if not spans:
            return
        import urllib.request

        scope = [{"scope": {"name": "ev-battery-fleet-twin"}, "spans": spans}]
        body = json.dumps({"resourceSpans": [{"resource": self._resource, "scopeSpans": scope}]}).encode()
        request = urllib.request.Request(self._plan.url, body, {"Content-Type": "application/json"})
        try:
            urllib.request.urlopen(request, timeout=_TIMEOUT_S).close()
            self._failed = False
        except (OSError, ValueError) as error:
            if not self._failed:
                _log.warning("traces do not reach %s (%s); they are dropped", self._plan.url, error)
            self._failed = True


def tracer_of(plan: TracePlan | None, part: str) -> Tracer | None:
    """The tracer of a process; None where nothing is traced."""
    return None if plan is None else Tracer(plan, part)


def _attributes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": str(value)}}
        for key, value in values.items()
    ]
