"""Writes what a restart relies on so that it survives the death of the machine. Nothing else in the project does.

A power cut may leave any part of a file that was not synced: nothing, zeros, a piece of it. It may leave a new name
without its content, and it may lose a new name whose directory was not synced. So a content is synced before it gets
its name, and a name counts once its directory is synced. That is what these functions do, in this order.

A volume without room raises LogFull from all of them, with the old file as it was: wait, then do the same again.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_log = logging.getLogger(__name__)

_RETRY_S = 1.0
_TAIL = 64 << 20


class LogFull(OSError):
    """The volume has no room. Nothing was lost or half-written: wait, then write the same again."""


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Whatever says inside that the volume is full, or the quota, is raised as LogFull."""
    try:
        yield
    except OSError as error:
        # Arrow's C++ says it in words only.
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            raise LogFull(errno.ENOSPC, "no room on the volume; waiting for space", str(path)) from error
        raise


def when_there_is_room(write: Callable[[], None]) -> None:
    """`write`, again and again while the volume is full. The wait is logged once, with its reason."""
    told = False
    while True:
        try:
            return write()
        except LogFull as error:
            if not told:
                _log.warning("%s: %s", error.filename, error.strerror)
            told = True
            time.sleep(_RETRY_S)


def sync_file(path: Path) -> None:
    """Make what was written to a file, or the names in a directory, survive the death of the machine."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """Make a directory and its missing parents, and their names durable; nothing if it is there."""
    if path.is_dir():
        return
    make_directory(path.parent)
    with room_for(path):
        path.mkdir(exist_ok=True)
    sync_file(path.parent)


def publish(temporary: Path, path: Path) -> None:
    """Give a file that is completely written its name, in this order: its content, its name, durably."""
    sync_file(temporary)
    os.replace(temporary, path)
    sync_file(path.parent)


def replace_file(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write `path` under another name, then publish it: a power cut leaves the old file or the new one, whole.

    `content`: the bytes, or a function that writes them. A missing directory is made.
    """
    make_directory(path.parent)
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with room_for(path):
            with open(temporary, "wb") as file:
                if callable(content):
                    content(file)
                else:
                    file.write(content)
            publish(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def append_file(path: Path, content: bytes) -> None:
    """Append to a file, durably; make it if it is missing. On a failure it is as it was."""
    if not path.exists():
        replace_file(path, b"")
    with room_for(path), open(path, "ab", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        try:
            written = 0
            while written < len(content):
                written += file.write(memoryview(content)[written:])
            os.fsync(file.fileno())
        except OSError:
            file.truncate(end)
            raise


def cut_torn_line(path: Path) -> None:
    """Cut a file of lines, if there is one, after its last whole line: its writer died in the next one.

    Zeros are what a power cut leaves of bytes that were not synced, so nothing from the first one on counts. The lines
    must hold none, and one append less than `_TAIL` bytes.
    """
    if not path.exists():
        return
    with open(path, "rb+") as file:
        size = file.seek(0, os.SEEK_END)
        start = file.seek(max(0, size - _TAIL))
        tail = file.read().partition(b"\0")[0]
        end = start + tail.rfind(b"\n") + 1
        if end < size:
            file.truncate(end)


def publish_folder(temporary: Path, path: Path) -> None:
    """Give a folder that is completely filled its name, durably, with all that is in it."""
    for folder, _, files in os.walk(temporary):
        for name in files:
            sync_file(Path(folder) / name)
        sync_file(Path(folder))
    temporary.replace(path)
    sync_file(path.parent)
