"""A pack is its mean cell, simulated in full, and two more cell groups as deviations from it: the weakest and the
strongest.

Groups of parallel cells are in series and carry the same current, so they differ only by their own properties. The
weakest group has less capacity (it swings further) and more resistance. It sits where it is warmest, so it ages faster.
Its deviation is small, so its voltage is the mean's, plus the difference of open-circuit voltage at its own
stoichiometry, minus I R times its extra resistance. That adds almost nothing to a step, where 96 cell groups would cost
96 times as much. `groups.simulate_groups` runs them all for comparison (`twin validate physics --only pack`).

The lowest and highest group set the pack's limits: the battery management system stops where one cell reaches its
limit. Passive balancing bleeds the higher groups while charging above 70 %.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from physics.compiled import inner
from physics.constants import GAS_CONSTANT
from physics.kernel import lookup
from physics.layout import (
    ACTIVE_N,
    ACTIVE_P,
    AMBIENT,
    AREA,
    BLED,
    CURRENT,
    ELAPSED,
    HOT_SHARE,
    INV_Q_N,
    LANES,
    MODE,
    PACK_SEI,
    PARALLEL,
    Q_SEI,
    R_DYNAMIC,
    STRONG_CAPACITY,
    STRONG_RESISTANCE,
    STRONG_SHIFT,
    TEMPERATURE,
    V_HIGHEST,
    V_LOWEST,
    WEAK_CAPACITY,
    WEAK_LOST,
    WEAK_RESISTANCE,
    WEAK_SHIFT,
    X_EMPTY,
    X_FULL,
    X_N,
    X_P,
)
from physics.maths import clip
from physics.modal import CellModel
from physics.parameters import FloatArray

BALANCING_A: Final = 0.1
BALANCING_ABOVE: Final = 0.7
_LARGEST_V: Final = 0.4  # a deviation above the mean beyond this is no longer small
_LOWEST_V: Final = -4.0  # below it, down to an empty group: then this is a fault, and its voltage a rough one


@inner
def _deviation(block: FloatArray, c: CellModel, k: int, capacity: float, resistance: float, shift: float) -> float:
    """Voltage of a cell group relative to the mean [V]."""
    x_n, x_p = block[X_N + k], block[X_P + k]
    dx = clip(shift + capacity * (block[X_FULL + k] - x_n), -1.0, 0.3)
    dx_p = -dx * c.q_n * block[ACTIVE_N + k] / (c.q_p * block[ACTIVE_P + k])
    own = lookup(c.tables, 1, clip(x_p + dx_p, 0.0, 1.0))[0] - lookup(c.tables, 0, clip(x_n + dx, 0.0, 1.0))[0]
    mean = lookup(c.tables, 1, x_p)[0] - lookup(c.tables, 0, x_n)[0]
    return clip(own - mean - block[CURRENT + k] * block[R_DYNAMIC + k] * resistance, _LOWEST_V, _LARGEST_V)


@inner
def pack_extremes(block: FloatArray, c: CellModel) -> None:
    """Voltages of the lowest and the highest cell group relative to the mean; updated with the coefficients."""
    for k in range(LANES):
        # Warmth lowers the weakest group's resistance below its own value; the strongest is the coldest and has more.
        t = block[TEMPERATURE + k]
        warmer = block[HOT_SHARE + k] * max(t - block[AMBIENT + k], 0.0)
        eased = clip(c.e_conductivity / (GAS_CONSTANT * t * t) * warmer, 0.0, 0.5)
        r_weak, r_strong = block[WEAK_RESISTANCE + k] - eased, block[STRONG_RESISTANCE + k] + eased
        weak = _deviation(block, c, k, block[WEAK_CAPACITY + k] - block[WEAK_LOST + k], r_weak, block[WEAK_SHIFT + k])
        strong = _deviation(block, c, k, block[STRONG_CAPACITY + k], r_strong, block[STRONG_SHIFT + k])
        block[V_LOWEST + k] = min(weak, strong, 0.0)
        block[V_HIGHEST + k] = max(weak, strong, 0.0)


@inner
def weakest_soc(block: FloatArray, k: int) -> float:
    """State of charge of the weakest cell group, between the mean cell's limits; below 0 when it is overdischarged."""
    x_n, x_full, x_empty = block[X_N + k], block[X_FULL + k], block[X_EMPTY + k]
    capacity = block[WEAK_CAPACITY + k] - block[WEAK_LOST + k]
    below = min(block[WEAK_SHIFT + k] + capacity * (x_full - x_n), 0.0)
    soc: float = (x_n + below - x_empty) / (x_full - x_empty)
    return soc


@inner
def usable_share(block: FloatArray, k: int) -> float:
    """Share of the mean cell's charge that the pack gives before its weakest group is empty, from full; 0 to 1."""
    span = block[X_FULL + k] - block[X_EMPTY + k]
    share: float = 1.0 + block[WEAK_SHIFT + k] / span + block[WEAK_CAPACITY + k] - block[WEAK_LOST + k]
    return clip(share, 0.0, 1.0)


@inner
def balance(block: FloatArray, k: int, most: float) -> None:
    """Move the weakest and the strongest group towards the mean, by at most this stoichiometry."""
    weak, strong = block[WEAK_SHIFT + k], block[STRONG_SHIFT + k]
    block[WEAK_SHIFT + k] = weak + clip(-weak, -most, most)
    block[STRONG_SHIFT + k] = strong + clip(-strong, -most, most)


@inner
def age_pack(block: FloatArray, work: FloatArray, c: CellModel) -> None:
    """Age by ELAPSED: the warmest group loses more lithium than the mean, and balancing moves charge.

    Called every simulated minute, or for every window of `life.live`.
    """
    for k in range(LANES):
        elapsed_s = work[ELAPSED + k]
        t = block[TEMPERATURE + k]
        grown = block[Q_SEI + k] - block[PACK_SEI + k]
        block[PACK_SEI + k] = block[Q_SEI + k]
        warmer = block[HOT_SHARE + k] * max(t - block[AMBIENT + k], 0.0)
        extra = grown * (math.exp(min(c.e_sei / GAS_CONSTANT * warmer / (t * t), 1.0)) - 1.0) * block[INV_Q_N + k]
        span = block[X_FULL + k] - block[X_EMPTY + k]
        block[WEAK_CAPACITY + k] = max(block[WEAK_CAPACITY + k] - extra / span, -0.5)
        shift = max(block[WEAK_SHIFT + k] - extra, -1.0)
        soc = (block[X_N + k] - block[X_EMPTY + k]) / span
        bleeds = (block[MODE + k] >= 2.0) & (soc > BALANCING_ABOVE)
        step = BALANCING_A / block[PARALLEL + k] * elapsed_s * block[INV_Q_N + k] / block[AREA + k] if bleeds else 0.0
        block[BLED + k] += step
        block[WEAK_SHIFT + k] = shift
        balance(block, k, step)


@dataclass(frozen=True)
class Pack:
    """Spread of the cell groups of one pack, as standard deviations of single cells. A group of `parallel` cells
    spreads less, by the square root of their number (Rumpf et al. 2017, J. Energy Storage 14, 224: capacity 0.8 %,
    resistance 1.3 to 1.9 % of new cells of one batch)."""

    capacity_sd: float = 0.008
    resistance_sd: float = 0.02
    hot_share: float = 0.25
    """Additional rise of the warmest group, as a share of the mean's rise over the air."""

    def __post_init__(self) -> None:
        for name, most in (("capacity_sd", 0.3), ("resistance_sd", 1.0), ("hot_share", 2.0)):
            value = getattr(self, name)
            if not 0.0 <= value <= most:
                raise ValueError(f"expected {name} from 0 to {most:g}, got {value}")

    def extremes(self, series: float, parallel: float) -> tuple[float, float]:
        """(capacity, resistance) of the weakest of `series` groups, relative to the mean; the strongest is opposite.

        The expected largest of n normal draws is a little less than sqrt(2 ln n) (Blom 1958)."""
        n = max(series, 2.0)
        u = math.sqrt(2.0 * math.log(n))
        largest = u - (math.log(math.log(n)) + math.log(4.0 * math.pi)) / (2.0 * u) + 0.5772 / u if n > 3 else 0.6
        root = math.sqrt(parallel)
        return -largest * self.capacity_sd / root, largest * self.resistance_sd / root


def group_scales(pack: Pack, series: int, parallel: int, seed: int) -> tuple[FloatArray, FloatArray]:
    """Capacity and resistance of each group relative to the mean, shape (series,), for `simulate_groups`."""
    if series < 1 or parallel < 1:
        raise ValueError(f"expected at least one cell in series and in parallel, got {series} and {parallel}")
    generator = np.random.default_rng(seed)
    root = math.sqrt(parallel)
    capacity = 1.0 + pack.capacity_sd / root * generator.standard_normal(series)
    resistance = 1.0 + pack.resistance_sd / root * generator.standard_normal(series)
    return capacity / capacity.mean(), resistance / resistance.mean()
