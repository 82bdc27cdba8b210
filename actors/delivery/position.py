"""One log on its way to one peer: how far it is, what the peer rejected, how far to go back when the peer is lost.

A shipper (a run's own sinks) and a replay (an old run into a new sink) share this.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from actors.delivery.sinks import Receipt, Sink, Target
from datasets.log import Cursor, CursorFile, DeadLetterFile, extent, log_directory
from datasets.schema import Stream

# Wait before resending what a broker acknowledged and may have forgotten: its subscribers have to reconnect, too.
SUBSCRIBERS_S = 2.5


class Position:
    """The cursor of `reader` on one log, and all that moves it. It lasts as long as one connection to the peer."""

    def __init__(self, run_dir: Path, reader: str, stream: Stream, shard: int, target: Target) -> None:
        self.stream, self.shard = stream, shard
        self.directory = log_directory(run_dir, stream, shard)
        self.letters = DeadLetterFile(run_dir, reader, stream, shard)
        self._file = CursorFile(run_dir, reader, stream, shard)
        self._rewind_s = target.rewind_s
        self._peer_decides = target.keeps_position
        self._history: deque[tuple[float, int]] = deque()
        self.cursor = self._file.load()
        self.known = 0
        """The peer itself says that it has the rows up to here."""

    def begin(self, known: int | None) -> None:
        """Set the cursor to where delivery continues. `known`: how far the peer itself says it is (`Sink.position`).

        A peer that is behind the file has lost something, and gets it again. A peer that is ahead of the file already
        had the rows when we died. They are sent again, because a dead letter among them may not have been written. Not
        so to a peer that alone keeps the position (`Target.keeps_position`): rows must not come to it in other batches
        than before.
        """
        position = self.cursor.position
        if not self._file.exists():  # a log may begin later: earlier rows are not there to deliver
            position = max(known or 0, extent(self.directory).first)
        elif known is not None and (self._peer_decides or known < position):
            position = known
        self.known = known or 0
        self.move(position)
        self._file.save(self.cursor)

    def move(self, position: int) -> None:
        """Skip rows that are not to be delivered."""
        self.cursor = replace(self.cursor, position=position)

    def deliver(self, sink: Sink, batch: pa.RecordBatch) -> Receipt:
        """Deliver the rows at the cursor, keep those that the peer rejects individually, move the cursor."""
        row = self.cursor.position
        position = row + batch.num_rows
        receipt = sink.deliver(self.stream, self.shard, batch, position)
        for letter in receipt.dead:
            self.letters.add(row + letter.row, batch.slice(letter.row, 1), letter.reason)
        # Rows that we send again on purpose (up to `known`) do not count as duplicates.
        duplicates = receipt.duplicates if position > self.known else 0
        self.cursor = Cursor(position, self.cursor.duplicates + duplicates, len(self.letters))
        self._file.save(self.cursor)
        if self._rewind_s:
            now = time.monotonic()
            self._history.append((now, row))
            while self._history[0][0] < now - self._rewind_s:
                self._history.popleft()
        return receipt

    def rewind(self) -> bool:
        """Go back to before the last `rewind_s`, because the peer may have died with what it had acknowledged.

        Returns whether there was anything to go back to.
        """
        since = time.monotonic() - self._rewind_s
        recent = [row for then, row in self._history if then >= since]
        self._history.clear()
        if not recent:
            return False
        position = max(min(recent), extent(self.directory).first)
        self._file.save(replace(self.cursor, position=position))
        return True
