"""Writes files whole or not at all and, where asked, so that they survive the death of the machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def sync_file(path: Path) -> None:
    """Make what was written to a file, or the names in a directory, survive the death of the machine."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes | Callable[[BinaryIO], object], *, sync: bool = False) -> None:
    """Write `path` under another name, then rename: a crash leaves the old file or the new one.

    `content`: the bytes, or a function that writes them. `sync`: the bytes reach the disk before the name does. A
    missing directory is created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
