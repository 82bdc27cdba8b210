"""A result folder appears whole or not at all: it is filled under another name and renamed at the end."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from twin.errors import BadInput


def result_folder(out: Path | None, what: str) -> Path:
    """Where results go: `out`, or runs/<what>-<time>. BadInput where that is taken or cannot be written."""
    folder = out or Path("runs") / f"{what}-{time.strftime('%Y-%m-%dT%H-%M-%S')}"
    folder = folder.expanduser().absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"--out: expected a new or empty directory, {folder} already holds something; choose another")
    parent = next(path for path in folder.parents if path.exists())
    if not os.access(parent, os.W_OK | os.X_OK) or not parent.is_dir():
        raise BadInput(f"--out: cannot write to {parent}; choose a directory you may write to")
    return folder


@contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, which takes its place when the body ends without an error."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise BadInput(f"--out: cannot write to {folder.parent}: {error.strerror}") from error
    try:
        yield temporary
        temporary.chmod(0o755)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
