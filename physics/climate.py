"""Outside air by city, month and hour.

Monthly means of the daily minimum and maximum [degC], rounded to whole degrees (take them as good to 1 K), after the
1991-2020 normals that the national services report to the WMO (World Weather Information Service,
worldweather.wmo.int; NOAA U.S. Climate Normals, ncei.noaa.gov; DWD; Met Office). Within a day the temperature is a
cosine with its maximum at 15:00 local solar-zone time. Weather is a seeded anomaly of each city, one part from day to
day and one in spells of five days, interpolated linearly. Daily means deviate from the season's by a standard deviation
of about 3 K, and correlate by 0.7 with those of the day before, as station records of middle latitudes do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from physics.compiled import inner
from physics.constants import KELVIN
from physics.rng import Keys, days_key, uniform

Months = tuple[int, int, int, int, int, int, int, int, int, int, int, int]


@dataclass(frozen=True)
class City:
    """A home city. Temperatures [degC] from January to December."""

    name: str
    longitude_deg: float
    daily_min_C: Months
    daily_max_C: Months

    @property
    def utc_offset_s(self) -> int:
        """UTC offset of the time zone of its longitude, in whole hours [s]."""
        return round(self.longitude_deg / 15.0) * 3600


CITIES: Final = (
    City(
        "Oslo",
        10.75,
        (-5, -5, -2, 2, 7, 11, 13, 12, 9, 4, 0, -4),
        (0, 1, 5, 11, 17, 20, 23, 21, 16, 10, 4, 1),
    ),
    City(
        "Munich",
        11.58,
        (-3, -3, 0, 4, 8, 12, 13, 13, 9, 5, 1, -2),
        (4, 5, 10, 14, 19, 22, 24, 24, 19, 14, 7, 4),
    ),
    City(
        "London",
        -0.45,
        (3, 3, 4, 6, 9, 12, 14, 14, 12, 9, 5, 3),
        (8, 9, 12, 15, 18, 22, 24, 23, 20, 16, 12, 9),
    ),
    City(
        "Minneapolis",
        -93.27,
        (-13, -11, -4, 3, 10, 16, 18, 17, 12, 5, -2, -9),
        (-5, -2, 5, 14, 21, 26, 29, 27, 23, 15, 6, -2),
    ),
    City(
        "Los Angeles",
        -118.24,
        (10, 10, 11, 13, 14, 16, 18, 18, 18, 15, 12, 9),
        (20, 20, 21, 22, 23, 25, 28, 29, 28, 26, 23, 20),
    ),
    City(
        "Phoenix",
        -112.07,
        (8, 9, 13, 16, 21, 26, 29, 29, 26, 19, 12, 7),
        (20, 22, 26, 30, 35, 40, 41, 41, 38, 32, 25, 19),
    ),
    City(
        "Beijing",
        116.40,
        (-7, -4, 2, 9, 15, 20, 23, 22, 16, 9, 1, -5),
        (2, 6, 13, 21, 27, 31, 32, 31, 26, 19, 10, 4),
    ),
    City(
        "Singapore",
        103.99,
        (24, 25, 25, 25, 26, 26, 25, 25, 25, 25, 25, 24),
        (31, 32, 32, 32, 32, 32, 31, 31, 32, 32, 31, 31),
    ),
)
CITY_NAMES: Final = tuple(city.name for city in CITIES)

_MEAN: Final = np.array([[0.5 * (a + b) for a, b in zip(c.daily_min_C, c.daily_max_C, strict=True)] for c in CITIES])
_SWING: Final = np.array([[0.5 * (b - a) for a, b in zip(c.daily_min_C, c.daily_max_C, strict=True)] for c in CITIES])
_STREAM: Final = 100
_SPELLS: Final = 101
SPELL_DAYS: Final = 5
_DAYS_A_YEAR: Final = 365.2425
_ANOMALY_K: Final = 2.7  # of each part, at its nodes; interpolation takes some of it


def mean_temperature_C(city: int) -> float:
    """Mean over the year [degC]."""
    return float(_MEAN[city].mean())


@inner
def _anomaly(keys: Keys, city: int, day: int, stream: int, span: int) -> float:
    """Anomaly of one city at the beginning of a day: a sum of four uniforms, scaled to a standard deviation of 1. It
    acts on the `span` days before, too, so a fork's weather begins to differ only after them."""
    key = days_key(keys, day - span)
    total = 0.0
    for k in range(4):
        total += uniform(key, stream, city, 4 * day + k)
    return (total - 2.0) * math.sqrt(3.0)


@inner
def _weather_K(keys: Keys, city: int, days: float) -> float:
    """Deviation from the season's normal [K]: from day to day, and spells of some days, half of the variance each."""
    day = math.floor(days)
    spell = day - day % SPELL_DAYS
    through, along = days - day, (days - spell) / SPELL_DAYS
    fast = (1.0 - through) * _anomaly(keys, city, day, _STREAM, 1)
    fast += through * _anomaly(keys, city, day + 1, _STREAM, 1)
    slow = (1.0 - along) * _anomaly(keys, city, spell, _SPELLS, SPELL_DAYS)
    slow += along * _anomaly(keys, city, spell + SPELL_DAYS, _SPELLS, SPELL_DAYS)
    return _ANOMALY_K * (fast + slow)


@inner
def ambient_K(keys: Keys, city: int, local_s: float) -> float:
    """Air temperature [K] at `local_s`, seconds since 1970-01-01 on the city's clock."""
    days = local_s / 86400.0
    day = math.floor(days)
    month = (days % _DAYS_A_YEAR) / _DAYS_A_YEAR * 12.0 - 0.5  # a month's normal holds at its middle
    before = math.floor(month) % 12
    after = (before + 1) % 12
    late = month - math.floor(month)
    mean = (1.0 - late) * _MEAN[city, before] + late * _MEAN[city, after]
    swing = (1.0 - late) * _SWING[city, before] + late * _SWING[city, after]
    through = days - day
    ambient: float = (
        KELVIN + mean + _weather_K(keys, city, days) + swing * math.cos(2.0 * math.pi * (through - 15.0 / 24.0))
    )
    return ambient
