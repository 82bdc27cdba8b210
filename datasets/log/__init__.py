"""The log of a run: the outbox that every sink reads, and the store of a run without servers.

Open `segments.py` first: it has the format of the files. `writer.py` appends, `reader.py` reads while the log grows.
`cursor.py` remembers how far a reader is, `retention.py` says what may be dropped, `watch.py` waits for something new,
`durable.py` is the one way to the disk. No Ray. The wall clock only stamps when a record was due.
"""

from datasets.log.cursor import Cursor, CursorFile, DeadLetterFile, readers_in
from datasets.log.durable import LogFull
from datasets.log.reader import LogReader, read_all
from datasets.log.segments import (
    DIRECT_ROWS,
    SEGMENT_BYTES,
    Extent,
    Frame,
    LogBusy,
    LogDamaged,
    drop_segments,
    extent,
    joined,
    log_directory,
)
from datasets.log.writer import LogWriter

__all__ = [
    "DIRECT_ROWS",
    "SEGMENT_BYTES",
    "Cursor",
    "CursorFile",
    "DeadLetterFile",
    "Extent",
    "Frame",
    "LogBusy",
    "LogDamaged",
    "LogFull",
    "LogReader",
    "LogWriter",
    "drop_segments",
    "extent",
    "joined",
    "log_directory",
    "read_all",
    "readers_in",
]
