"""The voltage of one cell under a recorded current, at the recorded temperature: what a fit compares with a cycler.

Side reactions are off and the temperature is the record's, so only the electrical model speaks. A step may be as long as
its current was constant, because the diffusion modes are exact.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from physics.cell import rested_block
from physics.compiled import kernel
from physics.constants import KELVIN
from physics.kernel import refresh_cells, rest_cells, step_cells
from physics.layout import (
    AMBIENT,
    CURRENT_HIGH,
    CURRENT_LOW,
    DT,
    LANES,
    REFRESH_S,
    TEMPERATURE,
    VOLTAGE,
    VOLTAGE_HIGH,
    WORK_SIZE,
    X_N,
    X_P,
)
from physics.modal import CellModel, equilibrium_voltage
from physics.parameters import FloatArray

_NO_LIMIT_V: Final = 1e3
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


def play_record(
    model: CellModel, dt: FloatArray, current_A: FloatArray, temperature_C: FloatArray, rest_V: float
) -> FloatArray:
    """Voltage at the ends of steps [V], from rest at an open-circuit voltage; arrays of shape (n,), positive discharges.

    model      of a cell (`modal.cell_model`)
    dt         [s]
    rest_V     open-circuit voltage before the first step, at 25 degC
    """
    block = rested_block(model, soc=0.5, temperature_C=float(temperature_C[0]), sei=False, plating=False, lam=False)
    x_n = start_stoichiometry(model, rest_V)
    block[X_N : X_N + LANES] = x_n
    block[X_P : X_P + LANES] = (model.inventory - model.q_n * x_n) / model.q_p
    rest_cells(block, model)
    out = np.empty(dt.size)
    run_record(block, dt, current_A, temperature_C + KELVIN, model, out)
    return out
