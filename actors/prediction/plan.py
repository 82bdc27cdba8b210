"""Settings of the predictor pool and its feeders. Light to import: a feeder need not load what the pool loads."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

READER = "predictor"
"""The feeder's name beside the names of sinks: of its cursor, of its process, in what it waits for. It is on disk."""

APP_NAME = "predictor"
"""The pool's name with Ray Serve."""


@dataclass(frozen=True)
class PoolPlan:
    """`replicas`: (least, most), between which Serve scales. `token`: the bearer token of REST callers, if any."""

    bundle: Path
    replicas: tuple[int, int] = (1, 2)
    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class FeederPlan:
    """The logs of one node. `first_rows`: by shard, how many rows of telemetry and of predictions precede its logs, if
    these are new. `accept_loss`: telemetry that the log does not hold any more is passed; else its shard waits."""

    run_dir: Path
    first_rows: dict[int, tuple[int, int]]
    telemetry_ticks: int
    predict_ticks: int
    segment_bytes: int
    accept_loss: bool = False
