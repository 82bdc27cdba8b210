"""What one reader of a log remembers: how far it has got, and the records that its peer rejected individually.

RUN/cursors/<reader>/<stream>-shard-0000.json           replaced atomically
RUN/dead-letters/<reader>/<stream>-shard-0000.jsonl     one JSON object per line: position, id, reason, payload
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pyarrow as pa

from datasets.codec import encode_json
from datasets.log.durable import replace_file
from datasets.schema import Stream


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


class CursorFile:
    """The cursor of one sink on one log. A missing file means the beginning."""

    def __init__(self, run: Path, reader: str, stream: str, shard: int) -> None:
        self.path = run / "cursors" / reader / f"{stream}-shard-{shard:04d}.json"

    def load(self) -> Cursor:
        """What was saved. Files of older versions hold only the position."""
        try:
            saved = json.loads(self.path.read_text())
        except FileNotFoundError:
            return Cursor()
        return Cursor(**{field.name: int(saved.get(field.name, 0)) for field in fields(Cursor)})

    def save(self, cursor: Cursor) -> None:
        """Save the cursor; a crash leaves the old or the new one."""
        replace_file(self.path, json.dumps(asdict(cursor)).encode())


def readers_in(run: Path, kind: str) -> list[str]:
    """The readers of one kind of sink that have cursors in a run, the last one used last."""
    folders = [path for path in (run / "cursors").glob("*") if path.name.partition("@")[0] == kind]
    return [path.name for path in sorted(folders, key=lambda path: path.stat().st_mtime)]


class DeadLetterFile:
    """The dead letters of one sink on one log, each position once. A batch that comes again adds nothing new."""

    def __init__(self, run: Path, reader: str, stream: Stream, shard: int) -> None:
        self.path = run / "dead-letters" / reader / f"{stream}-shard-{shard:04d}.jsonl"
        self._stream = stream
        self._positions: set[int] = set()
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return
        whole = text[: text.rfind(b"\n") + 1]
        if len(whole) < len(text):  # killed in the middle of a line; its batch will come again
            os.truncate(self.path, len(whole))
        self._positions = {json.loads(line)["position"] for line in whole.splitlines()}

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
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab") as file:
            file.write(json.dumps(letter).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._positions.add(position)
