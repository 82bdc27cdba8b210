"""Scenario: a run is on disk, and you want to know which vehicles got hottest and what they did at that moment.

Reads the Parquet files of a run with DuckDB. Any other tool that reads Parquet works too.

    .venv/bin/twin run --vehicles 200 --duration 2h --no-predict --out runs/hot
    .venv/bin/python examples/hottest_vehicles.py runs/hot
"""

from __future__ import annotations

import sys

import duckdb


def main(directory: str) -> None:
    """Print the five hottest vehicles, hottest first."""
    query = """
        SELECT vehicle_id, max(battery_temperature) AS hottest, arg_max(mode, battery_temperature) AS mode,
               arg_max(CAST(ts AS TIMESTAMP), battery_temperature) AS at, any_value(fault) AS fault
        FROM read_parquet(? || '/telemetry/**/*.parquet', hive_partitioning = false)
        JOIN (SELECT vehicle_id, fault FROM read_parquet(? || '/truth/*.parquet', hive_partitioning = false))
        USING (vehicle_id)
        GROUP BY vehicle_id ORDER BY hottest DESC, vehicle_id LIMIT 5
    """
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        for vehicle, hottest, mode, at, fault in database.execute(query, [directory, directory]).fetchall():
            print(f"{vehicle}: {hottest:.1f} degC while {mode} at {at:%Y-%m-%d %H:%M}, fault: {fault}")


if __name__ == "__main__":
    main(*sys.argv[1:])
