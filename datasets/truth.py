"""The truth of a run: what no vehicle reports, beside its telemetry, so that every estimate can be scored.

A row a vehicle at the start, after each simulated day, and at the end, in `truth/shard=NNNN/<span>.parquet`. A span is
a calendar year or month if that keeps a file below some 200,000 rows, else each time has a file. `vehicle_id` and `ts`
have the types they have in telemetry, so one line joins both:

    SELECT * FROM 'run/telemetry/**/*.parquet' t JOIN 'run/truth/**/*.parquet' USING (vehicle_id, ts)

The rows of the present span are kept in memory and written with each checkpoint, before it. A shard that goes on from a
checkpoint takes them from the file, up to the checkpoint's time.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from datasets.log import LogDamaged
from datasets.log.durable import make_directory, replace_file

TRUTH: dict[str, tuple[str, str]] = {
    "soc": ("", "State of charge, 0 to 1"),
    "soh": ("", "Capacity at rest between the voltage limits over the fresh capacity"),
    "soh_usable": ("", "What the weakest cell group leaves of it: discharging ends where that group is empty"),
    "resistance": ("Ohm", "Of the pack: a 10 s pulse at 1C, 25 degC and half charge, from rest"),
    "soh_resistance": ("", "Fresh over present resistance before diffusion responds, at 25 degC, without faults"),
    "lli": ("", "Loss of lithium inventory: the sum of the four that follow"),
    "sei": ("", "of it in the SEI film"),
    "dead_lithium": ("", "of it dead"),
    "plated_lithium": ("", "of it plated, may come back"),
    "lam_lithium": ("", "of it inside lost active material"),
    "lam_ne": ("", "Loss of active material, negative electrode"),
    "lam_pe": ("", "Loss of active material, positive electrode"),
    "wetted": ("", "Share of the electrodes' area that electrolyte wets; below 1 it has begun to dry out"),
    "sei_thickness_m": ("m", "Thickness of the SEI film"),
    "fault": ("", "The gravest of the vehicle's faults that have begun (docs/physics.md), none for none"),
    "fault_onset_s": ("s", "Since 1970"),
    "fault_severity": ("", "In the unit of its kind (docs/physics.md)"),
    "faults": ("", "All its faults, also those to come, by onset: JSON, [[kind, onset_s, severity], ..]"),
    "failed": ("", "1 after thermal runaway: out of service"),
    "stops": ("", "How often the battery management system has stopped the vehicle for an empty cell group"),
    "outside_valid_range": ("", "Whether the model has ever left its valid range"),
    "cell": ("", "The kind of cell"),
}
"""Columns beside run_id, vehicle_id and ts: unit and meaning."""

_SPAN_ROWS = 200_000
_TIME = pa.timestamp("us", tz="UTC")
_TEXT = pa.dictionary(pa.int32(), pa.string())
_TYPES = {
    "fault": _TEXT,
    "faults": _TEXT,
    "cell": _TEXT,
    "outside_valid_range": pa.bool_(),
    "fault_onset_s": pa.float64(),
    "soh": pa.float64(),
}
TRUTH_SCHEMA = pa.schema(
    [
        pa.field("run_id", _TEXT, nullable=False),
        pa.field("vehicle_id", _TEXT, nullable=False),
        pa.field("ts", _TIME, nullable=False),
        *(pa.field(name, _TYPES.get(name, pa.float32()), nullable=False) for name in TRUTH),
    ]
)


def truth_directory(run_dir: Path, shard: int) -> Path:
    """Where a shard's truth is."""
    return run_dir / "truth" / f"shard={shard:04d}"


def _keeps(vehicles: int) -> bool:
    """Whether rows of several times share a file, and so wait for it in memory."""
    return 31 * vehicles <= _SPAN_ROWS


def _span(vehicles: int, time_us: int) -> str:
    """The name of the file that holds a row of this time, such as 2026, 2026-06 or 2026-06-01T070000Z."""
    form = "%Y" if 366 * vehicles <= _SPAN_ROWS else ("%Y-%m" if _keeps(vehicles) else "%Y-%m-%dT%H%M%SZ")
    return datetime.fromtimestamp(time_us // 1_000_000, UTC).strftime(form)


def truth_ticks(step_s: float) -> int:
    """Steps between two times of truth: a simulated day."""
    return max(1, round(86_400.0 / step_s))


class TruthWriter:
    """Collects and writes the truth of one shard. LogDamaged if what is there cannot be read.

    keys     run_id and vehicle_id of each vehicle
    upto_us  go on from this simulated time [us since 1970]
    """

    def __init__(self, directory: Path, keys: Mapping[str, pa.DictionaryArray], upto_us: int) -> None:
        self._directory, self._keys = directory, dict(keys)
        self._vehicles = len(keys["vehicle_id"])
        self._name = _span(self._vehicles, upto_us)
        self._rows, self._written = self._read(upto_us), True
        self.last_us = pc.max(self._rows.column("ts")).cast(pa.int64()).as_py()
        """Time of the last row [us since 1970], None before the first."""

    def _path(self) -> Path:
        return self._directory / f"{self._name}.parquet"

    def _read(self, upto_us: int) -> pa.Table:
        try:
            rows = pq.read_table(self._path(), schema=TRUTH_SCHEMA, partitioning=None)
        except FileNotFoundError:
            return TRUTH_SCHEMA.empty_table()
        except (OSError, pa.ArrowInvalid) as error:
            raise _damaged(self._path(), error) from error
        return rows.filter(pc.less_equal(rows.column("ts"), pa.scalar(upto_us, _TIME)))

    def add(self, time_us: int, truth: Mapping[str, npt.NDArray[Any]]) -> None:
        """One row a vehicle: `truth` has arrays of shape (vehicles,) by the names of `TRUTH`. A time that is there
        already is not added twice. A span that has ended is written; LogFull if there is no room."""
        if self.last_us is not None and time_us <= self.last_us:
            return
        if (name := _span(self._vehicles, time_us)) != self._name:
            self.write()
            self._name, self._rows = name, TRUTH_SCHEMA.empty_table()
        columns: dict[str, Any] = self._keys | {"ts": pa.array(np.full(self._vehicles, time_us), _TIME)}
        for field in TRUTH_SCHEMA:
            if field.name not in columns:
                values = pa.array(truth[field.name])
                columns[field.name] = values.dictionary_encode() if field.type == _TEXT else values.cast(field.type)
        rows = pa.table([columns[field.name] for field in TRUTH_SCHEMA], schema=TRUTH_SCHEMA)
        self._rows = pa.concat_tables([self._rows, rows]).unify_dictionaries()
        self.last_us, self._written = time_us, False
        if not _keeps(self._vehicles):
            self.write()
            self._rows = TRUTH_SCHEMA.empty_table()

    def write(self) -> None:
        """Put all rows on the disk. LogFull if there is no room; they are kept then."""
        if not self._written:
            make_directory(self._directory)
            replace_file(self._path(), lambda file: pq.write_table(self._rows, file, compression="zstd"))
            self._written = True


def _damaged(path: Path, error: Exception) -> LogDamaged:
    why = " ".join(str(error).split())
    return LogDamaged(f"{path} cannot be read ({why}); move it away to go on without the rows that it held")


def truth_times(directory: Path) -> tuple[int, datetime | None, datetime | None]:
    """(rows, first time, last time) of a shard's truth on the disk; (0, None, None) if there is none. LogDamaged if it
    cannot be read."""
    rows, times = 0, []
    for path in sorted(directory.glob("*.parquet")):
        try:
            metadata = pq.read_metadata(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise _damaged(path, error) from error
        rows += metadata.num_rows
        column = metadata.schema.to_arrow_schema().get_field_index("ts")
        for group in range(metadata.num_row_groups):
            statistics = metadata.row_group(group).column(column).statistics
            times += [statistics.min, statistics.max]
    return rows, min(times, default=None), max(times, default=None)
