"""A fleet that drives, parks and charges: the whole simulation of one shard, stepped in blocks of ticks.

Results depend only on (population, cycles, start, step) and the tick: not on how vehicles are divided into shards, nor
on how many ticks a call advances.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numba
import numpy as np
import numpy.typing as npt

from physics.cells import load_cell
from physics.climate import CITIES, ambient_K
from physics.constants import KELVIN
from physics.duty import find_event, resample
from physics.kernel import (
    refresh_capacity,
    refresh_cells,
    rest_cells,
    soc_of,
    soh_of,
    step_cells,
)
from physics.layout import (
    ACTIVE_N,
    ACTIVE_P,
    AMBIENT,
    AREA,
    AUXILIARY,
    BLOCK_SIZE,
    CAPACITY_REFRESH_S,
    CHARGE_LIMIT,
    CHARGER,
    CITY,
    COOLING_SCALE,
    CURRENT,
    DAY,
    DT,
    EVENT,
    FLAG_POWER,
    FLAG_RANGE,
    FLAG_VOLTAGE,
    FLAGS,
    HABIT,
    LAM_SCALE,
    LANES,
    MASS,
    MODE,
    NEXT_EVENT,
    ODOMETER,
    PLATING_SCALE,
    PLUGGED,
    Q_SEI,
    R_DYNAMIC,
    REFRESH_S,
    RESISTANCE_SCALE,
    SAMPLE,
    SEI_SCALE,
    SPEED,
    SPEED_SCALE,
    TEMPERATURE,
    THROUGHPUT,
    TRACE_END,
    UTC_OFFSET,
    VEHICLE,
    VOLTAGE,
    WORK_SIZE,
    X_EMPTY,
    X_FULL,
    X_N,
    X_P,
)
from physics.maths import CACHED
from physics.modal import CellModel, cell_model, equilibrium_voltage
from physics.parameters import FloatArray
from physics.population import Population, aged_limits
from physics.vehicle import (
    CELLS_PARALLEL,
    CELLS_SERIES,
    CHARGER_MARGIN_V,
    CHARGING,
    PACK_COOLING_SCALE,
    ask_cells,
    follow_plans,
    read_traces,
    refresh_climate,
)

Column = npt.NDArray[Any]

# Name, decimals. The order is that of the SAMPLE rows.
COLUMNS: Final = (
    ("soc", 6),
    ("soh", 7),
    ("battery_voltage", 3),
    ("battery_current", 3),
    ("battery_temperature", 3),
    ("charge_cycles", 5),
    ("power_consumption", 4),
    ("cell_voltage", 5),
    ("resistance", 6),
    ("ambient_temperature", 3),
    ("driving_speed", 3),
    ("distance_traveled", 4),
    ("mode", 0),
    ("flags", 0),
)
_TYPES: Final[dict[str, Any]] = {"mode": np.int8, "flags": np.int32}

_RANGE: Final = float(FLAGS["outside_valid_range"])
_VOLTAGE: Final = float(FLAGS["voltage_limited"])
_POWER: Final = float(FLAGS["power_not_met"])


@numba.njit(**CACHED)
def _round(x: float, per_unit: float) -> float:
    """To the nearest decimal: the division gives the float64 closest to it, so its text form is short."""
    rounded: float = np.rint(x * per_unit) / per_unit
    return rounded


@numba.njit(**CACHED)
def _sample(block: FloatArray, work: FloatArray, c: CellModel) -> None:
    """Telemetry of 128 vehicles into the SAMPLE rows; the flags start afresh."""
    for k in range(LANES):
        current, voltage = block[CURRENT + k], block[VOLTAGE + k]
        work[SAMPLE + 0 * LANES + k] = _round(soc_of(block, k), 1e6)
        work[SAMPLE + 1 * LANES + k] = _round(soh_of(block, k, c), 1e7)
        work[SAMPLE + 2 * LANES + k] = _round(voltage * CELLS_SERIES, 1e3)
        work[SAMPLE + 3 * LANES + k] = _round(current * CELLS_PARALLEL, 1e3)
        work[SAMPLE + 4 * LANES + k] = _round(block[TEMPERATURE + k] - KELVIN, 1e3)
        work[SAMPLE + 5 * LANES + k] = _round(block[THROUGHPUT + k] / (2.0 * c.nominal_Ah), 1e5)
        work[SAMPLE + 6 * LANES + k] = _round(voltage * current * (CELLS_SERIES * CELLS_PARALLEL / 1000.0), 1e4)
        work[SAMPLE + 7 * LANES + k] = _round(voltage, 1e5)
        work[SAMPLE + 8 * LANES + k] = _round(block[R_DYNAMIC + k] * (CELLS_SERIES / CELLS_PARALLEL), 1e6)
        work[SAMPLE + 9 * LANES + k] = _round(block[AMBIENT + k] - KELVIN, 1e3)
        work[SAMPLE + 10 * LANES + k] = _round(block[SPEED + k] * 3.6, 1e3)
        work[SAMPLE + 11 * LANES + k] = _round(block[ODOMETER + k] / 1000.0, 1e4)
        work[SAMPLE + 12 * LANES + k] = block[MODE + k]
        work[SAMPLE + 13 * LANES + k] = (
            _RANGE * block[FLAG_RANGE + k] + _VOLTAGE * block[FLAG_VOLTAGE + k] + _POWER * block[FLAG_POWER + k]
        )
        block[FLAG_RANGE + k] = 0.0
        block[FLAG_VOLTAGE + k] = 0.0
        block[FLAG_POWER + k] = 0.0


@numba.njit(**CACHED)
def advance_fleet(
    blocks: FloatArray,
    tick_0: int,
    ticks: int,
    sample_every: int,
    refresh_ticks: int,
    capacity_ticks: int,
    dt: float,
    start_s: float,
    seed: int,
    c: CellModel,
    traces: FloatArray,
    cycle_start: npt.NDArray[np.int64],
    cycle_ticks: npt.NDArray[np.int64],
    samples: FloatArray,
) -> None:
    """Advance all blocks, shape (blocks, BLOCK_SIZE), by `ticks` steps of dt [s]; each block runs through on its own.

    `samples`, shape (columns, n_samples, n_vehicles), takes one sample at every absolute tick divisible by
    `sample_every`.
    """
    vehicles = samples.shape[2]
    work = np.zeros(WORK_SIZE)
    work[DT : DT + LANES] = dt
    for j in range(blocks.shape[0]):
        block = blocks[j]
        first = j * LANES
        here = min(LANES, vehicles - first)
        next_plan = -1.0
        row = 0
        for tick in range(tick_0, tick_0 + ticks):
            if tick % refresh_ticks == 0:
                refresh_cells(block, work, c)
            if tick % capacity_ticks == 0:
                refresh_capacity(block, c)
                refresh_climate(block, seed, start_s + tick * dt)
            if tick >= next_plan:
                next_plan = follow_plans(block, tick, seed, start_s, dt, cycle_start, cycle_ticks)
            read_traces(block, traces)
            ask_cells(block, work, dt, c)
            step_cells(block, work, c)
            if (tick + 1) % sample_every == 0:
                _sample(block, work, c)
                for column in range(samples.shape[0]):
                    for k in range(here):
                        samples[column, row, first + k] = work[SAMPLE + column * LANES + k]
                row += 1


@numba.njit(**CACHED)
def _set_up(
    blocks: FloatArray, dt: float, start_s: float, seed: int, c: CellModel, cycle_ticks: npt.NDArray[np.int64]
) -> None:
    """First entry of each plan, first climate, cells at rest at ambient temperature."""
    for j in range(blocks.shape[0]):
        block = blocks[j]
        for k in range(LANES):
            offset = block[UTC_OFFSET + k]
            today = math.floor((start_s + offset) / 86400.0)
            tick, day, event = find_event(seed, int(block[VEHICLE + k]), today, 0, offset, start_s, dt, cycle_ticks)
            block[NEXT_EVENT + k] = tick
            block[DAY + k] = day
            block[EVENT + k] = event
            block[TEMPERATURE + k] = ambient_K(seed, int(block[CITY + k]), start_s + offset)
        rest_cells(block, c)


class FleetPhysics:
    """Vehicles of one shard, from `start_s` on, in steps of `step_s`.

    A vehicle begins at rest at ambient temperature, plugged in; what its plan had begun earlier that day goes on.
    `advance` uses one thread and releases the GIL.
    """

    def __init__(
        self,
        population: Population,
        *,
        cycles: Sequence[npt.NDArray[np.float64]],
        start_s: int,
        step_s: float = 1.0,
    ) -> None:
        if not (math.isfinite(step_s) and 0.0 < step_s <= 60.0):
            raise ValueError(f"step_s must be above 0 and at most 60 s, got {step_s}")
        if len(cycles) == 0:
            raise ValueError("cycles must hold at least one speed trace")
        for k, speeds in enumerate(cycles):
            if np.ndim(speeds) != 1 or len(speeds) < 2 or not np.all(np.isfinite(speeds)) or np.min(speeds) < 0.0:
                raise ValueError(f"cycles[{k}] must be a 1-D array of at least two finite speeds >= 0 in m/s")
        self.population = population
        self.tick = 0
        self.step_s = float(step_s)
        self.start_s = int(start_s)
        self._model = cell_model(load_cell(population.cell))
        tables = [resample(np.asarray(speeds, dtype=np.float64), step_s) for speeds in cycles]
        self._cycle_ticks = np.array([table.size - 1 for table in tables], dtype=np.int64)
        self._cycle_start = 2 + np.concatenate([[0], np.cumsum(self._cycle_ticks + 1)[:-1]]).astype(np.int64)
        self._traces = np.concatenate([[0.0, 0.0], *tables])  # a parked vehicle reads the two zeros
        self._refresh_ticks = max(1, round(REFRESH_S / step_s))
        self._capacity_ticks = max(1, round(CAPACITY_REFRESH_S / step_s))
        self._blocks = self._first_blocks()

    def _first_blocks(self) -> FloatArray:
        p, model = self.population, self._model
        count = -(-len(p) // LANES)
        blocks = np.zeros((count, BLOCK_SIZE))
        rows = blocks.reshape(count, -1, LANES)
        lanes = np.minimum(np.arange(count * LANES), len(p) - 1)  # spare lanes repeat the last vehicle

        def put(offset: int, values: FloatArray | npt.NDArray[np.int64] | float) -> None:
            full = np.broadcast_to(np.asarray(values, dtype=np.float64), (len(p),))
            rows[:, offset // LANES] = full[lanes].reshape(count, LANES)

        inventory, x_full, x_empty = aged_limits(model, p.sei_thickness_m)
        x_n = x_empty + p.initial_soc * (x_full - x_empty)
        put(X_N, x_n)
        put(X_P, (inventory - model.q_n * x_n) / model.q_p)
        put(X_FULL, x_full)
        put(X_EMPTY, x_empty)
        put(Q_SEI, p.sei_thickness_m / model.sei_length)
        limit = equilibrium_voltage(model, x_empty + p.soc_limit * (x_full - x_empty), inventory)
        put(CHARGE_LIMIT, np.minimum(limit, model.voltage_max - CHARGER_MARGIN_V))
        put(ACTIVE_N, 1.0)
        put(ACTIVE_P, 1.0)
        put(AREA, model.area * p.capacity_scale)
        put(RESISTANCE_SCALE, p.resistance_scale)
        put(COOLING_SCALE, PACK_COOLING_SCALE)
        put(SEI_SCALE, p.sei_scale)
        put(PLATING_SCALE, 1.0)
        put(LAM_SCALE, 1.0)
        put(THROUGHPUT, p.charge_cycles * 2.0 * model.nominal_Ah)
        put(ODOMETER, p.odometer_km * 1000.0)
        put(VEHICLE, p.vehicle)
        put(SPEED_SCALE, p.speed_scale)
        put(MASS, p.mass_kg)
        put(AUXILIARY, p.auxiliary_W)
        put(CHARGER, p.charger_W)
        put(HABIT, p.plug_habit)
        put(CITY, p.city)
        put(UTC_OFFSET, np.array([city.utc_offset_s for city in CITIES])[p.city])
        put(MODE, CHARGING)
        put(PLUGGED, 1.0)
        put(TRACE_END, 1.0)
        _set_up(blocks, self.step_s, float(self.start_s), p.seed, model, self._cycle_ticks)
        return blocks

    def __len__(self) -> int:
        return len(self.population)

    @property
    def bytes_a_vehicle(self) -> float:
        """Memory of the blocks over the number of vehicles."""
        return self._blocks.nbytes / len(self)

    def advance(self, ticks: int, sample_every: int) -> dict[str, Column]:
        """Step `ticks` times; telemetry at every absolute tick divisible by `sample_every`, each (n_samples,
        n_vehicles).

        A sample at tick k is the state at the end of step k, at start_s + k step_s. Units and resolution: `COLUMNS` and
        docs/physics.md. Flags gather what happened since the sample before.
        """
        if ticks < 0 or sample_every < 1:
            raise ValueError(f"expected ticks >= 0 and sample_every >= 1, got {ticks} and {sample_every}")
        count = (self.tick + ticks) // sample_every - self.tick // sample_every
        samples = np.empty((len(COLUMNS), count, len(self)))
        advance_fleet(
            self._blocks,
            self.tick,
            ticks,
            sample_every,
            self._refresh_ticks,
            self._capacity_ticks,
            self.step_s,
            float(self.start_s),
            self.population.seed,
            self._model,
            self._traces,
            self._cycle_start,
            self._cycle_ticks,
            samples,
        )
        self.tick += ticks
        return {
            name: samples[k].astype(_TYPES.get(name, np.float64), copy=False) for k, (name, _) in enumerate(COLUMNS)
        }

    def snapshot(self) -> dict[str, Column]:
        """Everything needed to go on byte-exactly with the same population, cycles, start and step."""
        return {"tick": np.array(self.tick, dtype=np.int64), "blocks": self._blocks.copy()}

    def restore(self, snapshot: dict[str, Column]) -> None:
        """Go back (or on) to a snapshot of a FleetPhysics made with the same arguments."""
        blocks = np.asarray(snapshot["blocks"])
        if blocks.shape != self._blocks.shape or blocks.dtype != np.float64:
            raise ValueError(
                f"the snapshot's blocks are {blocks.shape} {blocks.dtype}, this fleet's {self._blocks.shape} float64:"
                " it was made with other vehicles or another version"
            )
        vehicles = blocks.reshape(blocks.shape[0], -1, LANES)[:, VEHICLE // LANES].reshape(-1)[: len(self)]
        if not np.array_equal(vehicles, self.population.vehicle):
            raise ValueError("the snapshot is of other vehicles")
        self._blocks = blocks.copy()
        self.tick = int(snapshot["tick"])
