"""Randomness as a function: the same (seed, stream, subject, counter) gives the same number, in any order, anywhere.

The hash is splitmix64 (Steele, Lea and Flood 2014, doi 10.1145/2660193.2660195), chained over the four words. Streams
keep unrelated draws apart. A new draw takes a new stream, so that old draws never change.

A fleet's seed has five roles (`Keys`), so that its future can be drawn anew while its vehicles and owners stay.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from physics.compiled import inner, kernel
from physics.parameters import FloatArray

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX_1: Final = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2: Final = np.uint64(0x94D049BB133111EB)
_TO_UNIT: Final = 2.0**-53


class Keys(NamedTuple):
    """The seed of each role of chance, each from 0 to 2**63 - 1."""

    manufacture: int
    """What left the factory: the spread of cells and packs."""
    owner: int
    """Who has the vehicle: use, city, age, driver, charger and fixed habits."""
    days: int
    """What happens from day to day: weather, trips, whether the owner plugs in."""
    sensors: int
    """How sensors err, and their noise."""
    faults: int
    before: int
    """`days` before the local day `turn` (days since 1970): a fork's today is as it was planned."""
    owner_before: int
    """`owner` before that day."""
    turn: int

    @classmethod
    def of(cls, seed: int) -> Keys:
        """One seed in all roles."""
        return cls(seed, seed, seed, seed, seed, before=seed, owner_before=seed, turn=0)


@inner
def days_key(keys: Keys, day: int) -> int:
    """The key of what happens on a local day."""
    return keys.days if day >= keys.turn else keys.before


@inner
def owner_key(keys: Keys, day: int) -> int:
    """The key of who has the vehicle on a local day."""
    return keys.owner if day >= keys.turn else keys.owner_before


@inner
def mix(word: np.uint64) -> np.uint64:
    """64 bits that look random, from 64 bits."""
    z = word + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))


@inner
def uniform(seed: int, stream: int, subject: int, counter: int) -> float:
    """A number in (0, 1), never 0 or 1."""
    h = mix(np.uint64(seed))
    h = mix(h ^ np.uint64(stream))
    h = mix(h ^ np.uint64(subject))
    h = mix(h ^ np.uint64(counter))
    return (float(h >> np.uint64(11)) + 0.5) * _TO_UNIT


@kernel
def _uniforms(seed: int, stream: int, subjects: npt.NDArray[np.int64], counter: int) -> FloatArray:
    out = np.empty(subjects.size)
    for k in range(subjects.size):
        out[k] = uniform(seed, stream, subjects[k], counter)
    return out


def uniforms(seed: int, stream: int, subjects: npt.NDArray[np.int64], counter: int = 0) -> FloatArray:
    """`uniform` for many subjects, shape (n,)."""
    result: FloatArray = _uniforms(seed, stream, subjects, counter)
    return result


def normals(seed: int, stream: int, subjects: npt.NDArray[np.int64], limit: float = 3.0) -> FloatArray:
    """Standard normal numbers, shape (n,), cut at +-`limit` (Box-Muller on counters 0 and 1)."""
    u, v = uniforms(seed, stream, subjects, 0), uniforms(seed, stream, subjects, 1)
    z = np.sqrt(-2.0 * np.log(u)) * np.cos(2.0 * np.pi * v)
    return np.asarray(np.clip(z, -limit, limit), dtype=np.float64)
