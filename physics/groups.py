"""All cell groups of one pack, each simulated in full: the reference for the two deviations of `pack.py`.

Each group is a lane of a block, with its own area, resistance and cooling. All carry the same current. A group of
parallel cells is one mean cell. Neither balancing nor voltage limits act, so the current is the one asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from physics.cell import rested_block
from physics.cells import load_cell
from physics.compiled import kernel
from physics.constants import KELVIN
from physics.kernel import refresh_capacity, refresh_cells, rest_cells, step_cells
from physics.layout import (
    CAPACITY_REFRESH_S,
    COOLING_SCALE,
    CURRENT_HIGH,
    CURRENT_LOW,
    DT,
    HOT_SHARE,
    LANES,
    REFRESH_S,
    RESISTANCE_SCALE,
    STRONG_CAPACITY,
    STRONG_RESISTANCE,
    TEMPERATURE,
    V_HIGHEST,
    V_LOWEST,
    VOLTAGE,
    VOLTAGE_HIGH,
    WEAK_CAPACITY,
    WEAK_RESISTANCE,
    WHOLE_AREA,
    WORK_SIZE,
    X_N,
    X_P,
)
from physics.modal import CellModel, cell_model
from physics.pack import pack_extremes
from physics.parameters import CellParameters, FloatArray

_NO_LIMIT_V: Final = 1e3


@dataclass(frozen=True)
class GroupsResult:
    """Value k at the end of step k."""

    time_s: FloatArray
    """Shape (n,)."""
    voltage_V: FloatArray
    """Shape (n, groups)."""
    temperature_C: FloatArray
    """Shape (n, groups)."""


@dataclass(frozen=True)
class PackResult:
    """The mean cell and the extremes; arrays of shape (n,)."""

    time_s: FloatArray
    voltage_V: FloatArray
    lowest_V: FloatArray
    highest_V: FloatArray
    temperature_C: FloatArray


@kernel
def run_groups(
    blocks: FloatArray,
    current_A: FloatArray,
    refresh_ticks: int,
    capacity_ticks: int,
    dt: float,
    c: CellModel,
    voltage: FloatArray,
    temperature: FloatArray,
) -> None:
    """Drive blocks, shape (m, BLOCK_SIZE), through current_A, shape (n,). `voltage` and `temperature`, shape (n, m
    LANES), are out."""
    work = np.zeros(WORK_SIZE)
    work[DT : DT + LANES] = dt
    work[VOLTAGE_HIGH : VOLTAGE_HIGH + LANES] = _NO_LIMIT_V
    for j in range(blocks.shape[0]):
        block = blocks[j]
        for tick in range(current_A.size):
            if tick % refresh_ticks == 0:
                refresh_cells(block, work, c)
            if tick % capacity_ticks == 0:
                refresh_capacity(block, c)
            for k in range(LANES):
                work[CURRENT_LOW + k] = current_A[tick]
                work[CURRENT_HIGH + k] = current_A[tick]
            step_cells(block, work, c)
            for k in range(LANES):
                voltage[tick, j * LANES + k] = block[VOLTAGE + k]
                temperature[tick, j * LANES + k] = block[TEMPERATURE + k]


@kernel
def run_pack(
    block: FloatArray,
    current_A: FloatArray,
    refresh_ticks: int,
    capacity_ticks: int,
    extremes_ticks: int,
    dt: float,
    c: CellModel,
    out: FloatArray,
) -> None:
    """As `run_groups`, for one mean cell and its extremes; lane 0 goes to `out`, shape (4, n)."""
    work = np.zeros(WORK_SIZE)
    work[DT : DT + LANES] = dt
    work[VOLTAGE_HIGH : VOLTAGE_HIGH + LANES] = _NO_LIMIT_V
    for tick in range(current_A.size):
        if tick % refresh_ticks == 0:
            refresh_cells(block, work, c)
        if tick % capacity_ticks == 0:
            refresh_capacity(block, c)
        if tick % extremes_ticks == 0:
            pack_extremes(block, c)
        for k in range(LANES):
            work[CURRENT_LOW + k] = current_A[tick]
            work[CURRENT_HIGH + k] = current_A[tick]
        step_cells(block, work, c)
        out[0, tick] = block[VOLTAGE]
        out[1, tick] = block[VOLTAGE] + block[V_LOWEST]
        out[2, tick] = block[VOLTAGE] + block[V_HIGHEST]
        out[3, tick] = block[TEMPERATURE]


def simulate_groups(
    cell: str | CellParameters,
    current_A: npt.ArrayLike,
    capacity: npt.ArrayLike,
    resistance: npt.ArrayLike,
    warmth: npt.ArrayLike = 0.0,
    step_s: float = 1.0,
    *,
    initial_soc: float = 0.9,
    ambient_C: float = 25.0,
    cooling_scale: float = 1.0,
) -> GroupsResult:
    """All groups of a pack under one current, from rest. They are balanced at full charge.

    current_A      shape (n,), of one cell: the pack's over the number of parallel cells; positive discharges
    capacity       shape (groups,), relative to the nominal cell (`pack.group_scales` draws them)
    resistance     shape (groups,), relative to the nominal cell
    warmth         shape (groups,) or a number: by what share a group's rise over the air exceeds the mean's; acts as
                   worse cooling, so it has no effect at first
    initial_soc    of a group of capacity 1; the same charge has been drawn from all others
    cooling_scale  factor on the cell's own heat transfer (a cell in a pack loses less)
    """
    parameters = cell if isinstance(cell, CellParameters) else load_cell(cell)
    current = _profile(current_A, step_s)
    scales = np.stack([np.atleast_1d(np.asarray(v, dtype=np.float64)) for v in (capacity, resistance)])
    groups = scales.shape[1]
    warm = np.broadcast_to(np.asarray(warmth, dtype=np.float64), (groups,))
    if not (np.isfinite(scales).all() and (scales > 0.0).all()):
        raise ValueError("capacity and resistance must be positive numbers, one of each per group")
    if not (np.isfinite(warm).all() and (warm > -1.0).all()):
        raise ValueError("warmth must be numbers above -1, one per group")
    model = cell_model(parameters)
    count = -(-groups // LANES)
    blocks = np.stack([rested_block(model, soc=1.0, temperature_C=ambient_C)] * count)
    rows = blocks.reshape(count, -1, LANES)

    def lanes(values: FloatArray) -> FloatArray:
        return np.resize(values, (count, LANES))  # spare lanes repeat

    rows[:, WHOLE_AREA // LANES] = lanes(model.area * scales[0])
    rows[:, RESISTANCE_SCALE // LANES] = lanes(scales[1])
    rows[:, COOLING_SCALE // LANES] = lanes(cooling_scale / (1.0 + warm))
    drawn = (1.0 - initial_soc) * (model.x_full - model.x_empty) / lanes(scales[0])
    rows[:, X_N // LANES] -= drawn
    rows[:, X_P // LANES] += drawn * model.q_n / model.q_p
    _settle(blocks, model)
    voltage, temperature = (np.empty((current.size, count * LANES)) for _ in range(2))
    run_groups(blocks, current, *_ticks(step_s), step_s, model, voltage, temperature)
    return GroupsResult(
        time_s=step_s * np.arange(1.0, current.size + 1.0),
        voltage_V=voltage[:, :groups],
        temperature_C=temperature[:, :groups] - KELVIN,
    )


def simulate_pack(
    cell: str | CellParameters,
    current_A: npt.ArrayLike,
    weak: tuple[float, float],
    strong: tuple[float, float],
    step_s: float = 1.0,
    *,
    initial_soc: float = 0.9,
    ambient_C: float = 25.0,
    cooling_scale: float = 1.0,
    hot_share: float = 0.0,
    extremes_s: float = REFRESH_S,
) -> PackResult:
    """The mean cell with the weakest and strongest group as deviations, as in a fleet.

    Groups are balanced at full charge. The other arguments are as for `simulate_groups`.

    weak, strong  (capacity, resistance) of these groups, as relative deviations from the mean
    hot_share     additional rise of the warmest group, as a share of the mean's rise over the air
    extremes_s    period at which the extremes are updated [s]; the default is a fleet's
    """
    parameters = cell if isinstance(cell, CellParameters) else load_cell(cell)
    current = _profile(current_A, step_s)
    model = cell_model(parameters)
    block = rested_block(model, soc=initial_soc, temperature_C=ambient_C)
    for row, value in (
        (COOLING_SCALE, cooling_scale),
        (HOT_SHARE, hot_share),
        (WEAK_CAPACITY, weak[0]),
        (WEAK_RESISTANCE, weak[1]),
        (STRONG_CAPACITY, strong[0]),
        (STRONG_RESISTANCE, strong[1]),
    ):
        block[row : row + LANES] = value
    out = np.empty((4, current.size))
    run_pack(block, current, *_ticks(step_s), max(1, round(extremes_s / step_s)), step_s, model, out)
    return PackResult(step_s * np.arange(1.0, current.size + 1.0), out[0], out[1], out[2], out[3] - KELVIN)


def _profile(current_A: npt.ArrayLike, step_s: float) -> FloatArray:
    current = np.array(current_A, dtype=np.float64)
    if current.ndim != 1 or current.size == 0 or not np.isfinite(current).all():
        raise ValueError(f"current_A must be a non-empty 1-D array of finite numbers, got shape {current.shape}")
    if not (np.isfinite(step_s) and step_s > 0.0):
        raise ValueError(f"step_s must be a positive number of seconds, got {step_s}")
    return current


def _ticks(step_s: float) -> tuple[int, int]:
    """Steps between refreshes of coefficients and of capacity."""
    return max(1, round(REFRESH_S / step_s)), max(1, round(CAPACITY_REFRESH_S / step_s))


def _settle(blocks: FloatArray, model: CellModel) -> None:
    """Put the cells at rest at their present stoichiometries."""
    for block in blocks:
        rest_cells(block, model)
