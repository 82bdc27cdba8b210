"""Electrochemistry of a cell, a pack, a vehicle and its day, for thousands of vehicles at once.

numpy and numba only: no Ray, no files, no clock, no hidden randomness. Open `kernel.py` first (one step of 128 cells,
the equations), then `modal.py` (where its coefficients come from), `layout.py` (where a state lives), `fleet.py`
(vehicles driving, parking and charging) and `life.py` (the same for years). `docs/physics.md` is for the reader who
knows batteries. Positive current discharges.
"""

from __future__ import annotations

from physics._cache import cache_folder, kernel_cache, physics_version

with kernel_cache():  # before any kernel is defined: numba fixes a function's cache folder when it is decorated
    from physics.cell import CellResult, simulate_cell
    from physics.cells import UnknownCellError, cell_names, load_cell
    from physics.faults import FAULTS, Fault
    from physics.fleet import COLUMNS, FleetPhysics
    from physics.groups import GroupsResult, PackResult, simulate_groups, simulate_pack
    from physics.lab import LabResult, simulate_protocol
    from physics.layout import FLAGS
    from physics.life import Duty, FleetLives, Life, simulate_life
    from physics.pack import Pack
    from physics.parameters import CellParameters
    from physics.population import Population, draw_population
    from physics.protocol import parse_protocol
    from physics.vehicle import MODES

__all__ = [
    "COLUMNS",
    "FAULTS",
    "FLAGS",
    "MODES",
    "CellParameters",
    "CellResult",
    "Duty",
    "Fault",
    "FleetLives",
    "FleetPhysics",
    "GroupsResult",
    "LabResult",
    "Life",
    "Pack",
    "PackResult",
    "Population",
    "UnknownCellError",
    "cache_folder",
    "cell_names",
    "draw_population",
    "load_cell",
    "parse_protocol",
    "physics_version",
    "simulate_cell",
    "simulate_groups",
    "simulate_life",
    "simulate_pack",
    "simulate_protocol",
]
