"""One record a message, as Kafka's keys and MQTT's topics need it: JSON, Avro, Arrow IPC; size and time both ways.

Prints and writes benchmarks/results/payload.json. Records of a real run; the bytes are also measured in batches of 100
that Zstandard compressed, as a Kafka producer with compression makes them. Decoding gives Python dicts; `checked` is
what consumers call (`datasets.codec.decode`): every field's type and range as well.
"""

from __future__ import annotations

import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import orjson
import pyarrow as pa

from datasets.codec import decode, encode
from datasets.log import LogReader, log_directory
from datasets.schema import PAYLOADS, avro_schema
from twin import Fleet

VEHICLES, ROWS, REPEATS = 300, 3_000, 7
RESULTS = Path(__file__).parent / "results" / "payload.json"


def real_records(folder: Path) -> pa.RecordBatch:
    """Telemetry of a short run, of the middle of it."""
    with Fleet(vehicles=VEHICLES, shards=1, predict=False, out=folder / "run") as fleet:
        fleet.run("10min")
    with LogReader(log_directory(folder / "run", "telemetry", 0), VEHICLES * 200) as reader:
        frame = reader.read(ROWS)
    assert frame is not None
    assert frame.batch.num_rows == ROWS
    return frame.batch


def ns_a_record(work: Callable[[], Any]) -> float:
    """Median over repeats of one pass over all rows."""
    times = []
    for _ in range(REPEATS):
        begun = time.perf_counter_ns()
        work()
        times.append((time.perf_counter_ns() - begun) / ROWS)
    return statistics.median(times)


def zstd_bytes(values: list[bytes]) -> float:
    """Bytes a record in compressed batches of 100."""
    batches = [b"".join(values[first : first + 100]) for first in range(0, len(values), 100)]
    return sum(len(pa.compress(batch, "zstd", asbytes=True)) for batch in batches) / len(values)


def raw_decoders() -> dict[str, Callable[[bytes], Any]]:
    """The libraries alone, without our checks."""
    schema = fastavro.parse_schema(avro_schema("telemetry"))
    return {
        "json": orjson.loads,
        "avro": lambda value: fastavro.schemaless_reader(io.BytesIO(value[10:]), schema, None),
    }


def arrow_messages(batch: pa.RecordBatch, *, with_schema: bool) -> list[bytes]:
    """One row a message; whole streams, or record batch messages for a reader that has the schema."""
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


def measure(batch: pa.RecordBatch) -> dict[str, dict[str, float]]:
    """Each form's row of the table."""
    table: dict[str, dict[str, float]] = {}
    raw = raw_decoders()
    for payload in PAYLOADS:
        values = encode(batch, "telemetry", payload).values
        table[payload] = {
            "bytes": float(np.mean([len(v) for v in values])),
            "zstd_bytes": zstd_bytes(values),
            "encode_ns": ns_a_record(lambda p=payload: encode(batch, "telemetry", p)),
            "decode_ns": ns_a_record(lambda v=values, d=raw[payload]: [d(value) for value in v]),
            "checked_ns": ns_a_record(lambda v=values: [decode(value, "telemetry") for value in v]),
        }
    for name, with_schema in (("arrow, schema in each", True), ("arrow, schema known", False)):
        values = arrow_messages(batch, with_schema=with_schema)
        plain = (
            None if with_schema else pa.ipc.open_stream(arrow_messages(batch.slice(0, 1), with_schema=True)[0]).schema
        )
        table[name] = {
            "bytes": float(np.mean([len(v) for v in values])),
            "zstd_bytes": zstd_bytes(values),
            "encode_ns": ns_a_record(lambda w=with_schema: arrow_messages(batch, with_schema=w)),
            "decode_ns": ns_a_record(lambda v=values, s=plain: arrow_decode(v, s)),
        }
    return table


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        table = measure(real_records(Path(name)))
    heads = ("bytes", "zstd_bytes", "encode_ns", "decode_ns", "checked_ns")
    print(f"{'a record':<24}" + "".join(f"{head:>12}" for head in heads))
    for form, row in table.items():
        print(f"{form:<24}" + "".join(f"{row[head]:12,.0f}" if head in row else f"{'-':>12}" for head in heads))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
