"""The records on the wire and on disk: columns, units, resolution, COVESA VSS paths.

What a vehicle reports is defined in `physics/columns.py`. This file defines the columns that every record begins with
and the outputs of a model. Values are rounded to `decimals` once, where they are made, so text and binary agree.

Evolution: a field is added at the end, with a `since` that raises `SCHEMA_VERSION` and a `default`. Fields are never
removed, never move and never change their type or their set of values. So a reader of any version reads a message of
any other: it fills in what is missing and ignores what it does not know.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from datasets.names import PAYLOADS, STREAMS, Payload, Stream
from physics.columns import COLUMNS, Column

__all__ = [
    "FIELDS",
    "LARGEST",
    "MODEL_INPUTS",
    "MODEL_OUTPUTS",
    "NAME_PATTERN",
    "PAYLOADS",
    "SCHEMAS",
    "SCHEMA_VERSION",
    "STREAMS",
    "TIME_PATTERN",
    "VEHICLE_ID",
    "Field",
    "Payload",
    "Stream",
    "avro_schema",
    "json_schema",
    "upgraded",
    "vehicle_id",
    "vehicle_index",
    "vehicle_indices",
]

# Characters of a name that others use as a key: no slash (it joins ids), no MQTT wildcard, no NUL.
NAME_PATTERN = r"^[A-Za-z0-9._+-]{1,64}$"
TIME_PATTERN = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z$"
LARGEST = 3.4e38  # that a float32 holds; float64 sums of any number of such values stay finite

_KEY = pa.dictionary(pa.int32(), pa.string())
_CATEGORY = pa.dictionary(pa.int8(), pa.string())
_TIME = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class Field:
    """One column of a stream. `unit` is "" for identifiers and ratios; `decimals` is None for anything but floats.

    `labels` are the values a text column can have, () for any. `since` is the schema version that introduced the field;
    `default` is its value in messages of an older version.
    """

    name: str
    type: pa.DataType
    unit: str
    description: str
    decimals: int | None = None
    vss: str | None = None
    labels: tuple[str, ...] = ()
    since: int = 1
    default: Any = None

    @property
    def largest(self) -> int:
        """Largest value of an integer column."""
        return int(2 ** (self.type.bit_width - 1) - 1)

    @property
    def described(self) -> str:
        """The description with the unit."""
        return f"{self.description} [{self.unit}]" if self.unit else self.description

    def rounded(self, values: npt.NDArray[np.floating[Any]]) -> npt.NDArray[Any]:
        """Values at the field's resolution, of its type."""
        assert self.decimals is not None
        return np.round(values.astype(np.float64), self.decimals).astype(self.type.to_pandas_dtype())

    def numbers(self, column: pa.Array) -> npt.NDArray[np.float64]:
        """The values of a float column, at its resolution: a float32 only comes near it, a float64 has it."""
        assert self.decimals is not None
        values: npt.NDArray[np.float64] = column.to_numpy().astype(np.float64)
        return values if self.type == pa.float64() else np.round(values, self.decimals)


def _field(column: Column) -> Field:
    return Field(
        name=column.name,
        type=_CATEGORY if column.labels else pa.from_numpy_dtype(column.type),
        unit=column.unit,
        description=column.description,
        decimals=column.decimals,
        vss=column.vss,
        labels=column.labels,
        since=column.since,
        default=column.default,
    )


_IDENTITY = (
    Field("run_id", _KEY, "", "Identifies the run: same settings, same seed, same physics, same run_id"),
    Field("vehicle_id", _KEY, "", "EV-000042", vss="Vehicle.VehicleIdentification.VIN"),
    Field("seq", pa.int64(), "", "Counts the vehicle's telemetry records from 0 without a gap"),
    Field("ts", _TIME, "", "Simulated time of the sample, UTC; start + (seq + 1) * telemetry period"),
)

MODEL_OUTPUTS = (
    Field("rul", pa.float32(), "EFC", "Remaining useful life, equivalent full cycles to end of life (median)", 2),
    Field("rul_low", pa.float32(), "EFC", "Lower end of the interval whose coverage the model card states", 2),
    Field("rul_high", pa.float32(), "EFC", "Upper end of that interval", 2),
    Field("failure_probability", pa.float32(), "", "Probability of end of life within the card's horizon", 6),
)
"""What a model predicts for a vehicle: the answer of a bundle, of the pool and of REST, and columns of predictions."""

FIELDS: dict[Stream, tuple[Field, ...]] = {
    "telemetry": (*_IDENTITY, *map(_field, COLUMNS)),
    "predictions": (
        *_IDENTITY,
        Field("model_version", _CATEGORY, "", "Version of the bundle that predicted"),
        *MODEL_OUTPUTS,
    ),
}
SCHEMA_VERSION = max(field.since for fields in FIELDS.values() for field in fields)
SCHEMAS: dict[Stream, pa.Schema] = {
    stream: pa.schema([pa.field(f.name, f.type, nullable=False) for f in fields]) for stream, fields in FIELDS.items()
}


def upgraded(batch: pa.RecordBatch, stream: Stream) -> pa.RecordBatch:
    """Rows of an older version of the schema, with the default of each column that came since."""
    if len(batch.schema.names) == len(FIELDS[stream]):
        return batch
    missing = [
        pa.repeat(pa.scalar(field.default, field.type), batch.num_rows)
        for field in FIELDS[stream][len(batch.schema.names) :]
    ]
    return pa.record_batch([*batch.columns, *missing], schema=SCHEMAS[stream])


# The seven model inputs: the reference system's names and our columns, in its order.
MODEL_INPUTS: dict[str, str] = {
    "SoC": "soc",
    "SoH": "soh",
    "Battery_Voltage": "battery_voltage",
    "Battery_Current": "battery_current",
    "Battery_Temperature": "battery_temperature",
    "Charge_Cycles": "charge_cycles",
    "Power_Consumption": "power_consumption",
}


VEHICLE_ID: Final = r"^EV-[0-9]{6,12}$"
"""What vehicle ids look like, as a regular expression."""


def vehicle_id(index: int) -> str:
    """`EV-000042` for 42. Sorts as text up to a million vehicles."""
    return f"EV-{index:06d}"


def vehicle_index(vehicle: str) -> int:
    """The inverse of `vehicle_id`. Raises a ValueError that names the expected form."""
    number = vehicle.removeprefix("EV-")
    if not vehicle.startswith("EV-") or not (number.isascii() and number.isdigit()) or len(number) < 6:
        raise ValueError(f"expected a vehicle id like EV-000042, got {vehicle!r}")
    return int(number)


def vehicle_indices(vehicles: pa.StringArray) -> npt.NDArray[np.int64]:
    """`vehicle_index` of many that are known to be vehicle ids, shape (n,)."""
    return np.asarray(pc.cast(pc.utf8_slice_codeunits(vehicles, 3), pa.int64()))


def json_schema(stream: Stream, fields: tuple[Field, ...] = ()) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of one record as Kafka and MQTT carry it: exactly what a reader accepts."""
    newest = f"Version of this schema, {SCHEMA_VERSION}; a newer one has more fields"
    properties: dict[str, Any] = {"schema": {"type": "integer", "minimum": 1, "description": newest}}
    for field in fields or FIELDS[stream]:
        described: dict[str, Any] = {"description": field.description}
        if pa.types.is_floating(field.type):
            described |= {"type": "number", "minimum": -LARGEST, "maximum": LARGEST}
        elif pa.types.is_integer(field.type):
            described |= {"type": "integer", "minimum": 0, "maximum": field.largest}
        else:
            described["type"] = "string"
        if pa.types.is_timestamp(field.type):
            described |= {"format": "date-time", "pattern": TIME_PATTERN}
        elif field.labels:
            described["enum"] = list(field.labels)
        elif pa.types.is_dictionary(field.type):
            described["pattern"] = NAME_PATTERN
        if field.unit:
            described["unit"] = field.unit
        if field.vss:
            described["vss"] = field.vss
        properties[field.name] = described
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"EV battery fleet twin: {stream}",
        "type": "object",
        "required": ["schema", *(f.name for f in fields or FIELDS[stream] if f.since == 1)],
        "properties": properties,
    }
    # A message has all fields of its version.
    later = sorted({f.since for f in fields or FIELDS[stream]} - {1})
    if later:
        schema["allOf"] = [
            {
                "if": {"properties": {"schema": {"minimum": version}}},
                "then": {"required": [f.name for f in fields or FIELDS[stream] if f.since == version]},
            }
            for version in later
        ]
    return schema


def avro_schema(stream: Stream, fields: tuple[Field, ...] = ()) -> dict[str, Any]:
    """The Avro schema of the same record. `schema` comes first, so an older reader finds the version first of all."""
    described: list[dict[str, Any]] = [{"name": "schema", "type": "int", "doc": "Version of this schema"}]
    for field in fields or FIELDS[stream]:
        entry = {"name": field.name, "type": _avro_type(field), "doc": field.described}
        described.append(entry | ({"default": field.default} if field.since > 1 else {}))
    return {"type": "record", "name": stream, "namespace": "evtwin", "fields": described}


def _avro_type(field: Field) -> Any:
    if pa.types.is_timestamp(field.type):
        return {"type": "long", "logicalType": "timestamp-micros"}
    if field.labels:
        return {"type": "enum", "name": field.name, "symbols": list(field.labels)}
    if pa.types.is_dictionary(field.type):
        return "string"
    return {pa.int64(): "long", pa.int32(): "int", pa.float32(): "float", pa.float64(): "double"}[field.type]
