"""One cell under a recorded current, at the recorded temperature: its voltage, which a fit compares with a cycler, and
how it ages.

For a voltage side reactions are off, so only the electrical model speaks. A step may be as long as
its current was constant, because the diffusion modes are exact.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from physics.cell import rested_block
from physics.compiled import kernel
from physics.constants import KELVIN
from physics.kernel import refresh_capacity, refresh_cells, rest_cells, soh_of, step_cells
from physics.layout import (
    ACTIVE_N,
    ACTIVE_P,
    AMBIENT,
    CURRENT_HIGH,
    CURRENT_LOW,
    DEAD,
    DT,
    LANES,
    Q_SEI,
    Q_SIDE,
    REFRESH_S,
    TEMPERATURE,
    VOLTAGE,
    VOLTAGE_HIGH,
    WORK_SIZE,
    X_N,
    X_P,
)
from physics.modal import CellModel, acting, equilibrium_voltage
from physics.parameters import FloatArray

_NO_LIMIT_V: Final = 1e3
_CHECK_S: Final = 5.0  # step of a capacity check
_NEWTON: Final = 4  # steps of the capacity's follower, which is otherwise called once a minute
_EDGE: Final = 2e-3  # stoichiometries at the start keep this far from empty and full


@kernel
def run_record(
    block: FloatArray, dt: FloatArray, current_A: FloatArray, temperature_K: FloatArray, c: CellModel, out: FloatArray
) -> None:
    """Drive all lanes of a block, which are alike, through steps of dt [s]; arrays of shape (n,); voltage goes to `out`
    (value k at the end of step k)."""
    work = np.zeros(WORK_SIZE)
    work[VOLTAGE_HIGH : VOLTAGE_HIGH + LANES] = _NO_LIMIT_V
    since, before = np.inf, 0.0
    for n in range(dt.size):
        for k in range(LANES):
            block[TEMPERATURE + k] = temperature_K[n]
            block[AMBIENT + k] = temperature_K[n]
            work[CURRENT_LOW + k] = current_A[n]
            work[CURRENT_HIGH + k] = current_A[n]
        if dt[n] != before or since >= REFRESH_S:
            for k in range(LANES):
                work[DT + k] = dt[n]
            refresh_cells(block, work, c)
            since, before = 0.0, dt[n]
        step_cells(block, work, c)
        since += dt[n]
        out[n] = block[VOLTAGE]


def start_stoichiometry(model: CellModel, rest_V: float) -> float:
    """Negative stoichiometry at which the fresh cell rests at `rest_V` (25 degC), by bisection; at an end of what its
    lithium allows where there is none."""
    inventory = np.array([model.inventory])
    low = max(_EDGE, (model.inventory - (1.0 - _EDGE) * model.q_p) / model.q_n)
    high = min(1.0 - _EDGE, (model.inventory - _EDGE * model.q_p) / model.q_n)
    for _ in range(50):
        x = 0.5 * (low + high)
        if equilibrium_voltage(model, np.array([x]), inventory)[0] < rest_V:
            low = x
        else:
            high = x
    return 0.5 * (low + high)


@dataclass(frozen=True)
class Aged:
    """A cell at some moments of a record; arrays of shape (moments,)."""

    soh: FloatArray
    discharge_Ah: FloatArray
    """From rest at the upper voltage limit to the lower one, with the check's current and temperature."""
    film_m: FloatArray
    dead_Ah: FloatArray
    active_n: FloatArray
    active_p: FloatArray


def age_record(
    model: CellModel,
    dt: FloatArray,
    current_A: FloatArray,
    temperature_C: FloatArray,
    voltage_V: FloatArray,
    resets: npt.NDArray[np.int64],
    moments: npt.NDArray[np.int64],
    check_A: float,
    check_C: float,
) -> Aged:
    """How a cell ages under a recorded current and temperature, with all side reactions; arrays of shape (n,).

    A counter of charge drifts over months. So the charge is set anew after the rows `resets`, where the cell had rested
    long, from the voltage there. The first voltage must be one at rest, too.

    moments     rows after which the cell is looked at, rising
    check_A, check_C   current and temperature of a capacity check, made then on a copy of the cell
    """
    block = rested_block(model, soc=0.5, temperature_C=float(temperature_C[0]))
    _rest_at(block, model, float(voltage_V[0]))
    out = np.empty(dt.size)
    looks = []
    ends = np.unique(np.concatenate([resets + 1, moments + 1, [dt.size]]))
    rested = set((resets + 1).tolist())
    for begin, end in itertools.pairwise([0, *ends.tolist()]):
        some = slice(begin, end)
        run_record(block, dt[some], current_A[some], temperature_C[some] + KELVIN, model, out[some])
        for _ in range(_NEWTON):
            refresh_capacity(block, model)
        if end in rested:
            _rest_at(block, model, float(voltage_V[end - 1]))
        if end - 1 in moments:
            soh = soh_of(block, 0, model)
            film, dead = block[Q_SEI] * model.sei_length / block[ACTIVE_N], block[DEAD] * model.area / 3600.0
            looks.append(
                (soh, _discharge_Ah(block, model, check_A, check_C), film, dead, block[ACTIVE_N], block[ACTIVE_P])
            )
    return Aged(*np.array(looks).T)


def _discharge_Ah(block: FloatArray, model: CellModel, current_A: float, temperature_C: float) -> float:
    """What a copy of the cell gives from full rest to its lower voltage limit, NaN where it never gets there."""
    cell = block.copy()
    _rest_at(cell, model, model.voltage_max)
    steps = int(2.0 * 3600.0 * model.nominal_Ah / (current_A * _CHECK_S))
    dt, out = np.full(steps, _CHECK_S), np.empty(steps)
    run_record(cell, dt, np.full(steps, current_A), np.full(steps, temperature_C + KELVIN), model, out)
    below = np.flatnonzero(out <= model.voltage_min)
    if not below.size or below[0] == 0:
        return float("nan")
    k = int(below[0])
    share = (out[k - 1] - model.voltage_min) / (out[k - 1] - out[k])
    return (k + float(share)) * _CHECK_S * current_A / 3600.0


def _rest_at(block: FloatArray, model: CellModel, rest_V: float) -> None:
    """Put the (aged) cell at rest at an open-circuit voltage, with the lithium that it has."""
    active_n, active_p = float(block[ACTIVE_N]), float(block[ACTIVE_P])
    aged = model._replace(
        q_n=model.q_n * active_n,
        q_p=model.q_p * active_p,
        inventory=float(model.q_n * active_n * block[X_N] + model.q_p * active_p * block[X_P] - block[Q_SIDE]),
    )
    x_n = start_stoichiometry(aged, rest_V)
    block[X_N : X_N + LANES] = x_n
    block[X_P : X_P + LANES] = (aged.inventory - aged.q_n * x_n) / aged.q_p
    rest_cells(block, model)


def play_record(
    model: CellModel, dt: FloatArray, current_A: FloatArray, temperature_C: FloatArray, rest_V: float
) -> FloatArray:
    """Voltage at the ends of steps [V], from rest; arrays of shape (n,), positive discharges.

    model      of a cell (`modal.cell_model`)
    dt         [s]
    rest_V     open-circuit voltage before the first step, at 25 degC
    """
    model = acting(model, plating=False, lam=False)
    block = rested_block(model, soc=0.5, temperature_C=float(temperature_C[0]), sei=False)
    _rest_at(block, model, rest_V)
    out = np.empty(dt.size)
    run_record(block, dt, current_A, temperature_C + KELVIN, model, out)
    return out
