"""`twin predict`: a model's answers about a file of records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from twin.errors import BadInput
from twin.options import TRACKING

EXAMPLE = "twin predict records.csv"


def predict(
    file: Annotated[Path, typer.Argument(help="CSV or Parquet with the seven inputs, by our names or the reference's")],
    model: Annotated[
        str | None, typer.Option("--model", metavar="URI_OR_DIR", help="a bundle \\[default: the bundled one]")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="CSV or Parquet \\[default: <name>-predicted beside it]"),
    ] = None,
    tracking_uri: Annotated[str, TRACKING] = "",
) -> None:
    """Add remaining life with its interval, failure probability and its likeliest kind to each row of a file."""
    from datasets.table_file import DataError, read_table
    from models.bundle import Bundle, BundleError
    from models.table import TableError, predicted
    from twin.show.model_study import local_bundle

    target = out or file.with_name(f"{file.stem}-predicted{file.suffix}")
    if target.suffix not in (".csv", ".parquet"):
        raise BadInput(f"expected --out to end in .csv or .parquet, got {target}")
    if target.exists():
        raise BadInput(f"{target} is there already; choose another with --out")
    try:
        table = read_table(file)
        told = predicted(Bundle.load(local_bundle(model, tracking_uri)), table)
    except TableError as error:
        raise BadInput(f"{file}: {error}") from None
    except (DataError, BundleError) as error:
        raise BadInput(str(error)) from None
    temporary = target.with_name(f".{target.name}.part")
    try:
        if target.suffix == ".parquet":
            told.to_parquet(temporary, index=False)
        else:
            told.to_csv(temporary, index=False)
        temporary.rename(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise BadInput(f"cannot write {target}: {error.strerror}") from None
    typer.echo(f"{len(told):,} rows in {target}")
