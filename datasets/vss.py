"""A record under COVESA VSS 6: its paths as keys, its units, its signs.

A message is one flat JSON object. What is no signal of a vehicle (`schema`, `run_id`, `seq`, `ts`) keeps its name. A
column without a path of the standard stands under `Vehicle.Private`, with our units. VSS counts current and power into
the battery as positive, distance in metres, power in watts, states of charge and health in percent.

Nothing is lost on the way: `named_here` gives back the record of the log, digit for digit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa

from datasets.names import STREAMS, Stream
from datasets.schema import FIELDS, LARGEST, Field

VIN: Final = "Vehicle.VehicleIdentification.VIN"
_PRIVATE: Final = "Vehicle.Private"
_OURS: Final = frozenset({"run_id", "seq", "ts"})


@dataclass(frozen=True)
class _Edge:
    """How many of the unit of VSS are one of ours: a power of ten with a sign."""

    unit: str
    factor: int


_EDGES: Final = {
    "soc": _Edge("percent", 100),
    "soh": _Edge("percent", 100),
    "battery_current": _Edge("A", -1),
    "power_consumption": _Edge("W", -1000),
    "distance_traveled": _Edge("m", 1000),
}


@dataclass(frozen=True)
class Signal:
    """A column as it is sent. `field` has its name, unit and decimals there."""

    ours: Field
    field: Field
    factor: int

    @classmethod
    def of(cls, field: Field) -> Signal:
        if field.name in _OURS:
            return cls(field, field, 1)
        edge = _EDGES.get(field.name, _Edge(field.unit, 1))
        private = f"{_PRIVATE}.{''.join(word.capitalize() for word in field.name.split('_'))}"
        finer = len(str(abs(edge.factor))) - 1
        decimals = None if field.decimals is None else field.decimals - finer
        kind = field.type if edge.factor == 1 else pa.float64()
        described = field.description.replace("positive discharges", "positive into the battery")
        return cls(
            field,
            replace(
                field, name=field.vss or private, unit=edge.unit, decimals=decimals, type=kind, description=described
            ),
            edge.factor,
        )

    def sent(self, column: pa.Array) -> pa.Array:
        """The column in the unit of VSS."""
        if self.factor == 1:
            return column
        assert self.field.decimals is not None
        # From 0: a current of 0 is no -0.
        return pa.array(np.round(0.0 + self.ours.numbers(column) * self.factor, self.field.decimals) + 0.0)

    def read(self, value: object) -> object:
        """A value that was sent, in our unit. What is no finite number stays, to be refused by name."""
        if (
            self.factor == 1
            or isinstance(value, bool)
            or not isinstance(value, int | float)
            or not abs(value) <= LARGEST
        ):
            return value
        assert self.ours.decimals is not None
        return round(value / self.factor, self.ours.decimals) + 0.0


SIGNALS: Final[dict[Stream, tuple[Signal, ...]]] = {
    stream: tuple(Signal.of(field) for field in FIELDS[stream]) for stream in STREAMS
}


def renamed(batch: pa.RecordBatch, stream: Stream) -> pa.RecordBatch:
    """The rows under the names and in the units of VSS."""
    signals = SIGNALS[stream]
    return pa.record_batch(
        [signal.sent(batch.column(signal.ours.name)) for signal in signals], [signal.field.name for signal in signals]
    )


def named_here(record: dict[str, Any], stream: Stream) -> dict[str, Any]:
    """The record of a message with paths as keys, under our names and in our units. Other keys stay as they are."""
    here = dict(record)
    for signal in SIGNALS[stream]:
        if signal.field.name in here:
            here[signal.ours.name] = signal.read(here.pop(signal.field.name))
    return here
