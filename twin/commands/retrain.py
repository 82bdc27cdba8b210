"""`twin retrain`: the closed loop, from drift or a coverage alarm to a new champion."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from twin.errors import BadInput
from twin.options import TRACKING
from twin.settings import checked, parse_duration

EXAMPLE = "twin retrain --run runs/fleet --data histories-2 --watch --every 1h"


def retrain(
    run: Annotated[Path, typer.Option("--run", metavar="DIR", help="a run, which may be going on")],
    data: Annotated[
        Path, typer.Option("--data", metavar="DIR", help="histories to train on; made if there is no such folder")
    ],
    watch: Annotated[bool, typer.Option("--watch", help="repeat until Ctrl-C or SIGTERM")] = False,
    every: Annotated[str, typer.Option("--every", metavar="DURATION", help="time between two steps")] = "1h",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be done; no model changes")] = False,
    force: Annotated[bool, typer.Option("--force", help="train though no alarm rings, once")] = False,
    vehicles: Annotated[int, typer.Option("--vehicles", help="lives, where histories are made")] = 200,
    workers: Annotated[
        int, typer.Option("--workers", help="of Ray Train, one CPU each; 0: in this process, without Ray")
    ] = 0,
    tracking_uri: Annotated[str, TRACKING] = "",
) -> None:
    """Compare a run with the model that serves. When its inputs drift or its intervals hold too seldom, train on new
    histories, register, and promote if the gate passes: the pool then serves it. Exit code 5 if it does not."""
    every_s = checked("--every", parse_duration, every)
    if workers < 0:
        raise BadInput(f"expected --workers of at least 0, got {workers}")
    if vehicles < 1:
        raise BadInput(f"expected --vehicles of at least 1, got {vehicles}")
    from twin.loop.retrain import Loop, retrain_model

    loop = Loop(run, data, tracking_uri, vehicles, workers, typer.echo, dry_run)
    retrain_model(loop, watch=watch, every_s=every_s, force=force)
