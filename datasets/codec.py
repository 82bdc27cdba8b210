"""Turns record batches into message bytes, and back: JSON (`schema.json_schema`), the same with the names and units of
COVESA VSS (`vss.py`), or Avro (`schema.avro_schema`).

All forms carry the values of the log, which already have the resolution of the text form. Avro uses the standard's
single-object encoding: the two bytes C3 01, the fingerprint of the schema, the record. `decode` tells them apart by the
first two bytes and by the name of the vehicle's id. It returns a whole valid record or raises `Malformed`.
Where a schema registry keeps the schemas, a message begins with 0 and four bytes of the schema's number there, which is
Confluent's wire format (`registered`, `single_object`).
`decode_columns` reads many at once.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from json.encoder import encode_basestring
from operator import itemgetter
from typing import Any

import fastavro
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from fastavro.schema import fingerprint, to_parsing_canonical_form

from datasets.schema import (
    FIELDS,
    LARGEST,
    NAME_PATTERN,
    SCHEMA_VERSION,
    STREAMS,
    TIME_PATTERN,
    Field,
    Payload,
    Stream,
    avro_schema,
)
from datasets.vss import SIGNALS, VIN, named_here, renamed

_AVRO_MARK = b"\xc3\x01"
_REGISTERED = struct.Struct(">xI")
_HEADER_BYTES = 10
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAME = re.compile(NAME_PATTERN)
_TIME = re.compile(TIME_PATTERN)


class Malformed(ValueError):
    """Bytes that are not one whole valid record. The message is one line: what was expected and what came."""


@dataclass(frozen=True)
class Messages:
    """The messages of one batch, in the batch's order; `ids` are `run_id/vehicle_id/seq`."""

    vehicle_ids: list[str]
    ids: list[str]
    values: list[bytes]


def _columns(batch: pa.RecordBatch, fields: tuple[Field, ...]) -> dict[str, list[Any]]:
    """Python values of each column; times in microseconds since 1970."""
    columns: dict[str, list[Any]] = {}
    for field in fields:
        column = batch.column(field.name)
        if pa.types.is_floating(field.type):
            columns[field.name] = field.numbers(column).tolist()
        elif pa.types.is_dictionary(field.type):
            names = np.array(column.dictionary.to_pylist(), dtype=object)
            columns[field.name] = names[column.indices.to_numpy()].tolist()
        else:
            columns[field.name] = column.cast(pa.int64()).to_pylist()
    return columns


def encode(batch: pa.RecordBatch, stream: Stream, payload: Payload = "json") -> Messages:
    """One message per row, in the form `payload`."""
    return {"json": encode_json, "avro": encode_avro, "vss": encode_vss}[payload](batch, stream)


def encode_json(batch: pa.RecordBatch, stream: Stream) -> Messages:
    """One JSON object per row, UTF-8, keys in schema order; NaN and infinities are null."""
    return _messages(batch, _objects(batch, FIELDS[stream]))


def encode_vss(batch: pa.RecordBatch, stream: Stream) -> Messages:
    """As `encode_json`, with COVESA VSS paths as keys and its units."""
    fields = tuple(signal.field for signal in SIGNALS[stream])
    return _messages(batch, _objects(renamed(batch, stream), fields))


def _objects(batch: pa.RecordBatch, fields: tuple[Field, ...]) -> list[bytes]:
    from datasets import rows  # only who writes loads the kernels

    names = [f'"{field.name}":' for field in fields]
    before = (f'{{"schema":{SCHEMA_VERSION},{names[0]}', *(f",{name}" for name in names[1:]))
    form = rows.Form(tuple(text.encode() for text in before), b"}", encode_basestring, missing="null")
    objects: list[bytes] = rows.rows_of(batch, fields, form).to_pylist()
    return objects


def encode_csv(batch: pa.RecordBatch, stream: Stream) -> pa.Buffer:
    """The rows as a database's COPY reads them. Numbers have their text of JSON, NaN and infinities their names."""
    from datasets import rows

    before = (b"", *[b","] * (len(FIELDS[stream]) - 1))
    form = rows.Form(before, b"\n", lambda text: '"' + text.replace('"', '""') + '"', missing=None)
    return rows.rows_of(batch, FIELDS[stream], form).buffers()[2]


def encode_avro(batch: pa.RecordBatch, stream: Stream) -> Messages:
    """One Avro record per row, single-object encoding."""
    columns = _columns(batch, FIELDS[stream])
    names = ("schema", *columns)
    reader = _READERS[stream]
    rows = zip(*columns.values(), strict=True)
    return _messages(batch, [reader.to_avro(dict(zip(names, (SCHEMA_VERSION, *row), strict=True))) for row in rows])


def _messages(batch: pa.RecordBatch, values: list[bytes]) -> Messages:
    run, vehicle = (
        batch.column(name).dictionary.cast(pa.string()).take(batch.column(name).indices)
        for name in ("run_id", "vehicle_id")
    )
    ids = pc.binary_join_element_wise(run, vehicle, batch.column("seq").cast(pa.string()), "/")
    return Messages(vehicle_ids=vehicle.to_pylist(), ids=ids.to_pylist(), values=values)


def registered(messages: Messages, number: int) -> Messages:
    """Avro messages as those who have a schema registry read them; there their schema has this number."""
    head = _REGISTERED.pack(number)
    return replace(messages, values=[head + value[_HEADER_BYTES:] for value in messages.values])


def schema_number(value: bytes) -> int | None:
    """What number its schema has in a registry; None for a message that needs none."""
    return _REGISTERED.unpack_from(value)[0] if value[:1] == b"\0" and len(value) >= _REGISTERED.size else None


def single_object(value: bytes, fingerprint: bytes) -> bytes:
    """The `registered` message as `decode` takes it. `fingerprint`: of its schema, 8 bytes."""
    return _AVRO_MARK + fingerprint + value[_REGISTERED.size :]


def decode(value: bytes, stream: Stream) -> dict[str, Any]:
    """The record in a message of either form: `schema` and the columns of `stream`, `ts` as a datetime in UTC.

    Raises Malformed for anything but a whole valid record. Additional fields of a newer version are left out.
    """
    reader = _READERS[stream]
    if value[:2] == _AVRO_MARK:
        return reader.from_avro(value)
    if (number := schema_number(value)) is not None:
        raise Malformed(
            f"expected JSON or an Avro record, got one whose schema is number {number} of a registry; "
            "name it by schema.registry.url in Kafka's file of properties"
        )
    return reader.from_json(value)


def decode_columns(
    values: Sequence[bytes], stream: Stream, names: Sequence[str]
) -> tuple[dict[str, Any], list[Malformed]]:
    """The columns `names` of many messages, the good ones' values in their order, and what was wrong with the others.

    As `decode`, at half its cost or less for messages of this version; but of those only these columns are looked at.
    Numbers and times are arrays, times as datetime64 in UTC; text is a list.
    """
    reader = _READERS[stream]
    columns = reader.plain_columns(values, names)
    if columns is not None:
        return columns, []
    records, wrong = [], []
    for value in values:
        try:
            records.append(decode(value, stream))
        except Malformed as error:
            wrong.append(error)
    return {name: _column([record[name] for record in records], name) for name in names}, wrong


def _column(values: list[Any], name: str) -> Any:
    if name == "ts":
        return np.array([_microseconds(time) for time in values], "datetime64[us]")
    return values if values and type(values[0]) is str else np.array(values)


def _microseconds(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(microseconds=1)


class _Doubt(Exception):
    """It is not plain that all is well."""


class Reader:
    """Reads and writes the records of one stream at one version of its schema."""

    def __init__(self, stream: Stream, fields: tuple[Field, ...], version: int) -> None:
        self._stream = stream
        self._fields = fields
        self._version = version
        self._rounded = [
            (f.name, 10.0**f.decimals) for f in fields if f.type == pa.float32() and f.decimals is not None
        ]
        self._numbers = [f.name for f in fields if f.decimals is not None]
        self._whole = [(f.name, f.largest) for f in fields if pa.types.is_integer(f.type)]
        self._names = [f.name for f in fields if pa.types.is_dictionary(f.type) and not f.labels]
        self._labels = [(f.name, f.labels) for f in fields if f.labels]
        # One schema for each version so far: an older message is read by the schema that wrote it.
        self._avro: dict[bytes, Any] = {}
        for older in range(1, version + 1):
            self._schema = avro_schema(stream, tuple(f for f in fields if f.since <= older))
            self._print = schema_fingerprint(self._schema)
            self._avro[self._print] = fastavro.parse_schema(self._schema)
        self._newest = self._avro[self._print]
        self._header = _AVRO_MARK + self._print

    def to_avro(self, record: dict[str, Any]) -> bytes:
        """The bytes of one record; `ts` in microseconds or as a datetime."""
        out = io.BytesIO()
        out.write(self._header)
        fastavro.schemaless_writer(out, self._newest, record)
        return out.getvalue()

    def from_json(self, value: bytes) -> dict[str, Any]:
        """See `decode`."""
        try:
            record = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise Malformed(f"expected a JSON object or an Avro record, got {_shown(value)} ({error})") from None
        if type(record) is not dict:
            raise Malformed(f"expected a JSON object, got {_shown(record)}")
        if VIN in record:
            record = named_here(record, self._stream)
        self._check_version(record.get("schema"))
        text = record.get("ts")
        if type(text) is str and _TIME.fullmatch(text):
            try:
                record["ts"] = datetime.fromisoformat(text)
            except ValueError as error:
                raise Malformed(f"expected a time like 2026-06-01T07:00:02Z in ts, got {text!r} ({error})") from None
        return self._checked(record)

    def from_avro(self, value: bytes) -> dict[str, Any]:
        """See `decode`."""
        found = value[2:_HEADER_BYTES]
        known = self._avro.get(found)
        if known is None and found in _STREAM_OF:
            raise Malformed(f"expected an Avro record of {self._stream}, got one of {_STREAM_OF[found]}")
        body = io.BytesIO(value)
        body.seek(_HEADER_BYTES)
        try:
            # An unknown fingerprint may be a newer version's, whose fields begin with all of ours.
            record = fastavro.schemaless_reader(body, known or self._newest, None)
        except (EOFError, IndexError, ValueError, OverflowError, MemoryError) as error:
            what = f"one cut off after {len(value)} bytes" if type(error) is EOFError else f"garbage ({error})"
            raise Malformed(f"expected a whole Avro record of {self._stream}, got {what}") from None
        if type(record) is not dict:
            raise Malformed(f"expected an Avro record of {self._stream}, got {_shown(record)}")
        newer = known is None and record["schema"] > self._version
        if known is None and not newer:
            raise Malformed(
                f"expected an Avro record of {self._stream}, got one with the unknown schema fingerprint {found.hex()}"
            )
        self._check_version(record["schema"])
        left = len(value) - body.tell()
        if left and not newer:
            raise Malformed(f"expected the end of the Avro record, got {left} more bytes")
        checked = self._checked(record)
        for name, scale in self._rounded:  # as NumPy rounds, to give the same number as in JSON; round(x, n) is slow
            checked[name] = round(checked[name] * scale) / scale
        return checked

    def plain_columns(self, values: Sequence[bytes], names: Sequence[str]) -> dict[str, Any] | None:
        """These columns where all messages have one form, this version, and plainly good values; None otherwise."""
        row = itemgetter("schema", *names)
        binary = bool(values) and values[0][:2] == _AVRO_MARK
        try:
            read = self._plain_avro if binary else orjson.loads
            versions, *columns = zip(*[row(read(value)) for value in values], strict=True)
            if set(versions) != {self._version} or not _are(versions, int):
                return None
            fields = {field.name: field for field in self._fields}
            return {
                name: self._plain(fields[name], column, binary=binary)
                for name, column in zip(names, columns, strict=True)
            }
        except (_Doubt, ValueError, KeyError, TypeError, EOFError, IndexError, OverflowError, MemoryError):
            return None

    def _plain_avro(self, value: bytes) -> Any:
        body = io.BytesIO(value)
        if body.read(_HEADER_BYTES) != self._header:
            raise _Doubt
        record = fastavro.schemaless_reader(body, self._newest, None)
        if body.tell() != len(value):
            raise _Doubt
        return record

    def _plain(self, field: Field, column: Sequence[Any], *, binary: bool) -> Any:
        """The column of `decode_columns`, checked all at once. _Doubt where one value is not plainly good."""
        found: Any = column
        if field.decimals is not None:
            found = np.array(column, np.float64)
            good = _are(column, float, int) and bool(np.all(np.abs(found) <= LARGEST))
            if binary and field.type == pa.float32():
                scale = 10.0**field.decimals
                found = np.round(found * scale) / scale
        elif pa.types.is_integer(field.type):
            good = _are(column, int) and min(column) >= 0 and max(column) <= field.largest
            found = np.array(column if good else 0, np.int64)
        elif pa.types.is_timestamp(field.type):
            # A fleet reports at the same moments: each is read once.
            times = dict.fromkeys(column)
            good = _are(list(times), datetime if binary else str)
            for time in times if good else ():
                good = good and (binary or _TIME.fullmatch(time) is not None)
                times[time] = _microseconds(time if binary else datetime.fromisoformat(time)) if good else 0
            found = np.array([times[time] for time in column], "datetime64[us]") if good else None
        else:
            good, found = _are(column, str), list(column)
            several = set(column)
            good = good and (several <= set(field.labels) if field.labels else all(map(_NAME.fullmatch, several)))
        if not good:
            raise _Doubt
        return found

    def _check_version(self, version: object) -> None:
        if type(version) is float and version.is_integer():
            version = int(version)  # JSON knows one kind of number: 1.0 is 1
        if type(version) is not int or version < 1:
            raise Malformed(f"expected a schema version from 1 up in schema, got {_shown(version)}")

    def _checked(self, record: dict[str, Any]) -> dict[str, Any]:
        """Known columns only, each of its type and in its range."""
        version = record["schema"]
        result: dict[str, Any] = {"schema": int(version)}
        for field in self._fields:
            try:
                result[field.name] = record[field.name]
            except KeyError:
                if field.since <= version:
                    raise Malformed(f"expected the field {field.name}, got none") from None
                result[field.name] = field.default
        for name in self._names:
            value = result[name]
            if type(value) is not str or not _NAME.fullmatch(value):
                raise Malformed(f"expected 1 to 64 letters, digits and ._+- in {name}, got {_shown(value)}")
        for name, largest in self._whole:
            value = result[name]
            if type(value) is float and value.is_integer():
                value = result[name] = int(value)
            if type(value) is not int or not 0 <= value <= largest:
                raise Malformed(f"expected a whole number from 0 to {largest} in {name}, got {_shown(value)}")
        for name in self._numbers:
            value = result[name]
            if type(value) is int:
                value = result[name] = float(value)
            if type(value) is not float or not -LARGEST <= value <= LARGEST:
                raise Malformed(f"expected a finite number in {name}, got {_shown(value)}")
        time = result["ts"]
        if type(time) is not datetime or time.tzinfo is not UTC:
            raise Malformed(f"expected a time like 2026-06-01T07:00:02Z in ts, got {_shown(time)}")
        for name, labels in self._labels:
            if result[name] not in labels:
                raise Malformed(f"expected one of {', '.join(labels)} in {name}, got {_shown(result[name])}")
        return result


def _are(column: Sequence[Any], *types: type) -> bool:
    """Whether every value is exactly of one of these types: a boolean is no number."""
    return set(map(type, column)) <= set(types)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def schema_fingerprint(schema: dict[str, Any]) -> bytes:
    """CRC-64-AVRO of the schema's canonical form, little-endian as the single-object encoding wants it."""
    return bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))


_READERS: dict[Stream, Reader] = {stream: Reader(stream, FIELDS[stream], SCHEMA_VERSION) for stream in STREAMS}
_STREAM_OF = {schema_fingerprint(avro_schema(stream)): stream for stream in STREAMS}
