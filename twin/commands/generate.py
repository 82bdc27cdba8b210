"""`twin generate`: whole lives of vehicles, to train with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from twin.errors import BadInput, RunFailed

EXAMPLE = "twin generate --vehicles 2000 --years eol --out histories"


def generate(
    vehicles: Annotated[int, typer.Option("--vehicles", help="how many lives")] = 200,
    years: Annotated[
        str, typer.Option("--years", metavar="YEARS|eol", help="how long; eol: until 85 % of the vehicles have ended")
    ] = "eol",
    seed: Annotated[int, typer.Option("--seed", help="of all that is drawn")] = 1,
    enrich: Annotated[
        str | None, typer.Option("--enrich", metavar="faults", help="faults: half of the vehicles get one in ten years")
    ] = None,
    sensors: Annotated[str, typer.Option("--sensors", metavar="ideal|typical|poor", help="their profile")] = "typical",
    end_soh: Annotated[float, typer.Option("--end-soh", help="state of health at which a life ends")] = 0.8,
    first_vehicle: Annotated[int, typer.Option("--first-vehicle", help="index of the first one")] = 0,
    workers: Annotated[
        int | None, typer.Option("--workers", help="parts simulated at a time \\[default: one a CPU]")
    ] = None,
    address: Annotated[
        str | None, typer.Option("--address", metavar="ADDRESS", help="Ray cluster; its nodes must all see --out")
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="new folder, or one to go on with")] = Path(
        "histories"
    ),
) -> None:
    """Simulate lives of vehicles from new to their end: what they reported, and the truth apart. Killed, it goes on
    where it was when told the same again."""
    from training.histories import ENRICHED_SHARE, HistoryError, Plan
    from training.histories import generate as make
    from twin.fleet import expect_cluster

    if enrich not in (None, "faults"):
        raise BadInput(f"expected --enrich faults, got {enrich!r}")
    if workers is not None and workers < 1:
        raise BadInput(f"expected --workers of at least 1, got {workers}")
    try:
        long = None if years == "eol" else float(years)
    except ValueError:
        raise BadInput(f"expected --years such as 12, or eol, got {years!r}") from None
    try:
        plan = Plan(
            vehicles=vehicles,
            years=long,
            seed=seed,
            fault_share=ENRICHED_SHARE if enrich else None,
            sensors=sensors,
            end_soh=end_soh,
            first_vehicle=first_vehicle,
        )
        expect_cluster(address)
        made = make(out, plan, workers=workers, address=address, say=typer.echo)
    except HistoryError as error:
        raise BadInput(str(error)) from None
    except (ConnectionError, OSError) as error:
        raise RunFailed(" ".join(str(error).split())[:300]) from error
    typer.echo(f"{made.plan.vehicles} lives in {out}; {out}/card.md says what they are")
