"""What one reader of a log remembers: how far it has got, and the records that its peer rejected individually.

RUN/cursors/<reader>/<stream>-shard-0000.json           two lines: the last two cursors saved, each with its CRC-32C
RUN/dead-letters/<reader>/<stream>-shard-0000.jsonl     one JSON object per line: position, id, reason, payload

A cursor is saved for every delivered batch, too often for a disk round trip. So its file is synced once, when it is
made, and then written in place: the older of its two lines, each a sector of its own. That needs no room, so a full
disk does not stop a sink, and there is no new name that a power cut could leave without its content. A power cut leaves
lines of some moment before it, or one of them torn; the other one counts. An old cursor is harmless, since records come
twice; one ahead of a log that lost its unsynced end too, since the log makes the same records again. Before retention
drops what a cursor has passed, it syncs the cursor.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import crc32c
import pyarrow as pa

from datasets.codec import encode_json
from datasets.log.durable import append_file, cut_torn_line, replace_file, room_for, sync_file
from datasets.schema import Stream

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cursor:
    """`position` counts the rows dealt with. Of these the peer already had `duplicates`; `dead` are dead letters;
    `lost` were not in the log any more, the last of them before row `lost_until`. The last `unsettled` were
    acknowledged so lately that a dying peer may forget them."""

    position: int = 0
    duplicates: int = 0
    dead: int = 0
    lost: int = 0
    lost_until: int = 0
    unsettled: int = 0

    @property
    def delivered(self) -> int:
        """Rows that the peer has acknowledged."""
        return self.position - self.dead - self.lost


_SLOT = 512  # bytes of a line: no disk writes less than a sector, so a torn one never harms the other


class CursorFile:
    """The cursor of one sink on one log. A missing file means the beginning, and so does one that cannot be read."""

    def __init__(self, run: Path, reader: str, stream: str, shard: int) -> None:
        self.path = run / "cursors" / reader / f"{stream}-shard-{shard:04d}.json"

    def load(self) -> Cursor:
        """What was saved last, as far as it can be read."""
        return self._newest()[1] or Cursor()

    def exists(self) -> bool:
        """Whether a cursor was saved that can be read."""
        return self._newest()[1] is not None

    def saves(self) -> int:
        """How often it was saved."""
        return self._newest()[0]

    def save(self, cursor: Cursor) -> None:
        """Save the cursor; a crash leaves this one or an earlier one. LogFull at most for the first one of a file."""
        number, _, oldest = self._newest()
        line = _encoded(cursor, number + 1)
        if oldest is None:
            replace_file(self.path, line + b" " * (_SLOT - 1) + b"\n")
            return
        with room_for(self.path), open(self.path, "r+b", buffering=0) as file:
            file.seek(oldest * _SLOT)
            file.write(line)

    def sync(self) -> None:
        """Make what was saved last survive the death of the machine."""
        if self.path.exists():
            sync_file(self.path)

    def _newest(self) -> tuple[int, Cursor | None, int | None]:
        """Number of the last save, its cursor, and which of the two lines is older (None: there are no two)."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return 0, None, None
        lines = [_decoded(content[at : at + _SLOT]) for at in range(0, len(content), _SLOT)]
        if len(content) == 2 * _SLOT and any(lines):
            (first, cursor), (second, other) = (line or (0, None) for line in lines)
            return (first, cursor, 1) if first > second else (second, other, 0)
        if len(content) != 2 * _SLOT and (old := _decoded_old(content)) is not None:
            return 0, old, None
        _log.warning("%s cannot be read; its log is delivered again from its beginning", self.path)
        return 0, None, None


def _encoded(cursor: Cursor, number: int) -> bytes:
    text = json.dumps(asdict(cursor) | {"saved": number}).encode()
    line = b"%s %08x" % (text, crc32c.crc32c(text))
    assert len(line) < _SLOT
    return line.ljust(_SLOT - 1) + b"\n"


def _decoded(line: bytes) -> tuple[int, Cursor] | None:
    """(number of the save, cursor); None if the line is empty or torn."""
    text, _, checksum = line.strip().rpartition(b" ")
    if not text or checksum != b"%08x" % crc32c.crc32c(text):
        return None
    saved = json.loads(text)
    return int(saved["saved"]), _cursor(saved)


def _decoded_old(content: bytes) -> Cursor | None:
    """A file of an older version: one JSON object; the oldest hold only the position."""
    try:
        return _cursor(json.loads(content))
    except (ValueError, TypeError, AttributeError):
        return None


def _cursor(saved: dict[str, Any]) -> Cursor:
    return Cursor(**{name: int(saved.get(name, 0)) for name in (field.name for field in fields(Cursor))})


def readers_in(run: Path, kind: str) -> list[str]:
    """The readers of one kind of sink that have cursors in a run, the last one used last."""
    folders = [path for path in (run / "cursors").glob("*") if path.name.partition("@")[0] == kind]
    return [path.name for path in sorted(folders, key=lambda path: path.stat().st_mtime)]


class DeadLetterFile:
    """The dead letters of one sink on one log, each position once. A batch that comes again adds nothing new."""

    def __init__(self, run: Path, reader: str, stream: Stream, shard: int) -> None:
        self.path = run / "dead-letters" / reader / f"{stream}-shard-{shard:04d}.jsonl"
        self._stream = stream
        cut_torn_line(self.path)  # its batch will come again
        lines = self.path.read_bytes().splitlines() if self.path.exists() else []
        self._positions = {position for line in lines if (position := _position_in(line)) is not None}

    def __len__(self) -> int:
        return len(self._positions)

    def add(self, position: int, row: pa.RecordBatch, reason: str) -> None:
        """Append the one-row batch `row` of that position durably, unless it is already there."""
        if position in self._positions:
            return
        message = encode_json(row, self._stream)
        letter = {
            "position": position,
            "id": message.ids[0],
            "reason": reason,
            "payload": json.loads(message.values[0]),
        }
        append_file(self.path, json.dumps(letter).encode() + b"\n")
        self._positions.add(position)


def _position_in(line: bytes) -> int | None:
    """The position of a letter; None if a power cut has left something else of the line, whose letter comes again."""
    try:
        return int(json.loads(line)["position"])
    except (ValueError, TypeError, KeyError):
        return None
