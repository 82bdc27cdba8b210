"""Settings of the predictor pool and its feeders. Light to import: a feeder need not load what the pool loads."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from actors.traces import TracePlan

READER = "predictor"
"""The feeder's name beside the names of sinks: of its cursor, of its process, in what it waits for. It is on disk."""

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class ModelPlan:
    """A model that is in a registry. `uri`: which, as `models.registry` takes it. `tracking_uri`: of the registry.
    `cache`: where its bundles are kept, on each node. `fallback`: the folder of the bundle used before there is one.
    `poll_s`: how often the registry is asked whether `uri` stands for another version."""

    uri: str
    tracking_uri: str = field(repr=False)
    cache: Path
    fallback: Path
    poll_s: float = 10.0


@dataclass(frozen=True)
class PoolPlan:
    """`name`: with Serve, of this run only. `bundle`: the model's folder, where `model` does not say that it is in a
    registry. `replicas`: (least, most), between which Serve scales. `queue`: most requests that wait for a replica;
    REST callers beyond them are told to come again. `token`: the bearer token of REST callers, if any. `tls`: the
    files of REST's certificate and its key, on every node. `rate`: most requests a second that a replica takes
    of one address. `shared`: the cluster outlives the run, and others may have pools on it."""

    name: str
    bundle: Path
    model: ModelPlan | None = None
    replicas: tuple[int, int] = (1, 2)
    queue: int = 128
    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = field(default=None, repr=False)
    tls: tuple[str, str] | None = None
    rate: int | None = None
    shared: bool = False

    @property
    def route(self) -> str:
        """What comes before `/predict` in the REST address. Serve of one cluster has one port for all."""
        return f"/{self.name}" if self.shared else "/"


@dataclass(frozen=True)
class Known:
    """What a feeder knows of a vehicle: its newest record that was to be predicted, by number and time [us since 1970],
    and the model's inputs then, shape (len(FEATURES),)."""

    seq: int
    ts_us: int
    inputs: npt.NDArray[np.float32]


NAMESPACE = "ev-battery-fleet"
"""Of the names of our actors with Ray."""


def feeders_of(pool: str) -> str:
    """What the names of a pool's feeders begin with."""
    return f"{pool}-feeder-"


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
    start_s: int
    step_s: float
    segment_bytes: int
    pool: str
    accept_loss: bool = False
    traces: TracePlan | None = None
