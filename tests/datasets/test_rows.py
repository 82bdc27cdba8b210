"""The kernel's text against a readable reference, which asks JSON and CSV libraries."""

from __future__ import annotations

import csv
import io
import json
import math
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from datasets.codec import encode_csv, encode_json
from datasets.rows import Form, rows_of
from datasets.schema import FIELDS, SCHEMA_VERSION, SCHEMAS, STREAMS, Field, Stream
from tests.support import make_batch

EDGES = [0.0, -0.0, 1.0, 9.0, 10.0, 99.9, 999.95, 1e-7, -1e-7, 5e-8, 0.5, 9999.0, 10000.0, 99999.9, 1e5, 123456.75,
         1e14, 1e15, 999999999999999.0, 2.0**53, 1e22, 3.4e38, 1e-30, math.nan, math.inf, -math.inf]  # fmt: skip
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def number(row: Any, field: Field) -> float:
    """The number that goes out for a float: a float32 at the field's resolution, a float64 as it is."""
    assert field.decimals is not None
    return float(np.round(np.float64(row), field.decimals)) if field.type == pa.float32() else float(row)


def reference(batch: pa.RecordBatch, stream: Stream) -> list[dict[str, Any]]:
    """What each row says, as Python values."""
    found = []
    for row in batch.to_pylist():
        record: dict[str, Any] = {}
        for field in FIELDS[stream]:
            value = row[field.name]
            record[field.name] = number(value, field) if field.decimals is not None else value
        found.append(record)
    return found


def time_of(text: str) -> datetime:
    """Year 1 has no leading zeros in some C libraries."""
    return datetime.fromisoformat(text.rjust(len("0001-01-01T00:00:00.000000Z"), "0"))


def same(a: float, b: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1.0, a) == math.copysign(1.0, b))


def column(field: Field, rows: int, draw: st.DrawFn) -> pa.Array:
    def many(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=rows, max_size=rows))

    if field.decimals is not None:
        width: Literal[32, 64] = 32 if field.type == pa.float32() else 64
        edges = st.sampled_from([float(np.float32(edge)) if width == 32 else edge for edge in EDGES])
        if draw(st.booleans()):  # as in a log: every value at the resolution, so nothing is left to Arrow
            steps = np.array(many(st.integers(-(10**9), 10**9) | st.integers(-20, 20)), np.float64)
            return pa.array(steps / 10.0**field.decimals).cast(field.type)
        return pa.array(many(st.floats(width=width) | st.floats(-1e4, 1e4, width=width) | edges), field.type)
    if pa.types.is_integer(field.type):
        small = st.integers(0, 20_000)
        return pa.array(
            many(st.integers(-field.largest - 1, field.largest) if draw(st.booleans()) else small), field.type
        )
    if pa.types.is_timestamp(field.type):
        # years 1 to 9999
        return pa.array(many(st.integers(-62_135_596_800, 253_402_300_799).map(lambda s: s * 10**6 + 7)), field.type)
    names = draw(st.lists(TEXTS, min_size=1, max_size=40, unique=True))
    codes = pa.array(many(st.integers(0, len(names) - 1)), field.type.index_type)
    return pa.DictionaryArray.from_arrays(codes, pa.array(names, pa.string()))


@st.composite
def batches(draw: st.DrawFn, stream: Stream) -> pa.RecordBatch:
    rows = draw(st.integers(0, 8))
    made = pa.record_batch([column(field, rows, draw) for field in FIELDS[stream]], schema=SCHEMAS[stream])
    first = draw(st.integers(0, rows))
    return made.slice(first, draw(st.integers(0, rows - first)))


@pytest.mark.parametrize("stream", STREAMS)
@given(data=st.data())
def test_json_says_what_the_rows_say(stream: Stream, data: st.DataObject) -> None:
    batch = data.draw(batches(stream))
    messages = encode_json(batch, stream)
    for value, expected in zip(messages.values, reference(batch, stream), strict=True):
        record = orjson.loads(value)
        floats = json.loads(value, parse_int=float)  # orjson makes 0 of -0
        assert list(record) == ["schema", *expected]
        assert record["schema"] == SCHEMA_VERSION
        for field in FIELDS[stream]:
            wanted = expected[field.name]
            if field.decimals is None:
                assert wanted == (time_of(record["ts"]) if field.name == "ts" else record[field.name])
            elif math.isfinite(wanted):
                assert same(floats[field.name], wanted)
            else:
                assert record[field.name] is None


@pytest.mark.parametrize("stream", STREAMS)
@given(data=st.data())
def test_csv_says_what_the_rows_say(stream: Stream, data: st.DataObject) -> None:
    batch = data.draw(batches(stream))
    lines = list(csv.reader(io.StringIO(encode_csv(batch, stream).to_pybytes().decode(), newline="")))
    for line, expected in zip(lines, reference(batch, stream), strict=True):
        for text, field in zip(line, FIELDS[stream], strict=True):
            wanted = expected[field.name]
            if field.decimals is not None:
                assert same(float(text), wanted)
            elif pa.types.is_dictionary(field.type):
                assert text == wanted
            else:
                assert wanted == (time_of(text) if field.name == "ts" else int(text))


@given(st.lists(st.integers(1 - 10**15, 10**15 - 1), max_size=4), st.integers(0, 8))
@example([10**15 - 1, 1 - 10**15, 9999, 10_000, 99_999, 100_000, 10, 1, 0], 0)
@example([10**15 - 1, 10**8, 10**8 - 1, 10**4, 1, -1, 12_345_678, 12_340_000, 99_999_999_999_999], 8)
def test_a_decimal_is_written_as_it_is(steps: list[int], decimals: int) -> None:
    """The shortest text of a number of up to 15 digits is the decimal it was made from."""
    field = Field("x", pa.float64(), "", "", decimals)
    batch = pa.record_batch([pa.array([step / 10.0**decimals for step in steps], pa.float64())], names=["x"])
    texts = rows_of(batch, (field,), Form((b"",), b"", str, None)).to_pylist()
    for text, step in zip(texts, steps, strict=True):
        plain = f"{Decimal(step).scaleb(-decimals):f}"
        assert text.decode() == (plain.rstrip("0").rstrip(".") if "." in plain else plain)


def test_a_few_rows_of_a_large_shard_do_not_write_all_its_names() -> None:
    whole = make_batch(1000, range(1))
    few = whole.slice(998)
    assert encode_json(few, "telemetry").values == encode_json(whole, "telemetry").values[998:]
