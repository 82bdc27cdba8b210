"""What a run says of the model that serves: whether vehicles have become others, and whether its intervals hold.

DuckDB reads the Parquet files that the run has sealed; the run may be going on. Inputs are those that vehicles
reported. The end of life is of the truth; cycles are those that the vehicle has counted, whose gain is off by a percent
or two.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from datasets.observed import Observation
from datasets.schema import MODEL_INPUTS
from models.bundle import Bundle
from training.drift import FEWEST_VEHICLES, Coverage, Drift, coverage, drift
from twin.books.sealed import opened, read_parquet, sealed
from twin.run_directory import load_run

_MOMENTS = 24
"""Records of each vehicle that are compared with the reference, spread over the run."""


@dataclass(frozen=True)
class Observed:
    """`note`: why something could not be told; "" where it could."""

    drift: tuple[Drift, ...]
    coverage: Coverage
    note: str = ""

    @property
    def alarms(self) -> tuple[str, ...]:
        """Those that ring, with their numbers."""
        rings = [f"drift: {one}" for one in self.drift if one.rings]
        return (*rings, *([f"coverage: {self.coverage}"] if self.coverage.rings else []))

    def figures(self) -> Observation:
        """What of it the metrics of the run show."""
        told = self.coverage.vehicles >= FEWEST_VEHICLES
        return Observation(
            time.time(),
            {one.name: (one.psi, one.limit) for one in self.drift if one.psi is not None},
            self.coverage.share if told else None,
        )

    def __str__(self) -> str:
        said = [str(one) for one in self.drift] + [str(self.coverage)]
        return "; ".join(([self.note] if self.note else []) + said)


def observe(run: Path, bundle: Bundle) -> Observed:
    """Compare a run with the model that serves. BadInput where there is no run, or it cannot be read."""
    load_run(run)
    files = {name: sealed(run, name) for name in ("telemetry", "predictions", "truth")}
    if not files["telemetry"]:
        return Observed((), Coverage(None, 0, 0, 0), "no sealed telemetry yet")
    with opened(run) as database:
        for name, of in files.items():
            if of:
                database.execute(f"CREATE VIEW {name} AS SELECT * FROM {read_parquet(of, by_name=True)}")
        known = bundle.reference
        drifts = drift(known, *_moments(database, bundle)) if known else []
        holds = Coverage(None, 0, 0, 0)
        if files["predictions"] and files["truth"]:
            holds = coverage(*_predictions(database, bundle))
    note = "" if known else f"drift cannot be told: model {bundle.manifest.version} has no reference"
    return Observed(tuple(drifts), holds, note)


def _frame(database: duckdb.DuckDBPyConnection, query: str, params: list[Any]) -> pd.DataFrame:
    found: pd.DataFrame = database.sql(query, params=params).to_arrow_table().to_pandas()
    return found


def _moments(database: duckdb.DuckDBPyConnection, bundle: Bundle) -> tuple[pd.DataFrame, float]:
    """Some records of each vehicle before its end of life as it reports it, and the days that the run spans."""
    first, last = database.sql("SELECT epoch_us(min(ts)), epoch_us(max(ts)) FROM telemetry").fetchall()[0]
    span = max(last - first, 1)
    columns = ", ".join(f"'{name}': {column}" for name, column in MODEL_INPUTS.items())
    query = f"""
        WITH chosen AS (
            SELECT vehicle_id, arg_min({{{columns}}}, hash(vehicle_id, seq)) AS told
            FROM telemetry WHERE soh >= ?
            GROUP BY vehicle_id, least({_MOMENTS - 1}, (epoch_us(ts) - {first}) * {_MOMENTS} // {span})
        )
        SELECT CAST(vehicle_id AS VARCHAR) AS vehicle, told.* FROM chosen"""
    return _frame(database, query, [bundle.manifest.end_of_life_soh]), span / 86_400e6


def _predictions(database: duckdb.DuckDBPyConnection, bundle: Bundle) -> tuple[pd.DataFrame, int]:
    """This model's predictions before each end of life, with what became of the vehicle; and how many have ended.

    A vehicle may have begun the run worn: what its weakest group leaves is then taken relative to the cells' own state,
    as it was at the start.
    """
    query = """
        WITH fresh AS (SELECT vehicle_id, arg_min(soh / soh_usable, ts) AS ratio FROM truth GROUP BY vehicle_id),
        ends AS (
            SELECT vehicle_id, min(ts) AS end_ts FROM truth JOIN fresh USING (vehicle_id)
            WHERE soh_usable * ratio <= ? GROUP BY vehicle_id
        ),
        counted AS (
            SELECT vehicle_id, end_ts, max(charge_cycles) FILTER (ts <= end_ts) AS end_cycles,
                   max(charge_cycles) AS last_cycles
            FROM telemetry LEFT JOIN ends USING (vehicle_id) GROUP BY vehicle_id, end_ts
        )
        SELECT CAST(p.vehicle_id AS VARCHAR) AS vehicle, p.rul_low, p.rul_high, c.end_ts,
               c.end_cycles - t.charge_cycles AS "left", c.last_cycles - t.charge_cycles AS seen
        FROM predictions p JOIN telemetry t USING (vehicle_id, seq) JOIN counted c ON c.vehicle_id = p.vehicle_id
        WHERE p.model_version = ? AND (c.end_ts IS NULL OR p.ts < c.end_ts)"""
    found = _frame(database, query, [bundle.manifest.end_of_life_soh, bundle.manifest.version])
    ended = int(found.loc[found["end_ts"].notna(), "vehicle"].nunique())
    found.loc[found["end_ts"].isna(), "left"] = float("nan")
    return found, ended
