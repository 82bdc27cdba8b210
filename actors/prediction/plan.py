"""Settings of the predictor pool and its feeders. Light to import: a feeder need not load what the pool loads."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

READER = "predictor"
"""The feeder's name beside the names of sinks: of its cursor, of its process, in what it waits for. It is on disk."""

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class PoolPlan:
    """`name`: with Serve, of this run only. `replicas`: (least, most), between which Serve scales. `token`: the bearer
    token of REST callers, if any. `shared`: the cluster outlives the run, and others may have pools on it."""

    name: str
    bundle: Path
    replicas: tuple[int, int] = (1, 2)
    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = field(default=None, repr=False)
    shared: bool = False

    @property
    def route(self) -> str:
        """What comes before `/predict` in the REST address. Serve of one cluster has one port for all."""
        return f"/{self.name}" if self.shared else "/"


def pool_name(log_id: str) -> str:
    """The name of a run's pool with Serve."""
    return f"predictor-{log_id}"


@dataclass(frozen=True)
class FeederPlan:
    """The logs of one node. `first_rows`: by shard, how many rows of telemetry and of predictions precede its logs, if
    these are new. `pool`: its name with Serve. `accept_loss`: telemetry that the log does not hold any more is passed;
    else its shard waits."""

    run_dir: Path
    first_rows: dict[int, tuple[int, int]]
    telemetry_ticks: int
    predict_ticks: int
    segment_bytes: int
    pool: str
    accept_loss: bool = False
