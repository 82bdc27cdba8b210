"""One cell in the laboratory: a protocol is repeated, cycle after cycle, and measured as a cycler would.

Time steps are long where nothing changes fast, because the diffusion modes are exact for a constant current. They are
1 s for the first 10 s of every protocol step and after every change of a recorded demand, then `step_s` (at rest,
`rest_step_s` after a minute). A time step that runs past the end of a protocol step is taken back and repeated with
shorter ones. So every end is met within a tenth of a second; where the voltage moves faster, the last tenth of a second
is held at the limit. `tests/physics/test_lab.py` compares with 1 s throughout.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from physics.cell import WITHIN_V, check_branches, rested_block, step_within_limits, surface_spent, take_back
from physics.cells import load_cell
from physics.compiled import kernel
from physics.constants import COLDEST_C, HOTTEST_C, KELVIN, LARGEST_C_RATE
from physics.kernel import refresh_capacity, refresh_cells, soc_of, soh_of, step_cells
from physics.layout import (
    ACTIVE_N,
    ACTIVE_P,
    AMBIENT,
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
from physics.parameters import BetweenBranches, CellParameters, FloatArray
from physics.protocol import Kind, Step, checked_protocol, parse_protocol

_MOST_CYCLES: Final = 1_000_000
_NO_LIMIT_V: Final = 1e3

_LONGEST_H: Final = 100.0  # of a step without a time of its own

# Columns of the compiled protocol.
(
    _KIND,
    _DIRECTION,
    _AMOUNT,
    _VOLTAGE,
    _CUTOFF,
    _ABOVE,
    _CHARGE,
    _DURATION,
    _LONGEST,
    _CHAMBER,
    _PERIOD,
    _FIRST,
    _LAST,
) = range(13)
_CC, _CCCV, _CV, _CP, _REST, _DRIVE_A, _DRIVE_W = range(7)
_CODES: Final = {Kind.CC: _CC, Kind.CCCV: _CCCV, Kind.CV: _CV, Kind.CP: _CP, Kind.REST: _REST}

# What ended a step.
_TARGET, _TIME, _LIMIT, _EMPTY, _TOO_LONG, _FAILED = range(6)
ENDINGS: Final = (
    "target",
    "time",
    "the cell's own voltage limit",
    "no lithium left to move, in the cell or at the surface of its particles",
    "the longest time of a step that has none of its own (add 'for' and a time)",
    "the model's numbers are no longer finite",
)

# Rows of a cycle's totals.
_CHARGED_AH, _DISCHARGED_AH, _CHARGED_WH, _DISCHARGED_WH, _T_MAX, _T_MIN, _R_10S, _SECONDS, _OUTSIDE, _CUT = range(10)
_TOTALS: Final = 10

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
    limited_s: FloatArray
    """How long a voltage limit cut the demand of a recorded drive."""
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
        """One line for every step that did not end as its text says, and for drives that were cut."""
        lines = []
        cut = np.flatnonzero(self.cycles.limited_s > 0.0)
        if cut.size:
            lines.append(
                f"the cell's own voltage limit cut the current of the drive for {self.cycles.limited_s[cut[0]]:.1f} s"
                f" of cycle {self.cycles.cycle[cut[0]]}, and in {cut.size} of {len(self.endings)} cycles"
            )
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
def _demand(work: FloatArray, kind: int, asked: float, largest_A: float, v_low: float, v_high: float) -> None:
    """Write what all lanes shall do: `asked` [A], or [W] for a power; + discharges; between voltages [V]."""
    is_power = kind in (_CP, _DRIVE_W)
    low = high = asked
    if is_power:
        low, high = (0.0, largest_A) if asked > 0.0 else (-largest_A, 0.0)
    for k in range(LANES):
        work[CURRENT_LOW + k] = low
        work[CURRENT_HIGH + k] = high
        work[POWER + k] = asked if is_power else 0.0
        work[VOLTAGE_LOW + k] = v_low
        work[VOLTAGE_HIGH + k] = v_high


@kernel
def repeats(step: FloatArray) -> bool:
    """Whether a drive begins again at its end: it does where it has another end."""
    another: bool = step[_VOLTAGE] > 0.0 or step[_CHARGE] < np.inf or step[_DURATION] < np.inf
    return another


@kernel
def run_cycle(
    block: FloatArray,
    steps: FloatArray,
    drive_times: FloatArray,
    drive_values: FloatArray,
    ambient_K: float,
    step_s: float,
    rest_step_s: float,
    largest_A: float,
    c: CellModel,
    totals: FloatArray,
    endings: npt.NDArray[np.int8],
    series: FloatArray,
) -> int:
    """Run a protocol once on all lanes of a block and measure lane 0. Returns how many points `series` holds.

    steps     shape (n, 13): kind, direction (+1 discharges, -1 charges, 0 towards the target), amount [A or W],
              target or held voltage [V] (0: none), current at or below which it ends [A] (0: none), at or above which
              it ends [A] (inf: none), charge [Ah] (inf: none), duration [s] (inf: none), longest time without a
              duration [s], temperature of the air [K], longest time step [s], first and last row of its drive
    drive_times, drive_values   of all drives one after another, shape (m,): from time k [s] the demand is value k
              [A or W]; the last time of a drive is its end
    ambient_K temperature of the air where a step has none [K]
    totals    shape (10,), this cycle's, out
    endings   shape (n,), out
    series    shape (8, m), out; when it is full, every second point is dropped, and from then on only every second
              one is recorded. m = 0: nothing is recorded
    """
    totals[:] = 0.0
    totals[_T_MAX] = block[TEMPERATURE]
    totals[_T_MIN] = block[TEMPERATURE]
    before, scratch, work = np.empty(ROWS), np.empty(ROWS), np.zeros(WORK_SIZE)
    room = series.shape[1]
    count, stride, skipped = 0, 1, 0
    clock = 0.0
    dt_before, since_refresh, since_capacity = 1.0, np.inf, np.inf
    for s in range(steps.shape[0]):
        kind = int(steps[s, _KIND])
        amount, target, cutoff = steps[s, _AMOUNT], steps[s, _VOLTAGE], steps[s, _CUTOFF]
        above, charge_Ah = steps[s, _ABOVE], steps[s, _CHARGE]
        towards = steps[s, _DIRECTION]
        v_free = block[VOLTAGE] + block[R_DYNAMIC] * block[CURRENT]
        if towards == 0.0:
            towards = 1.0 if target < v_free else -1.0
        holds, drives = kind in (_CV, _CCCV), kind in (_DRIVE_A, _DRIVE_W)
        timed = steps[s, _DURATION] < np.inf
        longest = steps[s, _DURATION] if timed else steps[s, _LONGEST]
        air = steps[s, _CHAMBER] if steps[s, _CHAMBER] > 0.0 else ambient_K
        for k in range(LANES):
            block[AMBIENT + k] = air
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
        t, held_since, moved_Ah = 0.0, 0.0, 0.0
        row, lap_start = int(steps[s, _FIRST]), 0.0
        row_end = np.inf
        asked = 0.0 if kind == _REST else towards * (largest_A if kind == _CV else amount)
        holding = kind == _CV
        v_start, i_start, resistance_read = block[VOLTAGE], block[CURRENT], kind != _CC
        finest = np.inf  # how short the time steps have had to become
        ending = _TOO_LONG
        while True:
            # --- demand -------------------------------------------------------------------------------------
            if drives:
                if t >= row_end - _INSTANT_S:
                    row += 1
                    finest = np.inf
                    if row == int(steps[s, _LAST]):
                        row, lap_start = int(steps[s, _FIRST]), lap_start + drive_times[row]
                    if drive_values[row] != asked:
                        held_since = t
                asked = drive_values[row]
                row_end = lap_start + drive_times[row + 1]
            direction = towards if not drives else (1.0 if asked > 0.0 else -1.0)
            own_limit = c.voltage_min if direction > 0.0 else c.voltage_max
            v_low = target if holds and direction > 0.0 else 0.0
            v_high = target if holds and direction < 0.0 else c.voltage_max if drives else _NO_LIMIT_V
            _demand(work, kind, asked, largest_A, v_low, v_high)
            age = t - held_since
            dt = step_s if kind != _REST or age < _RELAXED_S else rest_step_s
            if age < _SETTLED_S - _INSTANT_S:
                dt = min(dt, _FINE_S, _SETTLED_S - age)
            dt = min(dt, finest, longest - t, row_end - t, steps[s, _PERIOD])
            if kind == _CC and charge_Ah < np.inf:
                dt = min(dt, max(3600.0 * (charge_Ah - abs(moved_Ah)) / amount, _INSTANT_S))
            # --- one step -----------------------------------------------------------------------------------
            if dt < dt_before:
                # Side reactions of a long step, taken over a short one, would be a pulse: the short step takes its
                # share and the rest is taken at once.
                share = dt / dt_before
                for k in range(LANES):
                    block[X_N + k] -= (1.0 - share) * block[Q_SIDE + k] * block[INV_Q_N + k]
                    block[Q_SIDE + k] *= share
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
            for row_of in range(ROWS):
                before[row_of] = block[row_of * LANES]
            limited = False
            if holds or (drives and direction < 0.0):
                limited = step_within_limits(block, work, scratch, c) and drives
            else:
                step_cells(block, work, c)
            voltage, current = block[VOLTAGE], block[CURRENT]
            moved = moved_Ah + current * dt / 3600.0
            full_measure = abs(moved) >= charge_Ah * (1.0 - 1e-12)
            cut = abs(current) < 0.999 * abs(asked)
            past_target = (not holds) and target > 0.0 and towards * (voltage - target) <= 0.0
            beyond = ((not holds) and (not limited) and kind != _REST and asked != 0.0) and direction * (
                voltage - own_limit
            ) < 0.0
            if kind in (_CP, _DRIVE_W):
                spent = asked != 0.0 and (not limited) and abs(current) < 1e-9
            else:
                spent = (not holds) and (not limited) and cut
            spent = spent or ((not holds) and (not limited) and asked != 0.0 and surface_spent(work, direction))
            reached = past_target or full_measure
            if kind == _CP or (holds and (holding or cut)):
                reached = reached or abs(current) >= above or (cutoff > 0.0 and abs(current) <= cutoff)
            turns = holds and (not holding) and cut
            if (reached or beyond or spent or turns) and dt > 1.001 * _FINEST_S:
                take_back(block, before)
                finest = _FINE_S if dt > 1.001 * _FINE_S else _FINEST_S
                continue
            bound = target if past_target and direction * towards > 0.0 else own_limit
            if (past_target or beyond) and direction * (voltage - bound) < -WITHIN_V:
                # Even so short a step would leave the limits: hold it there.
                take_back(block, before)
                low, high = (bound, _NO_LIMIT_V) if direction > 0.0 else (0.0, bound)
                _demand(work, kind, asked, largest_A, low, high)
                step_within_limits(block, work, scratch, c)
                limited = True
                voltage, current = block[VOLTAGE], block[CURRENT]
                moved = moved_Ah + current * dt / 3600.0
            moved_Ah = moved
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
            if drives and limited:
                totals[_CUT] += dt
            if (not resistance_read) and t >= _SETTLED_S - _INSTANT_S:
                resistance_read = True
                if totals[_R_10S] == 0.0 and abs(current - i_start) > 0.05 * c.nominal_Ah:
                    totals[_R_10S] = (v_start - voltage) / (current - i_start)
            # --- does it end? -------------------------------------------------------------------------------
            over = drives and (not repeats(steps[s])) and row + 1 == int(steps[s, _LAST]) and t >= row_end - _INSTANT_S
            done = True
            if not (math.isfinite(voltage) and math.isfinite(current) and math.isfinite(block[TEMPERATURE])):
                ending = _FAILED
            elif reached:
                ending = _TARGET
            elif spent:
                ending = _EMPTY
            elif beyond:
                ending = _LIMIT
            elif over:
                ending = _TIME
            elif t >= longest - _INSTANT_S:
                ending = _TIME if timed else _TOO_LONG
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
                        for row_of in range(series.shape[0]):
                            series[row_of, n] = series[row_of, 2 * n]
                    stride *= 2
                series[0, count] = clock
                series[1, count] = s + 1.0
                series[2, count] = voltage
                series[3, count] = current
                series[4, count] = block[TEMPERATURE]
                series[5, count] = soc_of(block, 0)
                series[6, count] = block[HEAT]
                series[7, count] = 1.0 * block[FLAG_RANGE] + (2.0 if limited else 0.0) + 4.0 * block[FLAG_POWER]
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
    initial_C: float | None = None,
    initial_hysteresis: BetweenBranches = (None, None),
    step_s: float = 10.0,
    rest_step_s: float = 60.0,
    longest_step_h: float | None = None,
    keep: Iterable[int] = (1, -1),
    points: int = 20_000,
    capacity_scale: float = 1.0,
    resistance_scale: float = 1.0,
) -> LabResult:
    """Repeat a protocol on one cell, from rest.

    cell              name of a cell (`physics.cell_names()`) or its parameters
    protocol          text (see `physics/protocol.py`) or its parsed steps
    cycles            repetitions
    ambient_C         of the air around the cell [degC], except in steps that give their own
    initial_soc       0 to 1, between the cell's own voltage limits at rest; default: full, or empty where the first
                      step (rests aside) charges
    initial_C         of the cell at the start [degC]; default: as the air
    initial_hysteresis   as for `simulate_cell`
    step_s            longest time step while current flows [s]
    rest_step_s       longest time step at rest [s], where the scheme is exact except for the film's growth
    longest_step_h    a protocol step without a time of its own that has not met its end by then is ended; `endings`
                      says so. Default: 100 h, or twice as long as a constant current needs for the cell's capacity
    keep              cycles whose time series is returned; negative numbers count from the last
    points            largest number of points of a kept cycle; a longer one is thinned evenly
    capacity_scale, resistance_scale   of this cell, relative to the nominal one
    """
    parameters = cell if isinstance(cell, CellParameters) else load_cell(cell)
    steps = checked_protocol(parse_protocol(protocol) if isinstance(protocol, str) else protocol, parameters)
    _check("cycles", cycles, 1, _MOST_CYCLES)
    if cycles != int(cycles):
        raise ValueError(f"cycles must be a whole number, got {cycles}")
    _check("ambient_C", ambient_C, COLDEST_C, HOTTEST_C)
    initial_C = ambient_C if initial_C is None else initial_C
    _check("initial_C", initial_C, COLDEST_C, HOTTEST_C)
    _check("step_s", step_s, 0.01, 60.0)
    _check("rest_step_s", rest_step_s, 0.01, 3600.0)
    if longest_step_h is not None:
        _check("longest_step_h", longest_step_h, 0.001, 100_000.0)
    _check("points", points, 2, 10_000_000)
    _check("capacity_scale", capacity_scale, 0.01, 100.0)
    _check("resistance_scale", resistance_scale, 0.01, 100.0)
    if initial_soc is None:
        initial_soc = initial_soc_for(steps)
    _check("initial_soc", initial_soc, 0.0, 1.0)
    check_branches(initial_hysteresis)
    kept = {number if number > 0 else cycles + 1 + number for number in keep}
    model = cell_model(parameters)
    block = rested_block(
        model,
        soc=initial_soc,
        temperature_C=initial_C,
        hysteresis=initial_hysteresis,
        capacity_scale=capacity_scale,
        resistance_scale=resistance_scale,
    )
    area = model.area * capacity_scale
    compiled, drive_times, drive_values = _compiled(
        steps, parameters.nominal_capacity_Ah, capacity_scale, longest_step_h
    )
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
            drive_times,
            drive_values,
            ambient_C + KELVIN,
            float(step_s),
            float(rest_step_s),
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


def initial_soc_for(steps: tuple[Step, ...]) -> float:
    """1 (full), or 0 where the first step, rests aside, charges."""
    first = next((step for step in steps if step.kind is not Kind.REST), None)
    return 0.0 if first is not None and first.charges else 1.0


def _check(name: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise ValueError(f"{name} must be from {low:g} to {high:g}, got {value}")


def _compiled(
    steps: tuple[Step, ...], capacity_Ah: float, capacity_scale: float, longest_step_h: float | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The steps as numbers, shape (n, 13), and times and values of all drives, shape (m,), for `run_cycle`."""
    rows, times, values = [], [np.empty(0)], [np.empty(0)]
    for step in steps:
        amount = step.rate.ampere(capacity_Ah) if step.rate else step.power_W or 0.0
        longest_h = longest_step_h or _LONGEST_H
        if longest_step_h is None and step.kind is Kind.CC:
            longest_h = max(longest_h, 2.0 * max(capacity_scale * capacity_Ah, step.charge_Ah or 0.0) / amount)
        kind, first, last = _CODES.get(step.kind, _DRIVE_A), 0, 0
        if step.drive is not None:
            kind = _DRIVE_W if step.drive.column == "power_W" else _DRIVE_A
            first = sum(map(len, times))
            last = first + len(step.drive.value)
            times.append(step.drive.time_s)
            values.append(np.append(step.drive.value * (capacity_Ah if step.drive.column == "c_rate" else 1.0), 0.0))
            if longest_step_h is None:
                ends = step.voltage_V is not None or step.charge_Ah is not None  # else the file does
                longest_h = max(longest_h, 2.0 * float(step.drive.time_s[-1]) / 3600.0) if ends else math.inf
        rows.append(
            [
                kind,
                {None: 0.0, True: -1.0, False: 1.0}[step.charges],
                amount,
                step.voltage_V or 0.0,
                step.cutoff.ampere(capacity_Ah) if step.cutoff else 0.0,
                step.above.ampere(capacity_Ah) if step.above else math.inf,
                step.charge_Ah or math.inf,
                step.duration_s or math.inf,
                3600.0 * longest_h,
                0.0 if step.chamber_C is None else step.chamber_C + KELVIN,
                step.period_s or math.inf,
                first,
                last,
            ]
        )
    return np.array(rows, dtype=np.float64), np.concatenate(times), np.concatenate(values)


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
        limited_s=totals[:, _CUT],
        outside_valid_range=totals[:, _OUTSIDE] > 0.0,
    )
