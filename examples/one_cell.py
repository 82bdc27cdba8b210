"""Scenario: you have a current profile from the bench, and want to know what a cell would do under it.

Half an hour of driving-like current through an LG M50 at 25 and at 0 degC: voltage, temperature, state of charge.

    .venv/bin/python examples/one_cell.py
"""

from __future__ import annotations

import numpy as np

from physics import load_cell, simulate_cell


def main() -> None:
    """Two temperatures, one profile."""
    seconds = np.arange(1800)
    current_A = 4.0 + 3.0 * np.sin(2 * np.pi * seconds / 90.0)  # positive discharges
    print(f"{load_cell('chen2020').name}, {current_A.mean():.1f} A on average")
    for ambient_C in (25.0, 0.0):
        cell = simulate_cell(parameters="chen2020", current_A=current_A, initial_soc=0.9, ambient_C=ambient_C)
        print(
            f"{ambient_C:4.0f} degC: {cell.voltage_V.min():.3f} to {cell.voltage_V.max():.3f} V, "
            f"up to {cell.temperature_C.max():.1f} degC, SoC at the end {cell.soc[-1]:.3f}"
        )


if __name__ == "__main__":
    main()
