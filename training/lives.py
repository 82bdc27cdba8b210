"""Complete simulated lifetimes of vehicles, with the labels a model learns: remaining useful life and failure.

New vehicles of the default fleet (cells, uses, climates, habits, faults) are simulated until long after their
batteries' end of life. Every `_LOOK_DAYS` a day is simulated closely. Its telemetry, at all hours and in all modes,
gives the rows. End of life is SoH 0.8. RUL counts equivalent full cycles (EFC) to it; a failure is end of life within
`HORIZON_DAYS`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from datasets.drive_cycles import drive_cycle_names, load_drive_cycle
from datasets.schema import MODEL_INPUTS
from physics import PROFILES, FleetLives, draw_population
from physics.default_fleet import CELL_SHARES

END_OF_LIFE_SOH = 0.8
HORIZON_DAYS = 730.0
STEP_S = 10.0
_LOOK_DAYS = 240
_SAMPLE_DAYS = 30
_START_S = 1_767_225_600  # 2026-01-01
_LANES = 256


@dataclass(frozen=True)
class Lives:
    """`rows` has one line per snapshot: the seven inputs by the reference names, vehicle, days, rul_EFC, fails. It
    holds only vehicles that reached end of life. `unfinished` counts those that did not within the simulated time."""

    rows: pd.DataFrame
    unfinished: int
    years: float


def live(vehicles: int, *, seed: int, years: int, rows_per_vehicle: int = 150, threads: int = 2) -> Lives:
    """Simulate vehicles 0..n-1 of the population `seed` for `years` and label what happened."""
    blocks = [np.arange(first, min(first + _LANES, vehicles)) for first in range(0, vehicles, _LANES)]
    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(lambda block: _live_block(block, seed, years, rows_per_vehicle), blocks))
    rows = pd.concat([part for part, _ in parts], ignore_index=True)
    return Lives(rows, sum(missing for _, missing in parts), float(years))


def _live_block(
    vehicles: npt.NDArray[np.int64], seed: int, years: int, rows_per_vehicle: int
) -> tuple[pd.DataFrame, int]:
    population = draw_population(seed, vehicles, CELL_SHARES, oldest_years=0.0, start_s=_START_S)
    cycles = [load_drive_cycle(name).speed_mps for name in drive_cycle_names()]
    # The label is the true end of life, read from telemetry. So sensors are ideal, and with them the model's inputs.
    lives = FleetLives(population, cycles=cycles, start_s=_START_S, sensors=PROFILES["ideal"])
    # A closer look every 240 days. Its samples are an hour and a step apart, so that they fall on changing minutes.
    hour = round(3600.0 / STEP_S) + 1
    looks, soh, efc = [], [], []
    for _ in range(years * 365 // _LOOK_DAYS):
        passed = lives.advance(_LOOK_DAYS * lives.day_ticks, _SAMPLE_DAYS * lives.day_ticks)
        soh.append(passed["soh"])
        efc.append(passed["charge_cycles"])
        looks.append(lives.awake(STEP_S).advance(24 * hour, hour))
    soh_of, efc_of = np.concatenate(soh), np.concatenate(efc)
    sampled_days = _SAMPLE_DAYS * np.arange(1.0, len(soh_of) + 1.0)
    samples = {name: np.concatenate([look[name] for look in looks]) for name in looks[0]}
    days = np.repeat(_LOOK_DAYS * np.arange(1.0, len(looks) + 1.0), len(looks[0]["soh"]))
    generator = np.random.default_rng([seed, int(vehicles[0])])
    frames, unfinished = [], 0
    for lane, vehicle in enumerate(vehicles):
        crossed = np.flatnonzero(soh_of[:, lane] < END_OF_LIFE_SOH)
        if not len(crossed) or crossed[0] == 0:
            unfinished += 1
            continue
        after = int(crossed[0])
        pair = soh_of[after - 1 : after + 1, lane]
        share = (pair[0] - END_OF_LIFE_SOH) / (pair[0] - pair[1])
        end_day = sampled_days[after - 1] + share * _SAMPLE_DAYS
        end_efc = efc_of[after - 1, lane] + share * (efc_of[after, lane] - efc_of[after - 1, lane])
        alive = np.flatnonzero((days < end_day) & (samples["charge_cycles"][:, lane] < end_efc))
        chosen = np.sort(generator.choice(alive, min(rows_per_vehicle, len(alive)), replace=False))
        frame = {column: samples[name][chosen, lane] for column, name in MODEL_INPUTS.items()}
        frame |= {
            "vehicle": np.full(len(chosen), vehicle),
            "days": days[chosen],
            "rul_EFC": end_efc - frame["Charge_Cycles"],
            "fails": (end_day - days[chosen] <= HORIZON_DAYS).astype(np.int8),
        }
        frames.append(pd.DataFrame(frame))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(), unfinished
