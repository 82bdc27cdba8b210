"""Electrochemistry of a cell, a pack, a vehicle and its day, for thousands of vehicles at once.

numpy and numba only: no Ray, no files, no clock, no hidden randomness. Open `kernel.py` first (one step of 128 cells, the
equations), then `modal.py` (where its coefficients come from), `layout.py` (where a state lives) and `fleet.py` (vehicles
driving, parking and charging). `docs/physics.md` is for the reader who knows batteries. Positive current discharges.
"""

from __future__ import annotations
