"""Write a cell as a Battery Parameter eXchange file that `bpx_file.load_bpx` reads as the same cell.

Curves are written as tables of as many points as the kernel's own (`modal.TABLE_CELLS`), so nothing is lost that the
kernel would see. BPX has no fields for a cell's aging: who reads the file gets that of `bpx_file.AGING_FROM`. The
first film's resistance is written as part of the contact resistance.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Final

import numpy as np

from datasets.bpx_file import CONTACT, EXCHANGE
from datasets.log.durable import replace_file
from physics.constants import FARADAY
from physics.modal import TABLE_CELLS, cell_model
from physics.parameters import CellParameters, Curve, ElectrodeParameters, FloatArray

_SALT_POINTS: Final = 400
_SALT_REACH: Final = 8.0  # times the mean concentration; as far as `bpx_file` reads


def write_bpx(cell: CellParameters, path: Path, *, title: str, description: str) -> None:
    """Write the file, whole or not at all. OSError where it cannot be written."""
    text = json.dumps(_contents(cell, title, description), indent=1)
    replace_file(path, f"{text}\n".encode())


def _contents(cell: CellParameters, title: str, description: str) -> dict[str, Any]:
    model = cell_model(cell)
    e, c_0 = cell.electrolyte, cell.electrolyte.concentration_mol_m3
    salt = np.linspace(10.0, _SALT_REACH * c_0, _SALT_POINTS)
    efficiency_n, efficiency_s, efficiency_p = cell.transport_efficiency
    limits_p = [(model.inventory - model.q_n * x) / model.q_p for x in (model.x_full, model.x_empty)]
    film = 0.0 if cell.fresh_film_included else model.sei_resistance * model.sei_initial / cell.area_m2
    density = _mean_density(cell)
    return {
        "Header": {
            "BPX": "1.1.0",
            "Title": title,
            "Model": "SPMe",
            "Description": description,
            "References": ", ".join(cell.sources),
        },
        "Parameterisation": {
            "Cell": {
                "Electrode area [m2]": cell.area_m2,
                "External surface area [m2]": cell.cooling_area_m2,
                "Volume [m3]": cell.volume_m3,
                "Number of electrode pairs connected in parallel to make a cell": 1,
                "Lower voltage cut-off [V]": cell.voltage_min_V,
                "Upper voltage cut-off [V]": cell.voltage_max_V,
                "Nominal cell capacity [A.h]": cell.nominal_capacity_Ah,
                "Reference temperature [K]": cell.reference_temperature_K,
                "Density [kg.m-3]": density,
                "Specific heat capacity [J.K-1.kg-1]": cell.heat_capacity_J_K / (cell.volume_m3 * density),
            },
            "Electrolyte": {
                "Cation transference number": e.transference,
                "Diffusivity [m2.s-1]": _table(e.diffusivity_m2_s, salt),
                "Diffusivity activation energy [J.mol-1]": e.diffusivity_activation_J_mol,
                "Conductivity [S.m-1]": _table(e.conductivity_S_m, salt),
                "Conductivity activation energy [J.mol-1]": e.conductivity_activation_J_mol,
            },
            "Negative electrode": _electrode(cell, cell.negative, efficiency_n, model.x_empty, model.x_full),
            "Positive electrode": _electrode(cell, cell.positive, efficiency_p, limits_p[0], limits_p[1]),
            "Separator": {
                "Thickness [m]": cell.separator_thickness_m,
                "Porosity": cell.separator_porosity,
                "Transport efficiency": efficiency_s,
            },
            "User-defined": {CONTACT: cell.contact_resistance_Ohm + film} | _relative_exchange(cell),
        },
        "State": {
            "Initial conditions": {"Initial electrolyte concentration [mol.m-3]": c_0},
            "Thermal environment": {"Heat transfer coefficient [W.m-2.K-1]": cell.heat_transfer_W_m2K},
        },
    }


def _relative_exchange(cell: CellParameters) -> dict[str, Any]:
    x = np.linspace(0.0, 1.0, TABLE_CELLS + 1)
    return {
        f"{name} {EXCHANGE}": _table(e.relative_exchange, x)
        for name, e in (("Negative", cell.negative), ("Positive", cell.positive))
        if e.relative_exchange is not None
    }


def _electrode(
    cell: CellParameters, e: ElectrodeParameters, efficiency: float, low: float, high: float
) -> dict[str, Any]:
    """`low`, `high`: its stoichiometries between the voltage limits."""
    x = np.linspace(0.0, 1.0, TABLE_CELLS + 1)
    relative = e.relative_diffusivity
    diffusivity: Any = e.diffusivity_m2_s
    if relative is not None:
        diffusivity = _table(lambda s: e.diffusivity_m2_s * relative(s), x)
    hysteresis: dict[str, Any] = {}
    if e.hysteresis is not None:
        half = e.hysteresis.half_gap_V
        hysteresis = {
            "OCP (lithiation) [V]": _table(lambda s: e.ocp_V(s) - half(s), x),
            "OCP (delithiation) [V]": _table(lambda s: e.ocp_V(s) + half(s), x),
            "OCP hysteresis decay constant": e.hysteresis.decay,
        }
    return {
        "Thickness [m]": e.thickness_m,
        "Porosity": e.porosity,
        "Transport efficiency": efficiency,
        "Conductivity [S.m-1]": e.conductivity_S_m * e.active_fraction**cell.electrode_bruggeman,
        "Minimum stoichiometry": low,
        "Maximum stoichiometry": high,
        "Maximum concentration [mol.m-3]": e.max_concentration_mol_m3,
        "Particle radius [m]": e.particle_radius_m,
        "Surface area per unit volume [m-1]": e.specific_area_1_m,
        "Diffusivity [m2.s-1]": diffusivity,
        "Diffusivity activation energy [J.mol-1]": e.diffusivity_activation_J_mol,
        "OCP [V]": _table(e.ocp_V, x),
        **hysteresis,
        "Entropic change coefficient [V.K-1]": _table(e.entropic_change_V_K, x),
        "Reaction rate constant [mol.m-2.s-1]": e.exchange_rate
        * e.max_concentration_mol_m3
        * math.sqrt(cell.electrolyte.concentration_mol_m3)
        / FARADAY,
        "Reaction rate constant activation energy [J.mol-1]": e.exchange_activation_J_mol,
    }


def _table(curve: Curve, at: FloatArray) -> dict[str, list[float]]:
    """The curve where it is finite (a formula may not hold at 0)."""
    values = np.broadcast_to(curve(at), at.shape)
    finite = np.isfinite(values)
    return {"x": at[finite].tolist(), "y": values[finite].tolist()}


def _mean_density(cell: CellParameters) -> float:
    """Of the layers, by thickness [kg/m3]."""
    layers = (
        (cell.collector_thickness_m[0], cell.collector_density_kg_m3[0]),
        (cell.negative.thickness_m, cell.negative.density_kg_m3),
        (cell.separator_thickness_m, cell.separator_density_kg_m3),
        (cell.positive.thickness_m, cell.positive.density_kg_m3),
        (cell.collector_thickness_m[1], cell.collector_density_kg_m3[1]),
    )
    return sum(thickness * density for thickness, density in layers) / sum(thickness for thickness, _ in layers)
