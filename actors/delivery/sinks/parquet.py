"""Parquet files: one per delivered batch, named by the log rows it holds, written whole or not at all.

Delivery: exactly once, because a batch delivered again replaces its own file. Order: that of the log, within a file and
by file name. The position follows from the file names, so a folder that was emptied is filled again.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from actors.delivery.sinks.base import Receipt, SinkOptions, SinkRefused, SinkUnavailable
from datasets.log import log_directory
from datasets.log.durable import replace_file
from datasets.schema import Stream


@dataclass(frozen=True)
class ParquetTarget:
    """A folder."""

    folder: Path
    name: str = "parquet"
    rewind_s: float = 0.0
    batch_rows: int = 1 << 18
    keeps_position: bool = True

    @classmethod
    def parse(cls, address: str, options: SinkOptions) -> ParquetTarget:
        """From the path of a folder."""
        return cls(Path(os.path.expanduser(address)).absolute())

    @property
    def url(self) -> str:
        """The folder."""
        return str(self.folder)

    @property
    def peer(self) -> str:
        """The folder."""
        return str(self.folder)

    def for_nodes(self, nodes: int) -> ParquetTarget:
        return self

    def sink(self, log_id: str, stream: Stream, part: int = 0) -> ParquetSink:
        return ParquetSink(self, stream)

    def check(self) -> str:
        parent = next(path for path in (self.folder, *self.folder.absolute().parents) if path.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            raise SinkRefused(f"cannot write to {parent}; choose a folder you may write to")
        return f"folder {self.folder}"


class ParquetSink:
    """See the module's docstring. The queue is one batch: `deliver` returns when its file is on the disk."""

    def __init__(self, target: ParquetTarget, stream: Stream) -> None:
        self._target = target
        self._stream = stream

    def open(self) -> None:
        self._target.check()

    def _directory(self, shard: int) -> Path:
        return log_directory(self._target.folder, self._stream, shard)

    def position(self, shard: int) -> int | None:
        names = [path.stem for path in self._directory(shard).glob("*-*.parquet")]
        return max((int(name.rpartition("-")[2]) for name in names), default=0)

    def deliver(self, shard: int, batch: pa.RecordBatch, position: int) -> Receipt:
        directory = self._directory(shard)
        path = directory / f"{position - batch.num_rows:020d}-{position:020d}.parquet"
        table = pa.Table.from_batches([batch])
        try:
            replace_file(path, lambda file: pq.write_table(table, file, compression="zstd"))
        except OSError as error:
            raise SinkUnavailable(f"{directory} takes no file ({error.strerror or error}); is there room?") from error
        return Receipt()

    def heard(self) -> float:
        return time.monotonic()

    def close(self) -> None:
        pass
