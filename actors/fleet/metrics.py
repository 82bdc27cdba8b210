"""The fleet's state as Prometheus metrics, computed when somebody scrapes (`actors/exporter.py`)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from actors.fleet.status import FleetStatus, SinkStatus
from actors.latency import BUCKETS_S, Latencies
from actors.prediction.plan import READER
from datasets.alarms import HOT_C, RISKY, SILENT_S
from datasets.observed import Observation
from datasets.schema import STREAMS


class FleetCollector(Collector):
    """Turns a `FleetStatus` into metric families. Counters continue from the log, so a restart never resets them."""

    def __init__(self, status: Callable[[], FleetStatus], run: Path) -> None:
        """`run`: a folder on the volume of the run, on the node of the driver."""
        self._status, self._run = status, run

    def collect(self) -> Iterator[Metric]:
        """Every metric of the fleet."""
        status = self._status()
        yield from main_figures(status)
        yield GaugeMetricFamily("ev_simulated_seconds", "Simulated time since the start", status.simulated_s)
        alarmed = GaugeMetricFamily(
            "ev_alarmed_vehicles",
            f"Vehicles by alarm: `hot` (battery last measured above {HOT_C:g} °C), `risk` (last failure risk above "
            f"{100.0 * RISKY:g} %), `silent` (its shard has owed records for more than {SILENT_S:g} s)",
            labels=["alarm"],
        )
        for alarm, count in (("hot", status.hot), ("risk", status.at_risk), ("silent", status.silent)):
            if count is not None:
                alarmed.add_metric([alarm], count)
        yield alarmed
        unsent = CounterMetricFamily("ev_unsent_records", "Telemetry never sent, or lost on its way", labels=["reason"])
        for reason in ("unchanged", "asleep", "dropped"):
            unsent.add_metric([reason], getattr(status.sent, reason))
        yield unsent
        yield GaugeMetricFamily("ev_prediction_latency_seconds", "Last batch to the pool", status.prediction_latency_s)
        latency = HistogramMetricFamily(
            "ev_prediction_latency_since_due_seconds", "From when a telemetry record was due to its logged prediction"
        )
        latency.add_metric([], *_histogram(status.prediction_latencies))
        yield latency
        if status.replicas is not None:
            up, wanted = status.replicas
            yield GaugeMetricFamily("ev_predictor_replicas", "Replicas of the predictor that are up", up)
            yield GaugeMetricFamily("ev_predictor_replicas_wanted", "The fewest there should be", wanted)
        yield from self._model()
        room = GaugeMetricFamily("ev_volume_free_bytes", "Room on the driver's volume of the run directory")
        with suppress(OSError):  # somebody has taken the directory away: then there is nothing to tell
            volume = os.statvfs(self._run)
            room.add_metric([], volume.f_bavail * volume.f_frsize)
        yield room
        yield CounterMetricFamily("ev_log_cut_bytes", "Damaged bytes cut off ends of logs", status.cut_bytes)
        yield CounterMetricFamily("ev_shard_restarts", "Shards restarted from their checkpoint", status.restarts)
        yield CounterMetricFamily("ev_compute_seconds", "Time spent in shards", sum(s.compute_s for s in status.shards))
        waiting = GaugeMetricFamily("ev_waiting", "1 while a part waits for another", labels=["part"])
        for part in ("fleet", READER, *(sink.name for sink in status.sinks)):
            waiting.add_metric([part], float(part in status.waiting))
        yield waiting
        yield from self._sinks(status)

    def _model(self) -> Iterator[Metric]:
        """What `twin retrain` has found last; nothing where it has not looked."""
        found = Observation.load(self._run)
        if found is None:
            return
        yield GaugeMetricFamily(
            "ev_model_observed_timestamp_seconds", "When `twin retrain` last looked at this run", found.at_s
        )
        psi = GaugeMetricFamily(
            "ev_model_input_psi", "How far an input has moved from the model's training, as it found", labels=["input"]
        )
        limit = GaugeMetricFamily("ev_model_input_psi_limit", "Above it that is drift", labels=["input"])
        for name, (value, most) in found.psi.items():
            psi.add_metric([name], value)
            limit.add_metric([name], most)
        yield from (psi, limit)
        if found.coverage is not None:
            yield GaugeMetricFamily(
                "ev_model_interval_coverage_ratio",
                "Share of decided predictions whose 90 % interval held the end of life, as it found",
                found.coverage,
            )

    @staticmethod
    def _sinks(status: FleetStatus) -> Iterator[Metric]:
        labels = ["sink", "stream"]
        made = CounterMetricFamily("ev_sink_made_records", "Records in the logs that this sink reads", labels=labels)
        delivered = CounterMetricFamily("ev_sink_delivered_records", "Records acknowledged", labels=labels)
        duplicates = CounterMetricFamily("ev_sink_duplicates", "Records the peer already had", labels=["sink"])
        dead = CounterMetricFamily("ev_sink_dead_letters", "Records the peer rejected individually", labels=["sink"])
        lost = CounterMetricFamily(
            "ev_sink_lost_records", "Records that the log did not hold any more", labels=["sink"]
        )
        oldest = GaugeMetricFamily(
            "ev_sink_oldest_waiting_seconds", "Since the first record that waits was due", labels=["sink", "node"]
        )
        retries = CounterMetricFamily("ev_sink_retries", "Connections given up and made again", labels=["sink"])
        latency = HistogramMetricFamily(
            "ev_sink_latency_seconds", "From when a record was due to its acknowledgement", labels=["sink"]
        )
        for sink in status.sinks:
            for stream in STREAMS:
                made.add_metric([sink.name, stream], sink.made[stream])
                delivered.add_metric([sink.name, stream], sink.delivered[stream])
            duplicates.add_metric([sink.name], sink.duplicates)
            dead.add_metric([sink.name], sink.dead_letters)
            lost.add_metric([sink.name], sink.lost)
            for node, due_ns in _oldest(sink).items():
                oldest.add_metric([sink.name, node], max(0.0, time.time() - due_ns / 1e9) if due_ns else 0.0)
            retries.add_metric([sink.name], sink.retries)
            latency.add_metric([sink.name], *_histogram(sink.latencies))
        yield from (made, delivered, oldest, duplicates, dead, lost, retries, latency)


def main_figures(status: FleetStatus) -> Iterator[Metric]:
    """Those that Ray's dashboard shows, too (`ray_figures.py`)."""
    yield GaugeMetricFamily("ev_vehicles", "Vehicles in the fleet", status.vehicles)
    yield GaugeMetricFamily("ev_real_time_factor", "Simulated over real time, lately", status.real_time_factor)
    yield CounterMetricFamily("ev_telemetry_records", "Telemetry records made", status.records)
    yield CounterMetricFamily("ev_predictions", "Predictions made", status.predictions)
    yield GaugeMetricFamily(
        "ev_predictor_backlog_records", "Telemetry the predictor has not looked at", status.predictor_backlog
    )
    backlog = GaugeMetricFamily(
        "ev_sink_backlog_records", "Records in the log not yet acknowledged", labels=["sink", "stream"]
    )
    for sink in status.sinks:
        for stream in STREAMS:
            backlog.add_metric([sink.name, stream], sink.backlog[stream])
    if status.sinks:
        yield backlog


def _oldest(sink: SinkStatus) -> dict[str, int]:
    """By node, when the first record that waits there was due [ns since 1970]; 0 where none waits."""
    found: dict[str, int] = {}
    for log in sink.logs:
        due_ns = log.oldest_due_ns if log.waiting else 0
        before = found.setdefault(log.node, 0)
        if due_ns and (not before or due_ns < before):
            found[log.node] = due_ns
    return found


def _histogram(latencies: Latencies) -> tuple[list[tuple[str, float]], float]:
    """Cumulative buckets as Prometheus wants them."""
    cumulative, buckets = 0, []
    for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), latencies.counts, strict=True):
        cumulative += count
        buckets.append((bound, float(cumulative)))
    return buckets, latencies.sum_s
