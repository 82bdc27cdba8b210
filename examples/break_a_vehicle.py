"""Scenario: you want to test an alarm, so you need a vehicle whose voltage sensor fails while the fleet drives.

Runs fifty vehicles for twenty minutes on Ray, breaks one after ten, and finds it in what the fleet reports.

    .venv/bin/python examples/break_a_vehicle.py [directory]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import duckdb

from twin import Fleet, Vehicle


def cells_in_series(vehicle: Vehicle) -> float:
    """How many cells the pack has in series, according to the vehicle's last record."""
    state = vehicle.state()
    return float(state["battery_voltage"] / state["cell_voltage_max"])


def main(directory: str = "") -> None:
    """Run, break, run on, ask the log."""
    out = Path(directory or tempfile.mkdtemp()) / "run"
    with Fleet(vehicles=50, seed=3, shards=1, predict=False, fault_share=0.0, out=out) as fleet:
        fleet.run("10min")
        victim = fleet.vehicle("EV-000007")
        print(f"before: {cells_in_series(victim):.2f} cells in series")
        victim.inject("voltage_offset", 5.0)  # its sensor reads 5 V too much from now on
        fleet.run("10min")
        print(f"after:  {cells_in_series(victim):.2f} cells in series")
    # When the pack's sensor begins to lie, the ratio of pack voltage to cell voltage changes.
    query = f"""
        SELECT vehicle_id, max(battery_voltage / cell_voltage_max) - min(battery_voltage / cell_voltage_max) AS change
        FROM read_parquet('{out}/telemetry/**/*.parquet') GROUP BY vehicle_id ORDER BY change DESC LIMIT 3
    """
    with duckdb.connect() as database:
        found = database.execute(query).fetchall()
    for vehicle, change in found:
        print(f"{vehicle}: its number of cells in series changed by {change:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
