"""Electrochemistry of a cell, a pack, a vehicle and its day, for thousands of vehicles at once.

It needs numpy and numba only: no Ray, no files (but a drive that a protocol names, `drive_file.py`), no clock, no
hidden randomness. Open `kernel.py` first (one step of 128 cells, the equations), then `modal.py` (where its
coefficients come from), `layout.py` (where a state lives), `fleet.py` (vehicles driving, parking and charging) and
`life.py` (the same for years). `docs/physics.md` is for readers who know batteries. Positive current discharges.

Names are imported on first use, so a program that only lists cells or columns does not wait for the compiler.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from physics.cell import CellResult, simulate_cell
    from physics.cells import UnknownCellError, cell_names, load_cell
    from physics.columns import COLUMNS, DIAGNOSTICS, FLAGS, MODES
    from physics.compiled import cache_folder, physics_version
    from physics.daily import DAILY
    from physics.default_fleet import USES
    from physics.faults import FAULTS, Fault
    from physics.fleet import FleetPhysics
    from physics.groups import GroupsResult, PackResult, simulate_groups, simulate_pack
    from physics.lab import LabResult, simulate_protocol
    from physics.life import Duty, FleetLives, Life, simulate_life
    from physics.pack import Pack
    from physics.parameters import CellParameters
    from physics.policy import Policy
    from physics.population import Population, draw_population
    from physics.protocol import parse_protocol
    from physics.rng import Keys
    from physics.sensors import PROFILES, Sensors

_HOMES = {
    "cell": ("CellResult", "simulate_cell"),
    "cells": ("UnknownCellError", "cell_names", "load_cell"),
    "columns": ("COLUMNS", "DIAGNOSTICS", "FLAGS", "MODES"),
    "compiled": ("cache_folder", "physics_version"),
    "daily": ("DAILY",),
    "default_fleet": ("USES",),
    "faults": ("FAULTS", "Fault"),
    "fleet": ("FleetPhysics",),
    "groups": ("GroupsResult", "PackResult", "simulate_groups", "simulate_pack"),
    "lab": ("LabResult", "simulate_protocol"),
    "life": ("Duty", "FleetLives", "Life", "simulate_life"),
    "pack": ("Pack",),
    "parameters": ("CellParameters",),
    "policy": ("Policy",),
    "population": ("Population", "draw_population"),
    "protocol": ("parse_protocol",),
    "sensors": ("PROFILES", "Sensors"),
    "rng": ("Keys",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "COLUMNS",
    "DAILY",
    "DIAGNOSTICS",
    "FAULTS",
    "FLAGS",
    "MODES",
    "PROFILES",
    "USES",
    "CellParameters",
    "CellResult",
    "Duty",
    "Fault",
    "FleetLives",
    "FleetPhysics",
    "GroupsResult",
    "Keys",
    "LabResult",
    "Life",
    "Pack",
    "PackResult",
    "Policy",
    "Population",
    "Sensors",
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


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'physics' has no attribute {name!r}")
    value = getattr(import_module(f"physics.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value
