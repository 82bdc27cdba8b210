"""Reads a log from a position on, while it grows. `segments.py` has the format."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from datasets.log.segments import OPEN, SEALED, Frame, LogDamaged, OpenSegment, segment_path, segments_of
from datasets.memory import give_back


class LogReader:
    """Reads a log from a position on, while it grows. Many readers may follow one writer, from any process."""

    def __init__(self, directory: Path, position: int = 0) -> None:
        self._directory = directory
        self.position = position
        self._open: OpenSegment | None = None
        self._sealed: Iterator[pa.RecordBatch] | None = None
        self._sealed_end = 0
        self._rest: Frame | None = None
        self._looked_again = -1

    def read(self, max_rows: int = 1 << 16) -> Frame | None:
        """The next rows, at most `max_rows`, never across a frame's end; None where the log ends for now."""
        frame = self._rest or self._next_frame()
        if frame is None:
            return None
        taken = min(max_rows, frame.batch.num_rows)
        if taken < frame.batch.num_rows:
            self._rest = Frame(frame.row + taken, frame.batch.slice(taken), frame.mark, frame.due_ns)
        else:
            self._rest = None
        self.position = frame.row + taken
        return Frame(frame.row, frame.batch.slice(0, taken), frame.mark, frame.due_ns)

    def gather(self, max_rows: int) -> list[Frame]:
        """The next frames, together at most `max_rows`; [] where the log ends for now. Damage is raised by the call
        that begins with it."""
        frames: list[Frame] = []
        while max_rows > 0:
            try:
                frame = self.read(max_rows)
            except LogDamaged:
                if not frames:
                    raise
                break
            if frame is None:
                break
            frames.append(frame)
            max_rows -= frame.batch.num_rows
        return frames

    def seek(self, position: int) -> None:
        """Continue from `position`."""
        self.close()
        self.position = position

    def _next_frame(self) -> Frame | None:
        while True:
            frame = self._from_sealed() if self._sealed is not None else self._from_open()
            if frame is not None:
                skip = self.position - frame.row
                if skip >= frame.batch.num_rows:
                    continue
                return Frame(self.position, frame.batch.slice(skip), frame.mark, frame.due_ns) if skip else frame
            if not self._enter_segment():
                return None

    def _from_open(self) -> Frame | None:
        return None if self._open is None else self._open.read()

    def _from_sealed(self) -> Frame | None:
        assert self._sealed is not None
        try:
            batch = next(self._sealed, None)
        except (OSError, pa.ArrowException) as error:
            self._sealed = None
            said = " ".join(str(error).split())[:120]
            raise LogDamaged(
                f"{self._directory}: the segment that holds row {self.position:,} is damaged ({said})",
                self._next_segment(),
            ) from error
        if batch is None:
            self._sealed = None
            give_back()
            return None
        # Of marks and times only the last frame's mark outlives sealing; a reader of old rows needs neither.
        frame = Frame(self._sealed_end, batch, -1, 0)
        self._sealed_end += batch.num_rows
        return frame

    def _enter_segment(self) -> bool:
        """Open the segment that holds `position`; False where there is none beyond the one being read."""
        try:
            segments = segments_of(self._directory)
        except FileNotFoundError:
            return False  # the writer has not made the directory yet
        candidates = [s for s in segments if s[0] <= self.position]
        if not candidates:
            if segments:
                raise LogDamaged(
                    f"{self._directory} begins at row {segments[0][0]:,}, row {self.position:,} was asked for; "
                    "what came before is not kept any more",
                    segments[0][0],
                )
            return False
        first = candidates[-1][0]
        if self._open is not None and self._open.first == first:
            return self._more_in_open()
        try:
            segment = OpenSegment(segment_path(self._directory, first, OPEN), first)
        except FileNotFoundError:
            return self._enter_sealed(first)
        if self._open is not None:
            self._open.close()
        segment.skip_to(self.position)
        self._open = segment
        return True

    def _more_in_open(self) -> bool:
        """Nothing more was in the open segment. If a later one has begun since, look into it once more."""
        if self._looked_again == self.position:
            self._expect_no_gap()
        elif self._next_segment() is not None:
            self._looked_again = self.position
            return True
        return False

    def _expect_no_gap(self) -> None:
        """Raises LogDamaged if the log goes on after rows that are nowhere."""
        following = self._next_segment()
        if following is not None:
            raise LogDamaged(
                f"{self._directory}: rows {self.position:,} to {following - 1:,} are missing or damaged", following
            )

    def _next_segment(self) -> int | None:
        """The first row of the segment after the one that holds `position`; None if that is the last."""
        return next((row for row, _ in segments_of(self._directory) if row > self.position), None)

    def _enter_sealed(self, first: int) -> bool:
        path = segment_path(self._directory, first, SEALED)
        if not path.exists():
            return False  # replaced between two looks at the directory: the next call finds it
        try:
            file = pq.ParquetFile(path, page_checksum_verification=True)
        except (OSError, pa.ArrowException) as error:
            said = " ".join(str(error).split())[:120]
            raise LogDamaged(f"{path} is damaged ({said})", self._next_segment()) from error
        if first + file.metadata.num_rows <= self.position:
            self._expect_no_gap()
            return False
        if self._open is not None:
            self._open.close()
            self._open = None
        groups, row = [], first
        start = None
        for index in range(file.num_row_groups):
            end = row + file.metadata.row_group(index).num_rows
            if end > self.position:
                start = row if start is None else start
                groups.append(index)
            row = end
        assert start is not None
        # Threads are no faster here, and each of Arrow's keeps memory of its own for good.
        self._sealed = file.iter_batches(batch_size=1 << 16, row_groups=groups, use_threads=False)
        self._sealed_end = start
        return True

    def __enter__(self) -> LogReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; `read` opens them again."""
        if self._open is not None:
            self._open.close()
        self._open, self._sealed, self._rest = None, None, None


def read_all(directory: Path) -> pa.Table | None:
    """Every row of a log as one pyarrow Table, sealed or not, for tests and reports; None where it is empty."""
    batches = []
    with LogReader(directory) as reader:
        while (frame := reader.read(1 << 20)) is not None:
            batches.append(frame.batch)
    return pa.Table.from_batches(batches).unify_dictionaries() if batches else None
