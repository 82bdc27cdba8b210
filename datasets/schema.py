"""The records on the wire and on disk: columns, units, resolution, COVESA VSS paths; defined once, here.

A column whose physical resolution is coarser than 1e-7 of its range is stored as float32; accumulators and SoH are
float64. `decimals` is the resolution of the text form (JSON, COPY); the physics rounds to the same resolution, so text
and binary say the same value.

Evolution: `SCHEMA_VERSION` rises when a field is added, at the end, with `since` and a `default`; fields are never
removed, never move and never change their type or their set of values. So a reader of any version reads a message of
any other: it fills in what is missing and passes over what it does not know.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

SCHEMA_VERSION = 1

Stream = Literal["telemetry", "predictions"]
STREAMS: tuple[Stream, ...] = ("telemetry", "predictions")

Payload = Literal["json", "avro"]
PAYLOADS: tuple[Payload, ...] = ("json", "avro")

# What a name that others use as a key may be made of: no slash (ids are joined by it), no wildcard of MQTT, no NUL.
NAME_PATTERN = r"^[A-Za-z0-9._+-]{1,64}$"
TIME_PATTERN = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z$"
LARGEST = 3.4e38  # of float32, and so that sums of any number of them stay finite

MODES = ("parked", "driving", "charging", "fast_charging")

_KEY = pa.dictionary(pa.int32(), pa.string())
_CATEGORY = pa.dictionary(pa.int8(), pa.string())
_TIME = pa.timestamp("us", tz="UTC")
_TBATTERY = "Vehicle.Powertrain.TractionBattery"


@dataclass(frozen=True)
class Field:
    """One column. `unit` is "" for identifiers and ratios; `decimals` is None for anything but floats.

    `since` is the schema version that brought it; `default` stands in messages of an older one.
    """

    name: str
    type: pa.DataType
    unit: str
    description: str
    decimals: int | None = None
    vss: str | None = None
    since: int = 1
    default: Any = None

    @property
    def largest(self) -> int:
        """Of an integer column."""
        return int(2 ** (self.type.bit_width - 1) - 1)


_IDENTITY = (
    Field("run_id", _KEY, "", "Identifies the run: same settings, same seed, same physics, same run_id"),
    Field("vehicle_id", _KEY, "", "EV-000042", vss="Vehicle.VehicleIdentification.VIN"),
    Field("seq", pa.int64(), "", "Counts the vehicle's telemetry records from 0 without a gap"),
    Field("ts", _TIME, "", "Simulated time of the sample, UTC; start + (seq + 1) * telemetry period"),
)

TELEMETRY_FIELDS: tuple[Field, ...] = (
    *_IDENTITY,
    Field("soc", pa.float32(), "", "State of charge of the pack, 0 to 1", 6, f"{_TBATTERY}.StateOfCharge.Current"),
    Field("soh", pa.float64(), "", "Capacity over the fresh capacity, 0 to 1", 7, f"{_TBATTERY}.StateOfHealth"),
    Field("battery_voltage", pa.float32(), "V", "Pack terminal voltage", 3, f"{_TBATTERY}.CurrentVoltage"),
    Field(
        "battery_current",
        pa.float32(),
        "A",
        "Pack current, positive discharges (VSS counts charging positive: negate at that edge)",
        3,
        f"{_TBATTERY}.CurrentCurrent",
    ),
    Field("battery_temperature", pa.float32(), "degC", "Mean cell temperature", 3, f"{_TBATTERY}.Temperature.Average"),
    Field("charge_cycles", pa.float64(), "", "Equivalent full cycles since new", 5),
    Field("power_consumption", pa.float32(), "kW", "Power at the pack terminals, positive discharges", 4),
    Field("cell_voltage_min", pa.float32(), "V", "Lowest cell group of the pack", 5, f"{_TBATTERY}.CellVoltage.Min"),
    Field("cell_voltage_max", pa.float32(), "V", "Highest cell group of the pack", 5, f"{_TBATTERY}.CellVoltage.Max"),
    Field("cell_temperature_min", pa.float32(), "degC", "Coldest cell", 3, f"{_TBATTERY}.Temperature.Min"),
    Field("cell_temperature_max", pa.float32(), "degC", "Warmest cell", 3, f"{_TBATTERY}.Temperature.Max"),
    Field("resistance", pa.float32(), "Ohm", "Pack resistance dV/dI of the last step", 6),
    Field("ambient_temperature", pa.float32(), "degC", "Outside air", 3, "Vehicle.Exterior.AirTemperature"),
    Field("mode", _CATEGORY, "", "One of " + ", ".join(MODES)),
    Field("driving_speed", pa.float32(), "km/h", "Vehicle speed", 3, "Vehicle.Speed"),
    Field("distance_traveled", pa.float64(), "km", "Odometer", 4, "Vehicle.TraveledDistance"),
    Field("flags", pa.int32(), "", "Bit field of physics.FLAGS: 0 where all is in its valid range"),
)

PREDICTION_FIELDS: tuple[Field, ...] = (
    *_IDENTITY,
    Field("model_version", _CATEGORY, "", "Version of the bundle that predicted"),
    Field("rul", pa.float32(), "EFC", "Remaining useful life, equivalent full cycles to end of life (median)", 2),
    Field("rul_low", pa.float32(), "EFC", "Lower end of the interval whose coverage the model card states", 2),
    Field("rul_high", pa.float32(), "EFC", "Upper end of that interval", 2),
    Field("failure_probability", pa.float32(), "", "Probability of end of life within the card's horizon", 6),
)

FIELDS: dict[Stream, tuple[Field, ...]] = {"telemetry": TELEMETRY_FIELDS, "predictions": PREDICTION_FIELDS}
SCHEMAS: dict[Stream, pa.Schema] = {
    stream: pa.schema([pa.field(f.name, f.type, nullable=False) for f in fields]) for stream, fields in FIELDS.items()
}

# The reference system's names of the seven model inputs, in its order.
MODEL_INPUTS: dict[str, str] = {
    "SoC": "soc",
    "SoH": "soh",
    "Battery_Voltage": "battery_voltage",
    "Battery_Current": "battery_current",
    "Battery_Temperature": "battery_temperature",
    "Charge_Cycles": "charge_cycles",
    "Power_Consumption": "power_consumption",
}


def vehicle_id(index: int) -> str:
    """`EV-000042` for 42. Sorts as text up to a million vehicles."""
    return f"EV-{index:06d}"


def vehicle_index(vehicle: str) -> int:
    """The inverse of `vehicle_id`; ValueError with the expected form otherwise."""
    number = vehicle.removeprefix("EV-")
    if not vehicle.startswith("EV-") or not (number.isascii() and number.isdigit()) or len(number) < 6:
        raise ValueError(f"expected a vehicle id like EV-000042, got {vehicle!r}")
    return int(number)


def json_schema(stream: Stream, fields: tuple[Field, ...] = ()) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of one record as Kafka and MQTT carry it; what a reader accepts, exactly."""
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
        elif field.name == "mode":
            described["enum"] = list(MODES)
        elif pa.types.is_dictionary(field.type):
            described["pattern"] = NAME_PATTERN
        if field.unit:
            described["unit"] = field.unit
        if field.vss:
            described["vss"] = field.vss
        properties[field.name] = described
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"EV battery fleet twin: {stream}",
        "type": "object",
        "required": ["schema", *(f.name for f in fields or FIELDS[stream] if f.since == 1)],
        "properties": properties,
    }


def avro_schema(stream: Stream, fields: tuple[Field, ...] = ()) -> dict[str, Any]:
    """The Avro schema of the same record. `schema` comes first: an older reader finds the version before all else."""
    described: list[dict[str, Any]] = [{"name": "schema", "type": "int", "doc": "Version of this schema"}]
    for field in fields or FIELDS[stream]:
        doc = f"{field.description} [{field.unit}]" if field.unit else field.description
        entry = {"name": field.name, "type": _avro_type(field), "doc": doc}
        described.append(entry | ({"default": field.default} if field.since > 1 else {}))
    return {"type": "record", "name": stream, "namespace": "evtwin", "fields": described}


def _avro_type(field: Field) -> Any:
    if pa.types.is_timestamp(field.type):
        return {"type": "long", "logicalType": "timestamp-micros"}
    if field.name == "mode":
        return {"type": "enum", "name": "mode", "symbols": list(MODES)}
    if pa.types.is_dictionary(field.type):
        return "string"
    return {pa.int64(): "long", pa.int32(): "int", pa.float32(): "float", pa.float64(): "double"}[field.type]
