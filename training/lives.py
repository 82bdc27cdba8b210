"""Whole lives of vehicles, from the physics, with the labels a model learns: remaining useful life and failure.

Ageing here is SEI growth alone, so lives are long. They are made short by one exact-in-the-limit trick: the SEI's rate
is multiplied by `ACCELERATION`, and each simulated day then stands for as many days, its cycles for as many cycles.
Because the film grows by time and state only, that is the life itself as long as one simulated day changes the cell
little (at most some tenths of a percent of capacity). What it blurs is the season: a life sees few rounds of the year.

End of life is SoH 0.8. RUL counts equivalent full cycles (EFC) to it; a failure is end of life within `HORIZON_DAYS`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from datasets.drive_cycles import drive_cycle_names, load_drive_cycle
from datasets.schema import MODEL_INPUTS
from physics import FleetPhysics, draw_population

ACCELERATION = 60.0
STEP_S = 10.0
END_OF_LIFE_SOH = 0.8
HORIZON_DAYS = 730.0
_DAY_S = 86_400.0
_START_S = 1_767_225_600  # 2026-01-01
_SNAPSHOTS_A_DAY = 3
_LANES = 128


@dataclass(frozen=True)
class Lives:
    """`rows`: one line a snapshot: the seven inputs by the reference names, vehicle, days, rul_EFC, fails; only of
    vehicles that reached end of life. `unfinished`: how many did not, within the time simulated."""

    rows: pd.DataFrame
    unfinished: int
    years: float


def live(vehicles: int, *, seed: int, sim_days: int, rows_per_vehicle: int = 150, threads: int = 2) -> Lives:
    """Simulate vehicles 0..n-1 of the population `seed` for `sim_days` accelerated days and label what happened."""
    blocks = [np.arange(first, min(first + _LANES, vehicles)) for first in range(0, vehicles, _LANES)]
    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(lambda block: _live_block(block, seed, sim_days, rows_per_vehicle), blocks))
    rows = pd.concat([part for part, _ in parts], ignore_index=True)
    return Lives(rows, sum(missing for _, missing in parts), sim_days * ACCELERATION / 365.0)


def _live_block(
    vehicles: npt.NDArray[np.int64], seed: int, sim_days: int, rows_per_vehicle: int
) -> tuple[pd.DataFrame, int]:
    population = draw_population(seed, vehicles)
    population = replace(population, sei_scale=population.sei_scale * ACCELERATION)
    physics = FleetPhysics(
        population,
        cycles=[load_drive_cycle(name).speed_mps for name in drive_cycle_names()],
        start_s=_START_S,
        step_s=STEP_S,
    )
    # Snapshots at times that share no factor with the day, so that every hour and mode is seen.
    period = round(_DAY_S / STEP_S / _SNAPSHOTS_A_DAY) + 7
    day_ticks = round(_DAY_S / STEP_S)
    parts = [physics.advance(day_ticks * 8, period) for _ in range(sim_days // 8)]
    samples = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    soh = samples["soh"]
    sim_time_days = (np.arange(len(soh)) + 1) * period * STEP_S / _DAY_S
    days = sim_time_days * ACCELERATION
    efc = population.charge_cycles + (samples["charge_cycles"] - population.charge_cycles) * ACCELERATION
    samples["charge_cycles"] = efc
    generator = np.random.default_rng([seed, int(vehicles[0])])
    frames, unfinished = [], 0
    for lane, vehicle in enumerate(vehicles):
        crossed = np.flatnonzero(soh[:, lane] < END_OF_LIFE_SOH)
        if not len(crossed):
            unfinished += 1
            continue
        end = int(crossed[0])
        if end < rows_per_vehicle:
            continue  # born at its end
        chosen = np.sort(generator.choice(end, rows_per_vehicle, replace=False))
        frame = {column: samples[name][chosen, lane] for column, name in MODEL_INPUTS.items()}
        frame |= {
            "vehicle": np.full(rows_per_vehicle, vehicle),
            "days": days[chosen],
            "rul_EFC": efc[end, lane] - efc[chosen, lane],
            "fails": (days[end] - days[chosen] <= HORIZON_DAYS).astype(np.int8),
        }
        frames.append(pd.DataFrame(frame))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(), unfinished
