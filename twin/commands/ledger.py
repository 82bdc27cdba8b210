"""`twin ledger`: the books of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from twin.errors import Different
from twin.options import takes
from twin.say import say
from twin.settings import ADDRESSES, Given, Servers

EXAMPLE = "twin ledger runs/2026-11-24T20-41-38 --verify --archive archive"


@takes(Servers, only=ADDRESSES, kept=True, config=False)
def ledger(
    directory: Annotated[Path, typer.Argument(help="a run directory")],
    *,
    verify: Annotated[
        bool, typer.Option("--verify", help="count per vehicle what log, broker, database and MQTT archive really hold")
    ] = False,
    archive: Annotated[Path | None, typer.Option(help="folder that `twin archive` wrote during the run")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    given: Given,
) -> None:
    """Count records produced, delivered and pending per sink. With --verify: exit code 4 if anything differs."""
    from twin.books import ledger as books_of

    books = books_of.Books(directory, given.flags)
    found = books_of.verify(books, archive, say=say) if verify else books.ledger()
    typer.echo(json.dumps(books_of.as_json(found), indent=2) if as_json else books_of.table(found))
    if verify and not found.complete:
        raise Different(books_of.verdict(found))
