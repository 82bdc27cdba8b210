"""Electrochemistry of a cell, a pack, a vehicle and its day, for thousands of vehicles at once.

numpy and numba only: no Ray, no files, no clock, no hidden randomness. Open `kernel.py` first (one step of 128 cells,
the equations), then `modal.py` (where its coefficients come from), `layout.py` (where a state lives) and `fleet.py`
(vehicles driving, parking and charging). `docs/physics.md` is for the reader who knows batteries. Positive current
discharges.
"""

from __future__ import annotations

from physics._cache import cache_folder, kernel_cache, physics_version

with kernel_cache():  # before any kernel is defined: numba fixes a function's cache folder when it is decorated
    from physics.cell import CellResult, simulate_cell
    from physics.cells import UnknownCellError, cell_names, load_cell
    from physics.fleet import COLUMNS, FleetPhysics
    from physics.lab import LabResult, simulate_protocol
    from physics.layout import FLAGS
    from physics.parameters import CellParameters
    from physics.population import Population, draw_population
    from physics.protocol import parse_protocol
    from physics.vehicle import MODES

__all__ = [
    "COLUMNS",
    "FLAGS",
    "MODES",
    "CellParameters",
    "CellResult",
    "FleetPhysics",
    "LabResult",
    "Population",
    "UnknownCellError",
    "cache_folder",
    "cell_names",
    "draw_population",
    "load_cell",
    "parse_protocol",
    "physics_version",
    "simulate_cell",
    "simulate_protocol",
]
