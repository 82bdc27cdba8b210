"""The sealed segments of a run, for SQL: any number of vehicles and days, without a server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from twin.errors import BadInput


def sealed(run: Path, kind: str) -> list[Path]:
    """The Parquet files of a stream, or of the truth, of all shards."""
    return sorted((run / kind).glob("**/*.parquet"))


def some_sealed(run: Path, kind: str) -> list[Path]:
    """As `sealed`. BadInput where there are none."""
    if files := sealed(run, kind):
        return files
    never = "; with --no-predict there are none" if kind == "predictions" else ""
    raise BadInput(f"{run} holds no sealed {kind} yet; let the run end, or stop it with Ctrl-C, first{never}")


@contextmanager
def opened(run: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in memory, in UTC, to read these files with. BadInput, in one line, where one cannot be read."""
    try:
        with duckdb.connect() as database:
            database.execute("SET TimeZone = 'UTC'")
            yield database
    except duckdb.Error as error:
        raise BadInput(f"cannot read {run}: {' '.join(str(error).split())[:200]}") from error


def read_parquet(files: list[Path], *, by_name: bool = False) -> str:
    """SQL: the rows of these files. They are named one by one, because a run's path may hold the characters of a
    pattern; and a folder `name=value` on the way is no column. `by_name`: they may have different columns."""
    names = ", ".join(quoted(str(file.absolute())) for file in files)
    union = ", union_by_name = true" if by_name else ""
    return f"read_parquet([{names}], hive_partitioning = false{union})"


def quoted(text: str) -> str:
    """SQL: a text."""
    return "'" + text.replace("'", "''") + "'"
