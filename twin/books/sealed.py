"""The sealed segments of a run, for SQL: any number of vehicles and days, without a server."""

from __future__ import annotations

from pathlib import Path

from datasets.names import Stream


def sealed(run: Path, stream: Stream) -> list[Path]:
    """The Parquet files of a stream, of all shards."""
    return sorted((run / stream).glob("**/*.parquet"))


def read_parquet(files: list[Path]) -> str:
    """SQL: the rows of these files. They are named one by one, because a run's path may hold the characters of a
    pattern; and a folder `name=value` on the way is no column."""
    names = ", ".join(quoted(str(file.absolute())) for file in files)
    return f"read_parquet([{names}], hive_partitioning = false)"


def quoted(text: str) -> str:
    """SQL: a text."""
    return "'" + text.replace("'", "''") + "'"
