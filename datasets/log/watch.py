"""Waits until files in some directories change: by inotify on Linux, by polling elsewhere."""

from __future__ import annotations

import ctypes
import os
import select
import sys
import time
from collections.abc import Iterable
from pathlib import Path

_MODIFY, _MOVED_TO, _CREATE = 0x2, 0x80, 0x100
_LOOK_S = 0.01  # polling period where there is no inotify


class Watch:
    """`wait` returns soon after something was written in one of the directories, or when the time is up.

    It may return without a reason. A change between two waits is not missed: the next wait returns at once.
    """

    def __init__(self, directories: Iterable[Path]) -> None:
        self._missing = list(directories)
        self._fd = -1
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)

    def wait(self, timeout_s: float) -> None:
        """Sleep until there is something new, at most `timeout_s`."""
        if self._fd < 0:
            time.sleep(min(timeout_s, _LOOK_S))
            return
        self._missing = [directory for directory in self._missing if not self._added(directory)]
        for directory in self._missing:  # its creation shows in the nearest existing parent
            next(parent for parent in directory.parents if self._added(parent))
        if select.select([self._fd], [], [], timeout_s)[0]:
            os.read(self._fd, 1 << 16)

    def _added(self, directory: Path) -> bool:
        mask = _MODIFY | _MOVED_TO | _CREATE
        return bool(self._libc.inotify_add_watch(self._fd, os.fsencode(directory), mask) >= 0)

    def close(self) -> None:
        """Close the inotify queue."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
