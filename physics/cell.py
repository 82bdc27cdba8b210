"""One cell in the laboratory: a current profile in, arrays out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from physics.cells import load_cell
from physics.compiled import kernel
from physics.constants import COLDEST_C, HOTTEST_C, KELVIN, LARGEST_C_RATE
from physics.dryout import ENDLESS
from physics.kernel import (
    PLANNED_BELOW_V,
    X_SURFACE_MIN,
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
    ASKED,
    BLOCK_SIZE,
    CAPACITY_REFRESH_S,
    COOLING_SCALE,
    CURRENT,
    CURRENT_HIGH,
    CURRENT_LOW,
    DEAD,
    DT,
    FILM_SCALE,
    FLAG_POWER,
    FLAG_RANGE,
    FLAG_VOLTAGE,
    HEAT,
    HYSTERESIS_N,
    HYSTERESIS_P,
    LANES,
    PLATED,
    POWER,
    Q_LAM,
    Q_SEI,
    Q_SIDE,
    R_DYNAMIC,
    REFRESH_S,
    RESERVE,
    RESISTANCE_SCALE,
    ROWS,
    SEI_SCALE,
    SURFACE_N,
    SURFACE_P,
    TEMPERATURE,
    VOLTAGE,
    VOLTAGE_HIGH,
    VOLTAGE_LOW,
    WHOLE_AREA,
    WORK_SIZE,
    X_EMPTY,
    X_FULL,
    X_N,
    X_P,
)
from physics.modal import CellModel, acting, cell_model
from physics.parameters import BetweenBranches, CellParameters, FloatArray
from physics.population import aged_limits, usual_branches

_NO_LIMIT_V: Final = 1e3
PROFILE_ROWS: Final = 19  # that `run_profile` writes
WITHIN_V: Final = 1e-3  # how well `step_within_limits` meets a voltage limit
_TRIALS: Final = 40
_SPENT_V: Final = 1.0  # how far a spent surface counts as beyond the limit


@dataclass(frozen=True)
class CellResult(Mapping[str, Any]):
    """What `simulate_cell` returns. Each name is an attribute and a key. Arrays have shape (n,); value k is at the end
    of step k."""

    time_s: FloatArray
    voltage_V: FloatArray
    current_A: FloatArray
    """The current that flowed. It is the one asked for unless a limit cut it; `flags` then says so."""
    temperature_C: FloatArray
    soc: FloatArray
    soh: FloatArray
    resistance_Ohm: FloatArray
    """-dV/dI over one step."""
    heat_W: FloatArray
    """Mean over step k."""
    sei_thickness_m: FloatArray
    stoichiometry_n: FloatArray
    stoichiometry_p: FloatArray
    hysteresis_n: FloatArray
    """Between the branches of the negative open-circuit potential: -1 lithiation, 1 delithiation. Without effect where
    the electrode has no hysteresis."""
    hysteresis_p: FloatArray
    plated_C: FloatArray
    """Reversibly plated lithium as charge [C]."""
    dead_C: FloatArray
    active_n: FloatArray
    """Active material left, fraction of fresh."""
    active_p: FloatArray
    lithium_C: FloatArray
    """All lithium of the cell as charge [C]: in particles, film, metal and lost active material, less the side
    reactions not yet taken from the particles. Constant except for rounding."""
    flags: npt.NDArray[np.int32]
    """Bit field of `physics.FLAGS`, for each step."""

    def __getitem__(self, name: str) -> Any:
        if name not in self.keys():
            raise KeyError(f"{name!r}; there are {', '.join(self)}")
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter([field.name for field in fields(self)])

    def __len__(self) -> int:
        return len(fields(self))

    def keys(self) -> Any:
        """Names of the arrays."""
        return [field.name for field in fields(self)]


def check_branches(hysteresis: BetweenBranches) -> None:
    """ValueError where a state is not from -1 to 1."""
    for state in hysteresis:
        if state is not None and not -1.0 <= state <= 1.0:
            raise ValueError(f"initial_hysteresis must be from -1 to 1, got {state}")


@kernel
def take_back(block: FloatArray, before: FloatArray) -> None:
    """Undo a step of a block whose lanes are all alike; `before`: lane 0 before it, shape (ROWS,)."""
    for row in range(ROWS):
        for k in range(LANES):
            block[row * LANES + k] = before[row]


@kernel
def surface_spent(work: FloatArray, sign: float) -> bool:
    """Whether in lane 0's last step a particle's surface ran empty or full. `sign`: +1 discharges, -1 charges."""
    emptied, filled = (SURFACE_N, SURFACE_P) if sign > 0.0 else (SURFACE_P, SURFACE_N)
    spent: bool = work[emptied] <= X_SURFACE_MIN or work[filled] >= 1.0 - X_SURFACE_MIN
    return spent


@kernel
def step_within_limits(block: FloatArray, work: FloatArray, before: FloatArray, c: CellModel) -> bool:
    """`step_cells` for a block whose lanes are all alike, but voltage limits are met to WITHIN_V, at any temperature.

    The kernel limits a current by a forecast of the voltage, made from the last step. After a rest in the cold or on
    the steep ends of an open-circuit potential that forecast misses. Here the step is then taken back and repeated with
    another current: Newton's method on the voltage at the end of the step, bisection where that leaves the bracket. The
    current is only ever reduced towards zero. A limit that even no current would break is left broken. A particle whose
    surface has run empty or full breaks the limit, whatever voltage the kernel gives there.

    before    shape (ROWS,), scratch: lane 0 before the step
    Returns whether a limit cut the current.
    """
    for row in range(ROWS):
        before[row] = block[row * LANES]
    step_cells(block, work, c)
    v_low, v_high = work[VOLTAGE_LOW], work[VOLTAGE_HIGH]
    asked, current = work[ASKED], block[CURRENT]
    sign = 1.0 if asked > 0.0 else -1.0
    bound = v_low if sign > 0.0 else v_high
    limits = v_low > 0.0 if sign > 0.0 else v_high < _NO_LIMIT_V
    room = sign * (block[VOLTAGE] - bound)  # how far inside the limit the step ended
    if limits and surface_spent(work, sign):
        room = -_SPENT_V
    cut = current != asked
    if asked == 0.0 or (room >= -WITHIN_V and not (cut and room > WITHIN_V)):
        return cut
    low, high = work[CURRENT_LOW], work[CURRENT_HIGH]
    inner, outer = (current, asked) if room > 0.0 else (0.0, current)
    trial = current + sign * room / block[R_DYNAMIC]
    for n in range(_TRIALS):
        if (trial - inner) * (trial - outer) >= 0.0:
            trial = 0.5 * (inner + outer)
        last = n == _TRIALS - 1 or abs(outer - inner) < 1e-9 * abs(asked)
        if last:
            trial = inner
        take_back(block, before)
        for k in range(LANES):
            work[CURRENT_LOW + k] = trial
            work[CURRENT_HIGH + k] = trial
            work[VOLTAGE_LOW + k] = 0.0
            work[VOLTAGE_HIGH + k] = _NO_LIMIT_V
        step_cells(block, work, c)
        room = -_SPENT_V if limits and surface_spent(work, sign) else sign * (block[VOLTAGE] - bound)
        short_of_lithium = abs(block[CURRENT]) < abs(trial)
        if last or abs(room) <= WITHIN_V or (short_of_lithium and room > 0.0):
            break
        trial = block[CURRENT]
        if room < 0.0:
            outer = trial
        else:
            inner = trial
        trial += sign * room / block[R_DYNAMIC]
    planned = sign < 0.0 and v_high < c.voltage_max - PLANNED_BELOW_V
    for k in range(LANES):
        work[CURRENT_LOW + k] = low
        work[CURRENT_HIGH + k] = high
        work[VOLTAGE_LOW + k] = v_low
        work[VOLTAGE_HIGH + k] = v_high
        if not planned:
            block[FLAG_VOLTAGE + k] = 1.0
    return True


@kernel
def run_profile(
    block: FloatArray,
    low_A: FloatArray,
    high_A: FloatArray,
    power_W: FloatArray,
    v_low: float,
    v_high: float,
    refresh_ticks: int,
    capacity_ticks: int,
    dt: float,
    c: CellModel,
    out: FloatArray,
) -> None:
    """Drive all lanes of a block, which are alike, through demands of shape (n,) between v_low and v_high [V]; lane 0
    goes to `out`, shape (PROFILE_ROWS, n)."""
    work, before = np.zeros(WORK_SIZE), np.empty(ROWS)
    work[DT : DT + LANES] = dt
    work[VOLTAGE_LOW : VOLTAGE_LOW + LANES] = v_low
    work[VOLTAGE_HIGH : VOLTAGE_HIGH + LANES] = v_high
    for tick in range(low_A.size):
        if tick % refresh_ticks == 0:
            refresh_cells(block, work, c)
        if tick % capacity_ticks == 0:
            refresh_capacity(block, c)
        for k in range(LANES):
            work[CURRENT_LOW + k] = low_A[tick]
            work[CURRENT_HIGH + k] = high_A[tick]
            work[POWER + k] = power_W[tick]
            block[FLAG_RANGE + k] = 0.0
            block[FLAG_VOLTAGE + k] = 0.0
            block[FLAG_POWER + k] = 0.0
        step_within_limits(block, work, before, c)
        out[0, tick] = block[VOLTAGE]
        out[1, tick] = block[CURRENT]
        out[2, tick] = block[TEMPERATURE]
        out[3, tick] = soc_of(block, 0)
        out[4, tick] = soh_of(block, 0, c)
        out[5, tick] = block[R_DYNAMIC]
        out[6, tick] = block[HEAT]
        out[7, tick] = block[Q_SEI]
        out[8, tick] = block[X_N]
        out[9, tick] = block[X_P]
        out[10, tick] = block[Q_SIDE]
        out[12, tick] = block[PLATED]
        out[13, tick] = block[DEAD]
        out[14, tick] = block[ACTIVE_N]
        out[15, tick] = block[ACTIVE_P]
        out[16, tick] = block[Q_LAM]
        out[17, tick] = block[HYSTERESIS_N]
        out[18, tick] = block[HYSTERESIS_P]
        out[11, tick] = 1.0 * block[FLAG_RANGE] + 2.0 * block[FLAG_VOLTAGE] + 4.0 * block[FLAG_POWER]


@kernel
def advance_cells(
    blocks: FloatArray,
    work: FloatArray,
    tick_0: int,
    ticks: int,
    refresh_ticks: int,
    capacity_ticks: int,
    c: CellModel,
) -> None:
    """Advance blocks, shape (blocks, BLOCK_SIZE), under the unchanging demand of `work`, shape (WORK_SIZE,)."""
    for j in range(blocks.shape[0]):
        block = blocks[j]
        for tick in range(tick_0, tick_0 + ticks):
            if tick % refresh_ticks == 0:
                refresh_cells(block, work, c)
            if tick % capacity_ticks == 0:
                refresh_capacity(block, c)
            step_cells(block, work, c)


def rested_block(
    model: CellModel,
    *,
    soc: float,
    temperature_C: float,
    hysteresis: BetweenBranches = (None, None),
    sei_thickness_m: float | None = None,
    capacity_scale: float = 1.0,
    resistance_scale: float = 1.0,
    sei: bool = True,
    dry_out: bool = True,
) -> FloatArray:
    """A block of 128 equal cells at rest at their ambient temperature, shape (BLOCK_SIZE,)."""
    block = np.zeros(BLOCK_SIZE)
    h_n, h_p = (usual if given is None else given for usual, given in zip(usual_branches(soc), hysteresis, strict=True))
    film = model.sei_initial if sei_thickness_m is None else sei_thickness_m
    inventory, x_full, x_empty = (float(v[0]) for v in aged_limits(model, np.array([film])))
    x_n = x_empty + soc * (x_full - x_empty)
    values = {
        X_N: x_n,
        X_P: (inventory - model.q_n * x_n) / model.q_p,
        X_FULL: x_full,
        X_EMPTY: x_empty,
        HYSTERESIS_N: h_n,
        HYSTERESIS_P: h_p,
        TEMPERATURE: temperature_C + KELVIN,
        AMBIENT: temperature_C + KELVIN,
        Q_SEI: film / model.sei_length,
        ACTIVE_N: 1.0,
        ACTIVE_P: 1.0,
        WHOLE_AREA: model.area * capacity_scale,
        RESERVE: model.dry_reserve if dry_out else ENDLESS,
        RESISTANCE_SCALE: resistance_scale,
        COOLING_SCALE: 1.0,
        FILM_SCALE: 1.0,
        SEI_SCALE: 1.0 if sei else 0.0,
    }
    for offset, value in values.items():
        block[offset : offset + LANES] = value
    rest_cells(block, model)
    return block


def simulate_cell(
    parameters: str | CellParameters = "chen2020",
    current_A: npt.ArrayLike = (),
    step_s: float = 1.0,
    initial_soc: float = 0.9,
    ambient_C: float = 25.0,
    *,
    initial_hysteresis: BetweenBranches = (None, None),
    sei: bool = True,
    plating: bool = True,
    lam: bool = True,
    dry_out: bool = True,
    voltage_limits: bool = True,
    sei_thickness_m: float | None = None,
    capacity_scale: float = 1.0,
    resistance_scale: float = 1.0,
) -> CellResult:
    """Simulate one cell under a current profile, from rest at ambient temperature.

    parameters        name of a cell (`physics.cell_names()`) or its parameters
    current_A         shape (n,) [A], positive discharges; value k holds during step k
    step_s            [s]
    initial_soc       0 to 1, between the cell's own voltage limits at rest
    ambient_C         air around the cell [degC]; the cell loses heat to it by `heat_transfer_W_m2K`
    initial_hysteresis   between the branches of the open-circuit potentials, negative and positive: -1 lithiation, 1
                      delithiation. Default: on the branches of a charge where full, of a discharge where empty, in
                      proportion between
    sei, plating, lam False switches off SEI growth, lithium plating or loss of active material
    dry_out           False: its electrolyte suffices for any film
    voltage_limits    True: the cell's limits cut the current, as a battery management system would; False: they do not
    sei_thickness_m   film at the start [m]; the lithium in its growth is missing from the cell. Default: a fresh film
    capacity_scale, resistance_scale   of this cell, relative to the nominal one

    The diffusion modes are exact if the current is constant within a step. While the current changes, 10 s is a
    sensible longest step. A cell never delivers what it does not hold: near empty or full the current is cut and
    flagged.
    """
    cell = parameters if isinstance(parameters, CellParameters) else load_cell(parameters)
    current = _checked_current(current_A, cell)
    if not (math.isfinite(step_s) and step_s > 0.0):
        raise ValueError(f"step_s must be a positive number of seconds, got {step_s}")
    if not 0.0 <= initial_soc <= 1.0:
        raise ValueError(f"initial_soc must be from 0 to 1, got {initial_soc}")
    if not COLDEST_C <= ambient_C <= HOTTEST_C:
        raise ValueError(f"ambient_C must be from {COLDEST_C:g} to {HOTTEST_C:g} degC, got {ambient_C}")
    for name, scale in (("capacity_scale", capacity_scale), ("resistance_scale", resistance_scale)):
        if not 0.01 <= scale <= 100.0:
            raise ValueError(f"{name} must be from 0.01 to 100, got {scale}")
    check_branches(initial_hysteresis)
    model = acting(cell_model(cell), plating=plating, lam=lam)
    thickest = model.porosity_n / model.area_n
    if sei_thickness_m is not None and not model.sei_initial <= sei_thickness_m <= thickest:
        raise ValueError(
            f"sei_thickness_m must be from the fresh film's {model.sei_initial:g} to {thickest:.3g} m, where it would"
            f" fill the pores, got {sei_thickness_m}"
        )
    block = rested_block(
        model,
        soc=initial_soc,
        temperature_C=ambient_C,
        hysteresis=initial_hysteresis,
        sei_thickness_m=sei_thickness_m,
        capacity_scale=capacity_scale,
        resistance_scale=resistance_scale,
        sei=sei,
        dry_out=dry_out,
    )
    limits = (model.voltage_min, model.voltage_max) if voltage_limits else (0.0, _NO_LIMIT_V)
    out = np.empty((PROFILE_ROWS, current.size))
    refresh_ticks, capacity_ticks = (max(1, round(s / step_s)) for s in (REFRESH_S, CAPACITY_REFRESH_S))
    power = np.zeros_like(current)
    run_profile(block, current, current, power, *limits, refresh_ticks, capacity_ticks, step_s, model, out)
    area = model.area * capacity_scale
    return CellResult(
        time_s=step_s * np.arange(1.0, current.size + 1.0),
        voltage_V=out[0],
        current_A=out[1],
        temperature_C=out[2] - KELVIN,
        soc=out[3],
        soh=out[4],
        resistance_Ohm=out[5],
        heat_W=out[6],
        sei_thickness_m=out[7] * model.sei_length / out[14],
        stoichiometry_n=out[8],
        stoichiometry_p=out[9],
        hysteresis_n=out[17],
        hysteresis_p=out[18],
        plated_C=area * out[12],
        dead_C=area * out[13],
        active_n=out[14],
        active_p=out[15],
        lithium_C=area
        * (
            model.q_n * out[14] * out[8] + model.q_p * out[15] * out[9] + out[7] + out[12] + out[13] + out[16] - out[10]
        ),
        flags=out[11].astype(np.int32),
    )


def _checked_current(current_A: npt.ArrayLike, cell: CellParameters) -> FloatArray:
    """`current_A` as a float array, or a ValueError that says what is wrong with it."""
    current = np.array(current_A, dtype=np.float64)
    if current.ndim != 1 or current.size == 0:
        raise ValueError(f"current_A must be a non-empty 1-D array, got shape {current.shape}")
    if not np.all(np.isfinite(current)):
        bad = int(np.flatnonzero(~np.isfinite(current))[0])
        raise ValueError(f"current_A must be finite, but current_A[{bad}] is {current[bad]}")
    largest = LARGEST_C_RATE * cell.nominal_capacity_Ah
    if np.abs(current).max() > largest:
        raise ValueError(
            f"current_A reaches {np.abs(current).max():g} A, beyond {LARGEST_C_RATE:g}C ({largest:g} A) of {cell.name}"
        )
    return current
