"""What a power cut may leave of a folder. A model, and a recorder of what was done to the folder.

Contents: what was synced is there. Of what was written since, each sector is there or not: overwritten bytes are the
old or the new ones; appended bytes are there, or zeros, or missing together with all behind them.

Names: what was made, renamed or removed in one directory reaches the disk in that order. How far it came at a power cut
is anybody's guess beyond the last sync of that directory. It is independent of the contents and of other directories.
"""

from __future__ import annotations

import builtins
import io
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Literal, Protocol

import pytest

_SECTOR = 512


@dataclass
class _File:
    """The contents of a file over time: (moment, content, whether it was synced then)."""

    versions: list[tuple[int, bytes, bool]] = field(default_factory=list)

    def synced(self, moment: int) -> bytes:
        return next((c for at, c, sync in reversed(self.versions) if sync and at <= moment), b"")

    def written(self, moment: int) -> bytes:
        return next((c for at, c, _ in reversed(self.versions) if at <= moment), b"")


@dataclass
class _Directory:
    """The changes of a directory's names over time, as (moment, {name: number of the file, or None}), and its syncs."""

    changes: list[tuple[int, dict[str, int | None]]] = field(default_factory=list)
    syncs: list[int] = field(default_factory=list)

    def least(self, moment: int) -> int:
        """How many changes are surely on the disk."""
        since = max((at for at in self.syncs if at <= moment), default=-1)
        return sum(at <= since for at, _ in self.changes)

    def most(self, moment: int) -> int:
        return sum(at <= moment for at, _ in self.changes)

    def names(self, many: int) -> dict[str, int]:
        found: dict[str, int] = {}
        for _, change in self.changes[:many]:
            for name, number in change.items():
                found.pop(name, None)
                if number is not None:
                    found[name] = number
        return found


class Loss(Protocol):
    """What a power cut does: how far the names of a directory came, and what is left of a content."""

    def names(self, least: int, most: int) -> int: ...

    def content(self, synced: bytes, written: bytes) -> bytes: ...


@dataclass(frozen=True)
class Extreme:
    """All names or only the synced ones; contents `written` or `synced`, or `zeros` or `torn` at a share of it."""

    all_names: bool
    contents: Literal["written", "synced", "zeros", "torn"]
    share: float = 0.0

    def names(self, least: int, most: int) -> int:
        return most if self.all_names else least

    def content(self, synced: bytes, written: bytes) -> bytes:
        if self.contents == "zeros":
            return synced[: len(written)].ljust(len(written), b"\0")
        if self.contents == "torn":
            same = next((n for n, (a, b) in enumerate(zip(synced, written, strict=False)) if a != b), len(synced))
            cut = same + int(self.share * (len(written) - same))
            return written[:cut] + synced[cut:]
        return written if self.contents == "written" else synced


@dataclass(frozen=True)
class Anything:
    """Every directory and every sector for itself."""

    chance: Random

    def names(self, least: int, most: int) -> int:
        return self.chance.randint(least, most)

    def content(self, synced: bytes, written: bytes) -> bytes:
        size = self.chance.choice((len(written), self.chance.randint(min(len(synced), len(written)), len(written))))
        sectors = []
        for at in range(0, size, _SECTOR):
            old = synced[at : at + _SECTOR].ljust(min(_SECTOR, size - at), b"\0")[: size - at]
            sectors.append(self.chance.choice((old, written[at : min(at + _SECTOR, size)])))
        return b"".join(sectors)


class Recorder:
    """Records what happens in a folder while `recording`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.RLock()
        self._files: dict[int, _File] = {}
        self._directories: dict[int, _Directory] = {}
        self._known: dict[int, dict[str, int]] = {}
        self._numbers: dict[int, int] = {}
        self._next = itertools.count()
        self._top = self._number_of(root.stat().st_ino, new=True)
        self.moment = 0

    @contextmanager
    def recording(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Every call of Python that writes, names or syncs something is a moment. Arrow's own writes are seen at the
        next one."""
        with monkeypatch.context() as patch:
            for name in ("open", "write", "pwrite", "ftruncate", "truncate", "replace", "rename", "unlink", "mkdir"):
                patch.setattr(os, name, self._moment(getattr(os, name)))
            opened = self._moment(builtins.open)
            patch.setattr(builtins, "open", opened)
            patch.setattr(io, "open", opened)
            patch.setattr(os, "fsync", self._syncing(os.fsync))
            self._look()
            yield
            self._look()

    def _moment(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def recorded(*arguments: Any, **named: Any) -> Any:
            with self._lock:
                self._look()
                try:
                    return call(*arguments, **named)
                finally:
                    self._look()

        return recorded

    def _syncing(self, fsync: Callable[[int], None]) -> Callable[[int], None]:
        def recorded(descriptor: int) -> None:
            with self._lock:
                self._look()
                fsync(descriptor)
                self.moment += 1
                number = self._numbers.get(os.fstat(descriptor).st_ino)
                if number in self._directories:
                    self._directories[number].syncs.append(self.moment)
                elif number in self._files:
                    file = self._files[number]
                    file.versions.append((self.moment, file.written(self.moment), True))

        return recorded

    def _number_of(self, inode: int, *, new: bool) -> int:
        """Our own number for a file, because a file system gives the inode of a removed one to the next."""
        if new or inode not in self._numbers:
            self._numbers[inode] = next(self._next)
        return self._numbers[inode]

    def _look(self) -> None:
        with self._lock:
            self._look_at(str(self._root), self._top)

    def _look_at(self, path: str, number: int) -> None:
        directory = self._directories.setdefault(number, _Directory())
        known = self._known.setdefault(number, {})
        entries = {entry.name: entry for entry in os.scandir(path) if entry.name != ".lock"}
        now = {
            name: self._number_of(entry.inode(), new=self._numbers.get(entry.inode()) not in known.values())
            for name, entry in entries.items()
        }
        change: dict[str, int | None] = {name: None for name in known if name not in now}
        change |= {name: child for name, child in now.items() if known.get(name) != child}
        if change:
            self.moment += 1
            directory.changes.append((self.moment, change))
            self._known[number] = now
        for name, entry in entries.items():
            if entry.is_dir():
                self._look_at(entry.path, now[name])
            else:
                self._look_into(entry.path, now[name])

    def _look_into(self, path: str, number: int) -> None:
        file = self._files.setdefault(number, _File())
        descriptor = _open(path, os.O_RDONLY)
        try:
            content = _pread(descriptor, os.fstat(descriptor).st_size, 0)
        finally:
            os.close(descriptor)
        if content != file.written(self.moment):
            self.moment += 1
            file.versions.append((self.moment, content, False))

    def state(self, moment: int, loss: Loss) -> dict[str, bytes | None]:
        """What a power cut at that moment leaves: content by path, None for a directory."""
        left: dict[str, bytes | None] = {}
        self._left("", self._top, moment, loss, left)
        return left

    def _left(self, path: str, number: int, moment: int, loss: Loss, left: dict[str, bytes | None]) -> None:
        directory = self._directories[number]
        many = loss.names(directory.least(moment), directory.most(moment))
        for name, child in directory.names(many).items():
            if child in self._directories:
                left[path + name] = None
                self._left(f"{path}{name}/", child, moment, loss, left)
            else:
                file = self._files[child]
                left[path + name] = loss.content(file.synced(moment), file.written(moment))


_open, _pread = os.open, os.pread


def lay_out(state: dict[str, bytes | None], folder: Path) -> None:
    """Make a folder that holds what a power cut has left."""
    folder.mkdir()
    for path, content in state.items():
        if content is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(content)
