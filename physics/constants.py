"""Physical constants (CODATA 2018) and fixed points. SI."""

from __future__ import annotations

from typing import Final

FARADAY: Final = 96485.33212  # [C/mol]
GAS_CONSTANT: Final = 8.314462618  # [J/(mol K)]
KELVIN: Final = 273.15  # 0 degC [K]
GRAVITY: Final = 9.80665  # [m/s2]
