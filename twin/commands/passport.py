"""`twin passport`: what the EU battery passport asks of one vehicle's battery."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from twin.errors import BadInput

EXAMPLE = "twin passport EV-000042 --run runs/20260601-070000"


def passport(
    vehicle: Annotated[str, typer.Argument(metavar="ID", help="a vehicle of the run, like EV-000042")],
    run: Annotated[Path, typer.Option("--run", metavar="DIR", help="run directory")],
    form: Annotated[
        Literal["batterypass", "catena-x"],
        typer.Option(help="attributes of the BatteryPass data model 1.2.1, or of Catena-X's battery_pass 6.1.0"),
    ] = "batterypass",
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="\\[default: to the terminal]")] = None,
) -> None:
    """Print the dynamic attributes of a battery passport, counted from what the vehicle has reported."""
    from twin.books.passport import batterypass, catena_x, facts_of
    from twin.run_directory import load_run

    facts = facts_of(run, load_run(run), vehicle)
    text = json.dumps(batterypass(facts) if form == "batterypass" else catena_x(facts), indent=2, allow_nan=False)
    if out is None:
        typer.echo(text)
        return
    if out.exists():
        raise BadInput(f"{out} is there already; choose another with --out")
    try:
        out.write_text(text + "\n")
    except OSError as error:
        raise BadInput(f"cannot write {out}: {error.strerror}") from None
    typer.echo(f"passport of {vehicle} in {out}")
