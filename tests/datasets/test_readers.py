"""What others read of a run: pandas, polars, DuckDB and Spark take its folders as they are, and join them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.fleet.plan import PopulationPlan, ShardPlan, vehicle_ranges
from actors.fleet.shard import Shard
from datasets.log import LogWriter, log_directory
from datasets.names import STREAMS
from tests.services.fixtures import unavailable
from tests.support import make_batch, records

VEHICLES, SHARDS, RECORDS = 7, 2, 60


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As a fleet leaves it: two shards, telemetry, predictions, truth."""
    folder = tmp_path_factory.mktemp("read") / "run"
    folder.mkdir()
    for number, (first, count) in enumerate(vehicle_ranges(VEHICLES, SHARDS)):
        plan = ShardPlan(
            run_dir=folder,
            run_id="run-read",
            shard=number,
            first_vehicle=first,
            vehicles=count,
            population=PopulationPlan(1, (("chen2020", 1.0),), None, 10.0, 0.5),
            start_s=1_780_300_800,
            step_s=1.0,
            telemetry_ticks=2,
            checkpoint_ticks=60,
        )
        shard = Shard(plan)
        shard.advance(2 * RECORDS)
        shard.close()
        log = LogWriter(log_directory(folder, "predictions", number))
        log.append(make_batch(count, range(20), stream="predictions", first_vehicle=first, run_id="run-read"), 1)
        log.close()
    return folder


Read = Callable[[Path], list[tuple[Any, ...]]]


def by_pandas(run: Path) -> list[tuple[Any, ...]]:
    telemetry, predictions, truth = (pd.read_parquet(run / name) for name in (*STREAMS, "truth"))
    truth = truth.drop(columns=["run_id"]).merge(truth.groupby("vehicle_id", observed=True)["ts"].max().reset_index())
    both = telemetry.merge(truth.drop(columns=["ts"]), on="vehicle_id", suffixes=("", "_really")).merge(
        predictions, on=["run_id", "vehicle_id", "seq"], how="left"
    )
    groups = both.groupby("vehicle_id", observed=True)
    found = groups.agg(n=("seq", "count"), p=("rul", "count"), lli=("lli", "max"), v=("battery_voltage", "max"))
    return list(found.sort_index().itertuples(name=None))


def by_polars(run: Path) -> list[tuple[Any, ...]]:
    import polars as pl

    telemetry, predictions, truth = (pl.read_parquet(run / name) for name in (*STREAMS, "truth"))
    truth = truth.filter(pl.col("ts") == pl.col("ts").max())
    both = telemetry.join(truth, on="vehicle_id", suffix="_really")
    both = both.join(predictions, on=["run_id", "vehicle_id", "seq"], how="left")
    found = both.group_by("vehicle_id").agg(
        pl.col("seq").count(), pl.col("rul").count(), pl.col("lli").max(), pl.col("battery_voltage").max()
    )
    return sorted(found.rows())


JOINED = """
    SELECT vehicle_id, count(seq), count(rul), max(lli), max(battery_voltage)
    FROM telemetry LEFT JOIN predictions USING (run_id, vehicle_id, seq)
    JOIN (SELECT vehicle_id, lli FROM truth WHERE ts = (SELECT max(ts) FROM truth)) USING (vehicle_id)
    GROUP BY vehicle_id ORDER BY vehicle_id
"""


def by_duckdb(run: Path) -> list[tuple[Any, ...]]:
    with duckdb.connect() as database:
        for name in (*STREAMS, "truth"):
            database.execute(f"CREATE VIEW {name} AS FROM '{run}/{name}/**/*.parquet'")
        return list(database.sql(JOINED).fetchall())


def by_spark(run: Path) -> list[tuple[Any, ...]]:
    spark = _spark()
    try:
        for name in (*STREAMS, "truth"):
            spark.read.parquet(f"{run}/{name}").createOrReplaceTempView(name)
        return [tuple(row) for row in spark.sql(JOINED).collect()]
    finally:
        spark.stop()


def _spark() -> Any:
    if shutil.which("java") is None:
        unavailable("Spark needs Java; install it with: apt-get install default-jre-headless")
    from pyspark.sql import SparkSession

    builder: Any = SparkSession.builder
    return (
        builder.master("local[1]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.sql.shuffle.partitions", "1")
        .getOrCreate()
    )


@pytest.mark.parametrize("read", [by_pandas, by_polars, by_duckdb, by_spark])
def test_a_run_is_read_and_joined(read: Read, run: Path) -> None:
    telemetry, truth = records(run), pq.read_table(run / "truth")
    truth = truth.sort_by("ts")  # the last of each vehicle
    lost = dict(zip(truth.column("vehicle_id").to_pylist(), truth.column("lli").to_pylist(), strict=True))
    highest = telemetry.group_by("vehicle_id").aggregate([("battery_voltage", "max")])
    voltage = dict(zip(*(column.to_pylist() for column in highest.columns), strict=True))
    names = [f"EV-{number:06d}" for number in range(VEHICLES)]
    assert [tuple(row) for row in read(run)] == [(n, RECORDS, 20, lost[n], voltage[n]) for n in names]


def test_a_column_has_one_type_in_every_file(run: Path) -> None:
    types: dict[str, set[pa.DataType]] = {}
    files = sorted(run.glob("**/*.parquet"))
    assert {file.relative_to(run).parts[0] for file in files} == {*STREAMS, "truth"}
    for file in files:
        for field in pq.read_schema(file):
            types.setdefault(field.name, set()).add(field.type)
    assert {name: found for name, found in types.items() if len(found) > 1} == {}
