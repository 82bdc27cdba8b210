"""One cell in the laboratory: a protocol is repeated, cycle after cycle, and measured as a cycler would.

Time steps are long where nothing changes fast, because the diffusion modes are exact for a constant current. They are
1 s for the first 10 s of every protocol step, then `step_s` (at rest, `rest_step_s` after a minute). A time step that
runs past the end of a protocol step is taken back and repeated with shorter ones. So every end is met within a tenth of
a second. `tests/physics/test_lab.py` compares with 1 s throughout.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from physics.cell import rested_block
from physics.cells import load_cell
from physics.compiled import kernel
from physics.constants import KELVIN
from physics.kernel import refresh_capacity, refresh_cells, soc_of, soh_of, step_cells
from physics.layout import (
    ACTIVE_N,
    ACTIVE_P,
    CAPACITY_REFRESH_S,
    CURRENT,
    CURRENT_HIGH,
    CURRENT_LOW,
    DEAD,
    DRIFT,
    DT,
    FLAG_POWER,
    FLAG_RANGE,
    FLAG_VOLTAGE,
    HEAT,
    INV_Q_N,
    LANES,
    PLATED,
    POWER,
    Q_SEI,
    Q_SIDE,
    R_DYNAMIC,
    REFRESH_S,
    ROWS,
    TEMPERATURE,
    VOLTAGE,
    VOLTAGE_HIGH,
    VOLTAGE_LOW,
    WORK_SIZE,
    X_N,
    X_P,
)
from physics.modal import CellModel, cell_model
from physics.parameters import CellParameters, FloatArray
from physics.protocol import LARGEST_C_RATE, Kind, Step, checked_protocol, parse_protocol

_COLDEST_C: Final = -60.0
_HOTTEST_C: Final = 100.0
_MOST_CYCLES: Final = 1_000_000
_NO_LIMIT_V: Final = 1e3

# Columns of the compiled protocol.
_KIND, _DIRECTION, _AMOUNT, _VOLTAGE, _CUTOFF, _DURATION = range(6)
_CC, _CCCV, _CV, _CP, _REST = range(5)
_CODES: Final = {Kind.CC: _CC, Kind.CCCV: _CCCV, Kind.CV: _CV, Kind.CP: _CP, Kind.REST: _REST}

# What ended a step.
_TARGET, _TIME, _LIMIT, _EMPTY, _TOO_LONG, _FAILED = range(6)
ENDINGS: Final = (
    "target",
    "time",
    "the cell's own voltage limit",
    "no lithium left to move",
    "longest time of a step",
    "the model's numbers are no longer finite",
)

# Rows of a cycle's totals.
_CHARGED_AH, _DISCHARGED_AH, _CHARGED_WH, _DISCHARGED_WH, _T_MAX, _T_MIN, _R_10S, _SECONDS, _OUTSIDE = range(9)
_TOTALS: Final = 9

# Rows of the series.
_SERIES: Final = ("time_s", "step", "voltage_V", "current_A", "temperature_C", "soc", "heat_W", "flags")

_FINE_S: Final = 1.0  # time step in the first seconds, and near an end
_FINEST_S: Final = 0.1  # time step at the end itself
_SETTLED_S: Final = 10.0  # age of a current up to which time steps are fine; also when the resistance is read
_INSTANT_S: Final = 1e-6  # times closer than this are the same
_RELAXED_S: Final = 60.0  # age of a rest from which its time steps are long


@dataclass(frozen=True)
class Series:
    """One cycle in time; arrays of shape (n,). The first value is at the start, the others at ends of time steps."""

    cycle: int
    time_s: FloatArray
    """Since the start of the cycle."""
    step: npt.NDArray[np.int32]
    """Which step of the protocol, from 1."""
    voltage_V: FloatArray
    current_A: FloatArray
    temperature_C: FloatArray
    soc: FloatArray
    heat_W: FloatArray
    flags: npt.NDArray[np.int32]
    """Bit field of `physics.FLAGS`."""


@dataclass(frozen=True)
class Cycles:
    """One row per cycle; arrays of shape (cycles,)."""

    cycle: npt.NDArray[np.int32]
    """From 1."""
    discharge_Ah: FloatArray
    charge_Ah: FloatArray
    discharge_Wh: FloatArray
    charge_Wh: FloatArray
    soh: FloatArray
    """Capacity at rest between the voltage limits over the fresh cell's, at the end of the cycle."""
    capacity_Ah: FloatArray
    """The capacity at rest that `soh` is made of."""
    resistance_Ohm: FloatArray
    """Of the first constant-current step, 10 s after its start; NaN where the cycle has none of 10 s."""
    max_temperature_C: FloatArray
    min_temperature_C: FloatArray
    sei_thickness_m: FloatArray
    plated_Ah: FloatArray
    """Lithium metal that can still dissolve again."""
    dead_Ah: FloatArray
    """Lithium metal cut off from the electrode."""
    active_n: FloatArray
    """Active material left, fraction of fresh."""
    active_p: FloatArray
    lithium_Ah: FloatArray
    """Lithium in the active material of both electrodes."""
    duration_s: FloatArray
    outside_valid_range: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class LabResult:
    """What `simulate_protocol` returns."""

    cell: str
    protocol: tuple[Step, ...]
    cycles: Cycles
    series: tuple[Series, ...]
    """The cycles that were kept."""
    endings: npt.NDArray[np.int8]
    """What ended each step, index in `ENDINGS`, shape (cycles, steps)."""

    def complaints(self) -> list[str]:
        """One line for every step that did not end as its text says, and in how many cycles."""
        lines = []
        for index, step in enumerate(self.protocol):
            for code in range(_LIMIT, len(ENDINGS)):
                where = np.flatnonzero(self.endings[:, index] == code)
                if where.size:
                    first = self.cycles.cycle[where[0]]
                    lines.append(
                        f'step {index + 1} "{step.text}" was ended by: {ENDINGS[code]},'
                        f" in {where.size} of {len(self.endings)} cycles, first in cycle {first}"
                    )
        return lines


@kernel
def run_cycle(
    block: FloatArray,
    steps: FloatArray,
    step_s: float,
    rest_step_s: float,
    longest_s: float,
    largest_A: float,
    c: CellModel,
    totals: FloatArray,
    endings: npt.NDArray[np.int8],
    series: FloatArray,
) -> int:
    """Run a protocol once on all lanes of a block and measure lane 0. Returns how many points `series` holds.

    steps     shape (n, 6): kind, direction (+1 discharges, -1 charges, 0 towards the target), amount [A or W],
              target or held voltage [V] (0: none), final current [A] (0: none), duration [s] (inf: none)
    totals    shape (9,), this cycle's, out
    endings   shape (n,), out
    series    shape (8, m), out; when it is full, every second point is dropped, and from then on only every second
              one is recorded. m = 0: nothing is recorded
    """
    totals[:] = 0.0
    totals[_T_MAX] = block[TEMPERATURE]
    totals[_T_MIN] = block[TEMPERATURE]
    before, work = np.empty(ROWS), np.zeros(WORK_SIZE)
    room = series.shape[1]
    count, stride, skipped = 0, 1, 0
    clock = 0.0
    dt_before, since_refresh, since_capacity = 1.0, np.inf, np.inf
    for s in range(steps.shape[0]):
        kind = int(steps[s, _KIND])
        amount, target, cutoff = steps[s, _AMOUNT], steps[s, _VOLTAGE], steps[s, _CUTOFF]
        direction = steps[s, _DIRECTION]
        v_free = block[VOLTAGE] + block[R_DYNAMIC] * block[CURRENT]
        if direction == 0.0:
            direction = 1.0 if target < v_free else -1.0
        holds = kind in (_CV, _CCCV)
        own_limit = c.voltage_min if direction > 0.0 else c.voltage_max
        longest = min(steps[s, _DURATION], longest_s)
        # --- demand -----------------------------------------------------------------------------------------
        asked = 0.0 if kind == _REST else direction * (largest_A if kind == _CV else amount)
        low = high = asked
        power = 0.0
        if kind == _CP:
            power = asked
            low, high = (0.0, largest_A) if direction > 0.0 else (-largest_A, 0.0)
        v_low, v_high = 0.0, _NO_LIMIT_V
        if holds and direction > 0.0:
            v_low = target
        elif holds:
            v_high = target
        for k in range(LANES):
            work[CURRENT_LOW + k] = low
            work[CURRENT_HIGH + k] = high
            work[POWER + k] = power
            work[VOLTAGE_LOW + k] = v_low
            work[VOLTAGE_HIGH + k] = v_high
        if s == 0 and room > 0:
            series[0, 0] = 0.0
            series[1, 0] = 1.0
            series[2, 0] = block[VOLTAGE]
            series[3, 0] = block[CURRENT]
            series[4, 0] = block[TEMPERATURE]
            series[5, 0] = soc_of(block, 0)
            series[6, 0] = 0.0
            series[7, 0] = 0.0
            count = 1
        # --- march ------------------------------------------------------------------------------------------
        t, held_since = 0.0, 0.0
        holding = kind == _CV
        v_start, i_start, resistance_read = block[VOLTAGE], block[CURRENT], kind != _CC
        finest = np.inf  # how short the time steps have had to become
        ending = _TOO_LONG
        while True:
            age = t - held_since
            dt = step_s if kind != _REST or age < _RELAXED_S else rest_step_s
            if age < _SETTLED_S - _INSTANT_S:
                dt = min(dt, _FINE_S, _SETTLED_S - age)
            dt = min(dt, finest, longest - t)
            # --- one step -----------------------------------------------------------------------------------
            if dt < dt_before:
                # Deduct what side reactions took in a long step at once: over a short step it would be a pulse.
                for k in range(LANES):
                    block[X_N + k] -= block[Q_SIDE + k] * block[INV_Q_N + k]
                    block[Q_SIDE + k] = 0.0
            if dt != dt_before or since_refresh >= REFRESH_S:
                for k in range(LANES):
                    work[DT + k] = dt
                refresh_cells(block, work, c)
                for k in range(LANES):
                    block[DRIFT + k] *= dt / dt_before
                since_refresh, dt_before = 0.0, dt
            if since_capacity >= CAPACITY_REFRESH_S:
                refresh_capacity(block, c)
                since_capacity = 0.0
            for k in range(LANES):
                block[FLAG_RANGE + k] = 0.0
                block[FLAG_VOLTAGE + k] = 0.0
                block[FLAG_POWER + k] = 0.0
            for row in range(ROWS):
                before[row] = block[row * LANES]
            step_cells(block, work, c)
            voltage, current = block[VOLTAGE], block[CURRENT]
            cut = abs(current) < 0.999 * abs(asked)
            if holds:
                reached = (holding or cut) and abs(current) <= cutoff
                beyond = spent = False
            else:
                reached = target > 0.0 and direction * (voltage - target) <= 0.0
                beyond = kind != _REST and direction * (voltage - own_limit) < 0.0
                spent = (kind == _CC and cut) or (kind == _CP and abs(current) < 1e-9)
            turns = holds and (not holding) and cut
            if (reached or beyond or spent or turns) and dt > 1.001 * _FINEST_S:
                # Take the step back: all lanes are alike.
                for row in range(ROWS):
                    for k in range(LANES):
                        block[row * LANES + k] = before[row]
                finest = _FINE_S if dt > 1.001 * _FINE_S else _FINEST_S
                continue
            t += dt
            clock += dt
            since_refresh += dt
            since_capacity += dt
            # --- measure ------------------------------------------------------------------------------------
            charge = current * dt / 3600.0
            if current > 0.0:
                totals[_DISCHARGED_AH] += charge
                totals[_DISCHARGED_WH] += charge * voltage
            else:
                totals[_CHARGED_AH] -= charge
                totals[_CHARGED_WH] -= charge * voltage
            totals[_T_MAX] = max(totals[_T_MAX], block[TEMPERATURE])
            totals[_T_MIN] = min(totals[_T_MIN], block[TEMPERATURE])
            totals[_OUTSIDE] = max(totals[_OUTSIDE], block[FLAG_RANGE])
            if (not resistance_read) and t >= _SETTLED_S - _INSTANT_S:
                resistance_read = True
                if totals[_R_10S] == 0.0 and abs(current - i_start) > 0.05 * c.nominal_Ah:
                    totals[_R_10S] = (v_start - voltage) / (current - i_start)
            # --- does it end? -------------------------------------------------------------------------------
            done = True
            if not (math.isfinite(voltage) and math.isfinite(current) and math.isfinite(block[TEMPERATURE])):
                ending = _FAILED
            elif reached:
                ending = _TARGET
            elif spent:
                ending = _EMPTY
            elif beyond:
                ending = _LIMIT
            elif t >= longest - _INSTANT_S:
                ending = _TIME if steps[s, _DURATION] <= longest_s else _TOO_LONG
            else:
                done = False
            if turns:
                holding, held_since, finest = True, t, np.inf
            # --- record -------------------------------------------------------------------------------------
            skipped += 1
            if room > 0 and (skipped >= stride or done):
                skipped = 0
                if count == room:
                    count = (room + 1) // 2
                    for n in range(count):
                        for row in range(series.shape[0]):
                            series[row, n] = series[row, 2 * n]
                    stride *= 2
                series[0, count] = clock
                series[1, count] = s + 1.0
                series[2, count] = voltage
                series[3, count] = current
                series[4, count] = block[TEMPERATURE]
                series[5, count] = soc_of(block, 0)
                series[6, count] = block[HEAT]
                series[7, count] = 1.0 * block[FLAG_RANGE] + 4.0 * block[FLAG_POWER]
                count += 1
            if done:
                break
        endings[s] = ending
        if ending == _FAILED:
            break
    for _ in range(4):
        refresh_capacity(block, c)
    totals[_SECONDS] = clock
    return count


@kernel
def _health(block: FloatArray, c: CellModel) -> float:
    """State of health of lane 0."""
    soh: float = soh_of(block, 0, c)
    return soh


def simulate_protocol(
    cell: str | CellParameters,
    protocol: str | tuple[Step, ...],
    cycles: int = 1,
    ambient_C: float = 25.0,
    initial_soc: float | None = None,
    *,
    step_s: float = 10.0,
    rest_step_s: float = 60.0,
    longest_step_h: float = 100.0,
    keep: Iterable[int] = (1, -1),
    points: int = 20_000,
    capacity_scale: float = 1.0,
    resistance_scale: float = 1.0,
) -> LabResult:
    """Repeat a protocol on one cell, from rest at ambient temperature.

    cell              name of a cell (`physics.cell_names()`) or its parameters
    protocol          text (see `physics/protocol.py`) or its parsed steps
    cycles            repetitions
    ambient_C         [degC]
    initial_soc       0 to 1, between the cell's own voltage limits at rest; default: full, or empty where the first
                      step (rests aside) charges
    step_s            longest time step while current flows [s]
    rest_step_s       longest time step at rest [s], where the scheme is exact except for the film's growth
    longest_step_h    a protocol step that has not met its end by then is ended; `endings` says so
    keep              cycles whose time series is returned; negative numbers count from the last
    points            largest number of points of a kept cycle; a longer one is thinned evenly
    capacity_scale, resistance_scale   of this cell, relative to the nominal one
    """
    parameters = cell if isinstance(cell, CellParameters) else load_cell(cell)
    steps = checked_protocol(parse_protocol(protocol) if isinstance(protocol, str) else protocol, parameters)
    _check("cycles", cycles, 1, _MOST_CYCLES)
    if cycles != int(cycles):
        raise ValueError(f"cycles must be a whole number, got {cycles}")
    _check("ambient_C", ambient_C, _COLDEST_C, _HOTTEST_C)
    _check("step_s", step_s, 0.01, 60.0)
    _check("rest_step_s", rest_step_s, 0.01, 3600.0)
    _check("longest_step_h", longest_step_h, 0.001, 100_000.0)
    _check("points", points, 2, 10_000_000)
    _check("capacity_scale", capacity_scale, 0.01, 100.0)
    _check("resistance_scale", resistance_scale, 0.01, 100.0)
    if initial_soc is None:
        first = next((step for step in steps if step.kind is not Kind.REST), None)
        initial_soc = 0.0 if first is not None and first.charges else 1.0
    _check("initial_soc", initial_soc, 0.0, 1.0)
    kept = {number if number > 0 else cycles + 1 + number for number in keep}
    model = cell_model(parameters)
    block = rested_block(
        model,
        soc=initial_soc,
        temperature_C=ambient_C,
        capacity_scale=capacity_scale,
        resistance_scale=resistance_scale,
    )
    area = model.area * capacity_scale
    compiled = _compiled(steps, parameters.nominal_capacity_Ah)
    largest_A = LARGEST_C_RATE * parameters.nominal_capacity_Ah
    totals = np.zeros((cycles, _TOTALS))
    states = np.zeros((cycles, 8))
    endings = np.full((cycles, len(steps)), -1, dtype=np.int8)
    buffer, nothing = np.empty((len(_SERIES), points)), np.empty((len(_SERIES), 0))
    series = []
    done = cycles
    for index in range(cycles):
        record = buffer if index + 1 in kept else nothing
        count = run_cycle(
            block,
            compiled,
            float(step_s),
            float(rest_step_s),
            3600.0 * longest_step_h,
            largest_A,
            model,
            totals[index],
            endings[index],
            record,
        )
        states[index] = [
            _health(block, model),
            *(block[row] for row in (Q_SEI, PLATED, DEAD, ACTIVE_N, ACTIVE_P, X_N, X_P)),
        ]
        if count:
            series.append(_series(index + 1, buffer[:, :count]))
        if _FAILED in endings[index]:
            done = index + 1
            break
    return LabResult(
        cell=parameters.name,
        protocol=steps,
        cycles=_cycles(totals[:done], states[:done], model, area),
        series=tuple(series),
        endings=endings[:done],
    )


def _check(name: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise ValueError(f"{name} must be from {low:g} to {high:g}, got {value}")


def _compiled(steps: tuple[Step, ...], capacity_Ah: float) -> FloatArray:
    """The steps as numbers, shape (n, 6)."""
    rows = []
    for step in steps:
        amount = step.rate.ampere(capacity_Ah) if step.rate else step.power_W or 0.0
        rows.append(
            [
                _CODES[step.kind],
                {None: 0.0, True: -1.0, False: 1.0}[step.charges],
                amount,
                step.voltage_V or 0.0,
                step.cutoff.ampere(capacity_Ah) if step.cutoff else 0.0,
                step.duration_s or math.inf,
            ]
        )
    return np.array(rows, dtype=np.float64)


def _series(cycle: int, rows: FloatArray) -> Series:
    time_s, step, voltage, current, temperature, soc, heat, flags = rows.copy()
    return Series(
        cycle=cycle,
        time_s=time_s,
        step=step.astype(np.int32),
        voltage_V=voltage,
        current_A=current,
        temperature_C=temperature - KELVIN,
        soc=soc,
        heat_W=heat,
        flags=flags.astype(np.int32),
    )


def _cycles(totals: FloatArray, states: FloatArray, model: CellModel, area: float) -> Cycles:
    soh, q_sei, plated, dead, active_n, active_p, x_n, x_p = states.T
    to_Ah = area / 3600.0
    return Cycles(
        cycle=np.arange(1, len(totals) + 1, dtype=np.int32),
        discharge_Ah=totals[:, _DISCHARGED_AH],
        charge_Ah=totals[:, _CHARGED_AH],
        discharge_Wh=totals[:, _DISCHARGED_WH],
        charge_Wh=totals[:, _CHARGED_WH],
        soh=soh,
        capacity_Ah=soh * model.q_n * (model.x_full - model.x_empty) * to_Ah,
        resistance_Ohm=np.where(totals[:, _R_10S] == 0.0, np.nan, totals[:, _R_10S]),
        max_temperature_C=totals[:, _T_MAX] - KELVIN,
        min_temperature_C=totals[:, _T_MIN] - KELVIN,
        sei_thickness_m=q_sei * model.sei_length / active_n,
        plated_Ah=plated * to_Ah,
        dead_Ah=dead * to_Ah,
        active_n=active_n,
        active_p=active_p,
        lithium_Ah=(model.q_n * active_n * x_n + model.q_p * active_p * x_p) * to_Ah,
        duration_s=totals[:, _SECONDS],
        outside_valid_range=totals[:, _OUTSIDE] > 0.0,
    )
