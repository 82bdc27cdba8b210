"""What the supervisor knows of the fleet at one moment: for progress, metrics, the ledger of a run."""

from __future__ import annotations

from dataclasses import dataclass, field

from actors.shard import ShardStatus
from datasets.schema import Stream


@dataclass(frozen=True)
class SinkStatus:
    """One sink over all nodes. Records by stream; `backlog` is made minus delivered."""

    name: str
    delivered: dict[Stream, int]
    backlog: dict[Stream, int]
    duplicates: int
    retries: int
    latency_counts: list[int]
    latency_sum_s: float


@dataclass(frozen=True)
class FleetStatus:
    """`waiting`: who waits for what (`fleet`, `predictor` or a sink's name -> reason); empty when all flows."""

    vehicles: int
    tick: int
    simulated_s: float
    elapsed_s: float
    real_time_factor: float
    records: int
    predictions: int
    predictor_backlog: int
    prediction_latency_s: float
    restarts: int
    shards: tuple[ShardStatus, ...] = ()
    sinks: tuple[SinkStatus, ...] = ()
    waiting: dict[str, str] = field(default_factory=dict)

    @property
    def backlog(self) -> int:
        """Everything that is still on its way: records to sinks, telemetry to the predictor."""
        return self.predictor_backlog + sum(sum(sink.backlog.values()) for sink in self.sinks)
