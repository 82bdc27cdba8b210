"""What the supervisor knows of the fleet at one moment: for progress, metrics, the ledger of a run."""

from __future__ import annotations

from dataclasses import dataclass, field

from actors.shard import ShardStatus
from datasets.cursor import Cursor
from datasets.schema import STREAMS, Stream


@dataclass(frozen=True)
class LogStatus:
    """One log on its way to one sink. `oldest_due_ns`: when the first record that waits was due, 0 where unknown."""

    stream: Stream
    shard: int
    made: int
    cursor: Cursor
    oldest_due_ns: int = 0

    @property
    def waiting(self) -> int:
        """Records made and not yet dealt with."""
        return max(0, self.made - self.cursor.position)


@dataclass(frozen=True)
class SinkStatus:
    """One sink over all nodes."""

    name: str
    logs: tuple[LogStatus, ...]
    retries: int
    latency_counts: list[int]
    latency_sum_s: float

    @property
    def made(self) -> dict[Stream, int]:
        """Records in the logs, by stream."""
        return {s: sum(max(x.made, x.cursor.position) for x in self.logs if x.stream == s) for s in STREAMS}

    @property
    def delivered(self) -> dict[Stream, int]:
        """Records acknowledged, by stream."""
        return {s: sum(x.cursor.position - x.cursor.dead for x in self.logs if x.stream == s) for s in STREAMS}

    @property
    def backlog(self) -> dict[Stream, int]:
        """Records that wait, by stream."""
        return {s: sum(x.waiting for x in self.logs if x.stream == s) for s in STREAMS}

    @property
    def duplicates(self) -> int:
        """Records the peer already had."""
        return sum(log.cursor.duplicates for log in self.logs)

    @property
    def dead_letters(self) -> int:
        """Records the peer refused for themselves; they are in the run's dead-letters."""
        return sum(log.cursor.dead for log in self.logs)


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
    cut_bytes: int = 0
    """Damaged bytes cut off the ends of logs; their records were made again."""
    prediction_latency_counts: list[int] = field(default_factory=list)
    prediction_latency_sum_s: float = 0.0
    shards: tuple[ShardStatus, ...] = ()
    sinks: tuple[SinkStatus, ...] = ()
    waiting: dict[str, str] = field(default_factory=dict)

    @property
    def backlog(self) -> int:
        """Everything that is still on its way: records to sinks, telemetry to the predictor."""
        return self.predictor_backlog + sum(sum(sink.backlog.values()) for sink in self.sinks)
