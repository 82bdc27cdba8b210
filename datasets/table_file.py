"""A table of measurements from a CSV or Parquet file. Whatever is wrong with the file is one line (`DataError`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd


class DataError(ValueError):
    """A file of measurements that is not there, or not what it should be: what was expected, what came."""


def read_table(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """A table's columns, all or those named. Parquet where the name ends in .parquet, else CSV with names in line 1."""
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
        else:
            table = pd.read_csv(path, encoding="utf-8-sig", skipinitialspace=True, low_memory=False)
    except OSError as error:
        raise DataError(f"{path}: cannot read it: {error.strerror or ' '.join(str(error).split())[:100]}") from None
    except (ValueError, UnicodeDecodeError, pd.errors.ParserError):  # Arrow's errors are ValueErrors
        raise DataError(f"{path}: expected a CSV file with a line of column names, or Parquet (.parquet)") from None
    if columns is None:
        return table
    if missing := [name for name in columns if name not in table]:
        raise DataError(f"{path}: expected the columns {', '.join(missing)}; there are {', '.join(map(str, table))}")
    return table[list(columns)]
