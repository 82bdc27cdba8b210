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
from datasets.log import CursorFile, DeadLetterFile, extent, log_directory
from datasets.schema import Stream

# Wait before resending what a broker acknowledged and may have forgotten: its subscribers have to reconnect, too.
SUBSCRIBERS_S = 2.5
_SAVE_SETTLED_S = 1.0


class Position:
    """The cursor of `reader` on one log, and all that moves it. It lasts as long as one connection to the peer.

    A peer with `rewind_s` may forget what it acknowledged, if it dies within that time. When it died is not known, only
    when it was heard last. So the rows that it acknowledged less than `rewind_s` before that are `unsettled`: delivery
    continues before them on the next connection, whoever makes it.
    """

    def __init__(self, run_dir: Path, reader: str, stream: Stream, shard: int, target: Target) -> None:
        self.stream, self.shard = stream, shard
        self.directory = log_directory(run_dir, stream, shard)
        self.letters = DeadLetterFile(run_dir, reader, stream, shard)
        self._file = CursorFile(run_dir, reader, stream, shard)
        self._rewind_s = target.rewind_s
        self._peer_decides = target.keeps_position
        self._recent: deque[tuple[float, int]] = deque()  # (acknowledged by [s], first row), oldest first
        self._saved = self.cursor = self._file.load()
        self._saved_at = 0.0
        self.known = 0
        """The peer itself says that it has the rows up to here."""

    def begin(self, known: int | None, first: int = 0) -> None:
        """Set the cursor to where delivery continues. `known`: how far the peer itself says it is (`Sink.position`).
        `first`: the rows that precede a log which is new here, because it was lost with its node.

        A peer that is behind the file has lost something, and gets it again. A peer that is ahead of the file already
        had the rows when we died. They are sent again, because a dead letter among them may not have been written. Not
        so to a peer that alone keeps the position (`Target.keeps_position`): rows must not come to it in other batches
        than before.
        """
        position = self.cursor.position - self.cursor.unsettled
        if not self._file.exists():  # a log may begin later: earlier rows are not there to deliver
            position = max(known or 0, first, extent(self.directory).first)
        elif known is not None and (self._peer_decides or known < position):
            position = known
        self.known = known or 0
        self.cursor = replace(self.cursor, unsettled=0)
        self.move(position)
        self._save()

    def move(self, position: int) -> None:
        """Skip rows that are not to be delivered."""
        self.cursor = replace(self.cursor, position=position)

    def lose(self, until: int) -> int:
        """Skip rows that the log does not have any more, and count each once. Returns how many are new."""
        rows = max(0, until - max(self.cursor.position, self.cursor.lost_until))
        self.cursor = replace(self.cursor, position=until, lost=self.cursor.lost + rows, lost_until=until)
        self._save()
        return rows

    def deliver(self, sink: Sink, batch: pa.RecordBatch) -> Receipt:
        """Deliver the rows at the cursor, keep those that the peer rejects individually, move the cursor.

        Where the disk is full (OSError), the cursor moves on only here; then nothing more is delivered until it can be
        saved.
        """
        if self.cursor != self._saved:
            self._save()
        row = self.cursor.position
        position = row + batch.num_rows
        receipt = sink.deliver(self.shard, batch, position)
        for letter in receipt.dead:
            self.letters.add(row + letter.row, batch.slice(letter.row, 1), letter.reason)
        # Rows that we send again on purpose (up to `known`) do not count as duplicates.
        duplicates = receipt.duplicates if position > self.known else 0
        if self._rewind_s:
            self._recent.append((time.monotonic(), row))
        self.cursor = replace(
            self.cursor,
            position=position,
            duplicates=self.cursor.duplicates + duplicates,
            dead=len(self.letters),
            unsettled=self._unsettled(position),
        )
        self._save()
        return receipt

    def heard(self, when: float) -> None:
        """The peer was alive at `when`: what it acknowledged long enough before is safe."""
        if not self._recent and self.cursor == self._saved:
            return  # as nearly always: this is called for each log in each round
        while self._recent and self._recent[0][0] <= when - self._rewind_s:
            self._recent.popleft()
        self.cursor = replace(self.cursor, unsettled=self._unsettled(self.cursor.position))
        if self.cursor != self._saved and (not self._recent or time.monotonic() - self._saved_at > _SAVE_SETTLED_S):
            self._save()

    def _unsettled(self, position: int) -> int:
        return position - self._recent[0][1] if self._recent else 0

    def _save(self) -> None:
        self._file.save(self.cursor)
        self._saved, self._saved_at = self.cursor, time.monotonic()
