"""Physical constants (CODATA 2018), fixed points and bounds. SI."""

from __future__ import annotations

from typing import Final

FARADAY: Final = 96485.33212  # [C/mol]
GAS_CONSTANT: Final = 8.314462618  # [J/(mol K)]
KELVIN: Final = 273.15  # 0 degC [K]
GRAVITY: Final = 9.80665  # [m/s2]
DAY_S: Final = 86400.0
YEAR_S: Final = 365.2425 * DAY_S

# What users may ask of a cell.
LARGEST_C_RATE: Final = 50.0
COLDEST_C: Final = -60.0  # the cell, and the air around it
HOTTEST_C: Final = 100.0
