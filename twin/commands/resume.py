"""`twin resume`: go on with a run that was stopped or killed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from twin.commands.run import Quiet, Report, run_to_its_end
from twin.options import takes
from twin.settings import ADDRESSES, RUN_GROUPS, Given

EXAMPLE = "twin resume runs/2026-11-24T20-41-38 --duration 12h"

# Settings that decide neither the records nor where their log is.
_CHANGEABLE = (
    "duration", "pace", *ADDRESSES, "accept_loss", "drain_timeout", "bundle", "predictor_model",
    "tracking_uri", "rest_port", "address", "metrics_port", "tls_cert", "tls_key", "log_format", "log_level",
)  # fmt: skip


@takes(*RUN_GROUPS, only=_CHANGEABLE, kept=True, config=False)
def resume(
    directory: Annotated[Path, typer.Argument(help="the directory of a run that was stopped or killed")],
    *,
    quiet: Quiet = False,
    report: Report = True,
    given: Given,
) -> None:
    """Continue a run from its checkpoint, make the records it would have made, and deliver what is pending."""
    from twin.fleet import Fleet

    raise typer.Exit(run_to_its_end(Fleet.resume(directory, given.flags), quiet=quiet, report=report))
