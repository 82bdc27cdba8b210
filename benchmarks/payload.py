"""One record per message, as Kafka's keys and MQTT's topics need it. Size and time both ways in JSON, Avro, Arrow IPC.

python benchmarks/payload.py [--quick]
Prints and writes benchmarks/results/payload.json. The records are from a real run. Their bytes are also measured in
batches of 100 compressed by Zstandard, as a Kafka producer with compression makes them. Decoding gives Python dicts.
`checked` is what consumers call (`datasets.codec.decode`), which also checks every field's type and range.
"""

from __future__ import annotations

import io
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import orjson
import pyarrow as pa

from benchmarks import parser, results_of
from datasets.codec import decode, encode
from datasets.log import LogReader, log_directory
from datasets.schema import PAYLOADS, avro_schema
from twin import Fleet


@dataclass(frozen=True)
class Size:
    """Vehicles of the run, how many of its records are encoded, and how often."""

    vehicles: int = 300
    rows: int = 3_000
    repeats: int = 7


QUICK = Size(vehicles=30, rows=300, repeats=1)


def real_records(folder: Path, size: Size) -> pa.RecordBatch:
    """Telemetry from the middle of a short run."""
    with Fleet(vehicles=size.vehicles, shards=1, predict=False, out=folder / "run") as fleet:
        fleet.run("10min")
    with LogReader(log_directory(folder / "run", "telemetry", 0), size.vehicles * 200) as reader:
        frame = reader.read(size.rows)
    assert frame is not None
    assert frame.batch.num_rows == size.rows
    return frame.batch


def ns_a_record(work: Callable[[], object], size: Size) -> float:
    """Median over repeats of one pass over all rows."""
    times = []
    for _ in range(size.repeats):
        begun = time.perf_counter_ns()
        work()
        times.append((time.perf_counter_ns() - begun) / size.rows)
    return statistics.median(times)


def zstd_bytes(values: list[bytes]) -> float:
    """Bytes per record in compressed batches of 100."""
    batches = [b"".join(values[first : first + 100]) for first in range(0, len(values), 100)]
    return sum(len(pa.compress(batch, "zstd", asbytes=True)) for batch in batches) / len(values)


def raw_decoders() -> dict[str, Callable[[bytes], Any]]:
    """The libraries alone, without our checks."""
    schema = fastavro.parse_schema(avro_schema("telemetry"))
    return {
        "json": orjson.loads,
        "vss": orjson.loads,
        "avro": lambda value: fastavro.schemaless_reader(io.BytesIO(value[10:]), schema, None),
    }


def arrow_messages(batch: pa.RecordBatch, *, with_schema: bool) -> list[bytes]:
    """One row per message, as whole streams or as record batch messages for a reader that has the schema."""
    plain = pa.record_batch(
        [c.cast(pa.string()) if pa.types.is_dictionary(c.type) else c for c in batch.columns], batch.schema.names
    )
    if not with_schema:
        return [plain.slice(row, 1).serialize().to_pybytes() for row in range(plain.num_rows)]
    values = []
    for row in range(plain.num_rows):
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, plain.schema) as writer:
            writer.write_batch(plain.slice(row, 1))
        values.append(sink.getvalue())
    return values


def arrow_decode(values: list[bytes], schema: pa.Schema | None) -> None:
    for value in values:
        if schema is None:
            pa.ipc.open_stream(value).read_next_batch().to_pylist()
        else:
            pa.ipc.read_record_batch(pa.py_buffer(value), schema).to_pylist()


def all_checked(values: list[bytes]) -> list[dict[str, Any]]:
    return [decode(value, "telemetry") for value in values]


def all_of(decoder: Callable[[bytes], object], values: list[bytes]) -> list[object]:
    return [decoder(value) for value in values]


def measure(batch: pa.RecordBatch, size: Size) -> dict[str, dict[str, float]]:
    """The table, one row per form."""
    table: dict[str, dict[str, float]] = {}
    raw = raw_decoders()
    for payload in PAYLOADS:
        values = encode(batch, "telemetry", payload).values
        table[payload] = {
            "bytes": float(np.mean([len(v) for v in values])),
            "zstd_bytes": zstd_bytes(values),
            "encode_ns": ns_a_record(partial(encode, batch, "telemetry", payload), size),
            "decode_ns": ns_a_record(partial(all_of, raw[payload], values), size),
            "checked_ns": ns_a_record(partial(all_checked, values), size),
        }
    for name, with_schema in (("arrow, schema in each", True), ("arrow, schema known", False)):
        values = arrow_messages(batch, with_schema=with_schema)
        plain = (
            None if with_schema else pa.ipc.open_stream(arrow_messages(batch.slice(0, 1), with_schema=True)[0]).schema
        )
        table[name] = {
            "bytes": float(np.mean([len(v) for v in values])),
            "zstd_bytes": zstd_bytes(values),
            "encode_ns": ns_a_record(partial(arrow_messages, batch, with_schema=with_schema), size),
            "decode_ns": ns_a_record(partial(arrow_decode, values, plain), size),
        }
    return table


def main() -> None:
    arguments = parser(__doc__).parse_args()
    size = QUICK if arguments.quick else Size()
    with tempfile.TemporaryDirectory() as name:
        table = measure(real_records(Path(name), size), size)
    heads = ("bytes", "zstd_bytes", "encode_ns", "decode_ns", "checked_ns")
    print(f"{'a record':<24}" + "".join(f"{head:>12}" for head in heads))
    for form, row in table.items():
        print(f"{form:<24}" + "".join(f"{row[head]:12,.0f}" if head in row else f"{'-':>12}" for head in heads))
    results_of("payload", arguments).write(table)


if __name__ == "__main__":
    main()
