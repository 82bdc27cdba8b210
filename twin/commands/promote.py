"""`twin promote`: a model becomes champion if it passes the gate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from twin.options import TRACKING

EXAMPLE = "twin promote --data histories --dry-run"


def promote(
    data: Annotated[
        Path, typer.Option("--data", metavar="DIR", help="histories of vehicles that neither model was trained on")
    ],
    challenger: Annotated[
        str, typer.Option("--challenger", metavar="ALIAS|NUMBER|URI", help="a version in the registry")
    ] = "challenger",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="judge only, change nothing")] = False,
    tracking_uri: Annotated[str, TRACKING] = "",
) -> None:
    """Judge a challenger against the champion on vehicles that neither has seen. It becomes champion only if it passes;
    exit code 5 if it does not. The reason is written to the registry."""
    from twin.loop.promote import promote_model

    promote_model(data=data, challenger=challenger, dry_run=dry_run, tracking_uri=tracking_uri, say=typer.echo)
