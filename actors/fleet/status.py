"""What the supervisor knows about the fleet at one moment: for progress, metrics and the ledger of a run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from actors.delivery.shipper import ShipperStatus
from actors.fleet.plan import FleetPlan
from actors.fleet.sender import NOTHING_KEPT, Sent
from actors.fleet.shard import ShardStatus
from actors.latency import Latencies
from actors.prediction.feeder import FeederStatus
from datasets.log import Cursor
from datasets.schema import STREAMS, Stream


@dataclass(frozen=True)
class LogStatus:
    """One log on its way to one sink. `oldest_due_ns`: when the first waiting record was due, 0 if unknown."""

    stream: Stream
    shard: int
    made: int
    cursor: Cursor
    oldest_due_ns: int = 0
    node: str = ""

    @property
    def waiting(self) -> int:
        """Records made and not yet dealt with."""
        return max(0, self.made - self.cursor.position)


@dataclass(frozen=True)
class SinkStatus:
    """One sink, over all nodes."""

    name: str
    logs: tuple[LogStatus, ...]
    retries: int = 0
    latencies: Latencies = field(default_factory=Latencies)
    """From when a record was due to its acknowledgement."""

    @cached_property
    def made(self) -> dict[Stream, int]:
        """Records in the logs, by stream."""
        return self._sums(lambda log: max(log.made, log.cursor.position))

    @cached_property
    def delivered(self) -> dict[Stream, int]:
        """Records acknowledged, by stream."""
        return self._sums(lambda log: log.cursor.delivered)

    @cached_property
    def backlog(self) -> dict[Stream, int]:
        """Records that wait, by stream."""
        return self._sums(lambda log: log.waiting)

    def _sums(self, count: Callable[[LogStatus], int]) -> dict[Stream, int]:
        sums = dict.fromkeys(STREAMS, 0)
        for log in self.logs:
            sums[log.stream] += count(log)
        return sums

    @property
    def duplicates(self) -> int:
        """Records the peer already had."""
        return sum(log.cursor.duplicates for log in self.logs)

    @property
    def dead_letters(self) -> int:
        """Records the peer rejected individually; they are in the run's dead-letters."""
        return sum(log.cursor.dead for log in self.logs)

    @property
    def lost(self) -> int:
        """Records that the log did not hold any more when their turn came."""
        return sum(log.cursor.lost for log in self.logs)


@dataclass(frozen=True)
class FleetStatus:
    """`waiting`: what each part waits for (`fleet`, `predictor` or a sink's name -> reason); empty when all flows."""

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
    """Damaged bytes cut off the ends of logs; their records were computed again."""
    prediction_latencies: Latencies = field(default_factory=Latencies)
    """From when a telemetry record was due to its logged prediction."""
    sent: Sent = NOTHING_KEPT
    """What became of the telemetry that was not just sent, of all shards."""
    shards: tuple[ShardStatus, ...] = ()
    sinks: tuple[SinkStatus, ...] = ()
    hot: int = 0
    """Vehicles above `HOT_C`, by what they measured last."""
    at_risk: int | None = None
    """Vehicles above `RISKY`, by their last prediction; None where nothing is predicted."""
    silent: int = 0
    """Vehicles of shards that have owed a block for longer than `SILENT_S`."""
    replicas: tuple[int, int] | None = None
    """Of the predictor that are up, and the fewest there should be; None where there is none, or nobody has looked."""
    waiting: dict[str, str] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    """What is wrong although all flows: the registry of models does not answer, say."""

    @property
    def backlog(self) -> int:
        """Everything that is still on its way: records to sinks, telemetry to the predictor."""
        return self.predictor_backlog + sum(sum(sink.backlog.values()) for sink in self.sinks)


def measure(
    plan: FleetPlan,
    shards: Mapping[int, ShardStatus],
    shippers: Sequence[ShipperStatus],
    feeders: Sequence[FeederStatus],
    *,
    elapsed_s: float,
    real_time_factor: float,
    restarts: int,
    waiting: dict[str, str],
    replicas: tuple[int, int] | None = None,
    silent: int = 0,
) -> FleetStatus:
    """The fleet's status, from what each of its parts said last; `shards` by their number."""
    statuses = tuple(shards.values())
    made: dict[tuple[Stream, int], int] = {("telemetry", shard): status.records for shard, status in shards.items()}
    made |= {("predictions", shard): rows for feeder in feeders for shard, rows in feeder.made.items()}
    nodes = {shard: status.node for shard, status in shards.items()}
    tick = min((status.tick for status in statuses), default=0)
    behind = [shards[shard].records - read for feeder in feeders for shard, read in feeder.read.items()]
    return FleetStatus(
        vehicles=plan.vehicles,
        tick=tick,
        simulated_s=tick * plan.step_s,
        elapsed_s=elapsed_s,
        real_time_factor=real_time_factor,
        records=sum(status.records for status in statuses),
        predictions=sum(feeder.predictions for feeder in feeders),
        predictor_backlog=sum(behind),
        prediction_latency_s=max((feeder.latency_s for feeder in feeders), default=0.0),
        prediction_latencies=sum((feeder.latencies for feeder in feeders), Latencies()),
        restarts=restarts,
        cut_bytes=sum(status.cut_bytes for status in statuses),
        sent=sum((status.sent for status in statuses), NOTHING_KEPT),
        shards=statuses,
        sinks=tuple(
            _sink_status(target.name, made, nodes, [status for status in shippers if status.sink == target.name])
            for target in plan.targets
        ),
        hot=sum(status.hot for status in statuses),
        at_risk=sum(feeder.at_risk for feeder in feeders) if plan.pool else None,
        silent=silent,
        replicas=replicas,
        waiting=waiting,
        notices=tuple(sorted({feeder.notice for feeder in feeders if feeder.notice})),
    )


def _sink_status(
    name: str,
    made: Mapping[tuple[Stream, int], int],
    nodes: Mapping[int, str],
    shippers: Sequence[ShipperStatus],
) -> SinkStatus:
    cursors = {log: cursor for status in shippers for log, cursor in status.cursors.items()}
    oldest = {log: due_ns for status in shippers for log, due_ns in status.oldest_due_ns.items()}
    return SinkStatus(
        name=name,
        logs=tuple(
            LogStatus(*log, rows, cursors.get(log, Cursor()), oldest.get(log, 0), nodes[log[1]])
            for log, rows in made.items()
        ),
        retries=sum(status.retries for status in shippers),
        latencies=sum((status.latencies for status in shippers), Latencies()),
    )


class Rate:
    """How fast something grew in the last seconds."""

    def __init__(self, window_s: float = 5.0) -> None:
        self._window_s = window_s
        self._seen: deque[tuple[float, float]] = deque()

    def at(self, now: float, value: float) -> float:
        """Add a value at `now` [s]; return its growth per second."""
        self._seen.append((now, value))
        while len(self._seen) > 2 and now - self._seen[1][0] > self._window_s:
            self._seen.popleft()
        then, was = self._seen[0]
        return (value - was) / (now - then) if now > then else 0.0
