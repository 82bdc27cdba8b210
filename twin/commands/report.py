"""`twin report`: the page of a run, made anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "twin report runs/2026-11-24T20-41-38"


def report(directory: Annotated[Path, typer.Argument(help="a run directory")]) -> None:
    """Write DIRECTORY/report.html from what a run left on disk."""
    from twin.show.report import write_report

    typer.echo(str(write_report(directory)))
