"""`twin export`: the records of a run as one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from datasets.names import Stream
from twin.errors import BadInput

EXAMPLE = "twin export runs/20260601-070000 --to csv --vehicle EV-000042"

Form = Literal["csv", "parquet", "reference"]


def export(
    run: Annotated[Path, typer.Argument(help="run directory")],
    to: Annotated[
        Form, typer.Option("--to", help="CSV or Parquet with our columns, or CSV with the reference data set's names")
    ] = "csv",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="\\[default: RUN/<stream>.csv or .parquet]")
    ] = None,
    stream: Annotated[Stream, typer.Option(help="telemetry or predictions")] = "telemetry",
    vehicle: Annotated[str, typer.Option(metavar="ID", help="only this vehicle, like EV-000042")] = "",
) -> None:
    """Write what a run has sealed so far to one file, in order of time."""
    from datasets.schema import vehicle_index
    from twin.books.export import export_run
    from twin.run_directory import load_run

    load_run(run)
    if vehicle:
        try:
            vehicle_index(vehicle)
        except ValueError as error:
            raise BadInput(f"--vehicle: {error}") from None
    if to == "reference" and stream != "telemetry":
        raise BadInput("--to reference has telemetry with its predictions beside it: expected no --stream predictions")
    suffix = ".parquet" if to == "parquet" else ".csv"
    name = "reference" if to == "reference" else stream
    target = out or run / f"{name}{f'-{vehicle}' if vehicle else ''}{suffix}"
    if target.exists():
        raise BadInput(f"{target} is there already; choose another with --out")
    rows, growing = export_run(run, target, to, stream, vehicle)
    left = f"; {growing} segments still grow and are left out until the run ends" if growing else ""
    typer.echo(f"{rows:,} rows in {target}{left}")
