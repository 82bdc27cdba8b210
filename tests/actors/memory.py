"""A sink that keeps what it gets in this process, and fails when a test says so."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import pyarrow as pa

from actors.delivery.sinks import DeadLetter, Receipt, SinkOptions, SinkRefused, SinkUnavailable
from datasets.schema import Stream

Row = tuple[Stream, str, int]


@dataclass
class MemoryTarget:
    """`fails`: raised by the next deliveries, one each. `rejects`: rows it rejects, by (vehicle, seq).

    `knows`: the positions that the peer itself keeps, or None. `gate`: closed, deliveries wait.
    `denies`: streams it refuses. `lost`: why the peer is gone, noticed without a delivery. `heard`: its last sign of
    life.
    """

    name: str = "kafka"
    rewind_s: float = 0.0
    batch_rows: int = 7
    keeps_position: bool = False
    url: str = "memory"
    peer: str = "memory"
    rows: list[Row] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    fails: list[Exception] = field(default_factory=list)
    rejects: set[tuple[str, int]] = field(default_factory=set)
    knows: dict[tuple[Stream, int], int] | None = None
    denies: set[Stream] = field(default_factory=set)
    lost: str = ""
    heard: float | None = None
    opened: int = 0
    closed: list[Stream] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    @classmethod
    def parse(cls, address: str, options: SinkOptions) -> MemoryTarget:
        return cls(url=address)

    def for_nodes(self, nodes: int) -> MemoryTarget:
        return self

    def sink(self, log_id: str, stream: Stream, part: int = 0) -> MemorySink:
        return MemorySink(self, stream)

    def check(self) -> str:
        return "memory"


class MemorySink:
    def __init__(self, target: MemoryTarget, stream: Stream) -> None:
        self._target, self._stream = target, stream

    def open(self) -> None:
        self._target.opened += 1

    def position(self, shard: int) -> int | None:
        return None if self._target.knows is None else self._target.knows.get((self._stream, shard), 0)

    def heard(self) -> float:
        if self._target.lost:
            raise SinkUnavailable(self._target.lost)
        return time.monotonic() if self._target.heard is None else self._target.heard

    def deliver(self, shard: int, batch: pa.RecordBatch, position: int) -> Receipt:
        target, stream = self._target, self._stream
        target.gate.wait(120.0)
        if target.fails:
            raise target.fails.pop(0)
        if stream in target.denies:
            raise SinkRefused(f"no rights to {stream}")
        dead, known = [], set(target.rows)
        names, seqs = batch.column("vehicle_id").to_pylist(), batch.column("seq").to_pylist()
        duplicates = 0
        for row, identity in enumerate(zip(names, seqs, strict=True)):
            if identity in target.rejects:
                dead.append(DeadLetter(row, "a value it cannot hold"))
                continue
            duplicates += (stream, *identity) in known
            target.rows.append((stream, *identity))
        target.batches.append(batch.num_rows)
        if target.knows is not None:
            target.knows[stream, shard] = position
        return Receipt(duplicates, tuple(dead))

    def close(self) -> None:
        self._target.closed.append(self._stream)
