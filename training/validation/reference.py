"""PyBaMM with our parameters and submodels: the reference of validation, tests and benchmarks."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from physics import load_cell

FloatArray = np.ndarray[Any, np.dtype[np.float64]]

FINE = {"x_n": 30, "x_s": 15, "x_p": 30, "r_n": 60, "r_p": 60}
"""Mesh points of the fine mesh; the default has 20 in each."""

OPTIONS = {
    "thermal": "lumped",
    "heat of mixing": "true",
    "SEI": "ec reaction limited",
    "SEI film resistance": "distributed",
    "SEI porosity change": "true",
}


class ReferenceMissing(RuntimeError):
    """The reference to compare with is not installed; the message says how to install it."""


def load_pybamm() -> Any:
    """The module, or an error in one line that says what to install."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module("pybamm")
        except ImportError as error:
            raise ReferenceMissing(
                f"expected PyBaMM to compare with ({error}); install it: pip install 'pybamm>=26.10'"
            ) from error


def drive_like_profile(seconds: int = 1800, peak_A: float = 5.0) -> tuple[FloatArray, FloatArray]:
    """(t, I), each of shape (seconds + 1,): accelerations, braking and stops; by default with 1C peaks."""
    t = np.arange(seconds + 1.0)
    wave = (
        0.45 * np.sin(2 * np.pi * t / 311)
        + 0.35 * np.sin(2 * np.pi * t / 67 + 1)
        + 0.25 * np.sin(2 * np.pi * t / 23 + 2)
    )
    current = np.clip(wave + 0.35, -0.6, 1.0) * peak_A
    current[(t % 400) < 40] = 0.0
    return t, current


def parameter_values(pybamm: Any, ambient_C: float = 25.0) -> Any:
    """O'Kane 2022 with Chen 2020's graphite OCP, O'Regan 2022's entropic change and our SEI constants."""
    sei = load_cell("okane2022").sei
    values = pybamm.ParameterValues("OKane2022")
    values["Negative electrode OCP [V]"] = pybamm.ParameterValues("Chen2020")["Negative electrode OCP [V]"]
    regan = pybamm.ParameterValues("ORegan2022")
    for name in ("Negative", "Positive"):
        key = f"{name} electrode OCP entropic change [V.K-1]"
        values[key] = regan[key]
    values["SEI kinetic rate constant [m.s-1]"] = sei.rate_m_s
    values["EC diffusivity [m2.s-1]"] = sei.ec_diffusivity_m2_s
    values["SEI growth activation energy [J.mol-1]"] = sei.activation_J_mol
    values["Ratio of lithium moles to SEI moles"] = sei.lithium_per_mole
    values["Ambient temperature [K]"] = ambient_C + 273.15
    values["Initial temperature [K]"] = ambient_C + 273.15
    return values


def simulation(
    t: FloatArray,
    current: FloatArray,
    ambient_C: float = 25.0,
    *,
    fine: bool = False,
    model: str = "SPMe",
    options: Mapping[str, Any] = OPTIONS,
) -> Any:
    """A PyBaMM simulation of the profile. Solve it with t_eval = [0, end] and t_interp, because the solver would
    restart at every second in t_eval."""
    pybamm = load_pybamm()
    values = parameter_values(pybamm, ambient_C)
    values["Current function [A]"] = pybamm.Interpolant(t, current, pybamm.t)
    return pybamm.Simulation(
        getattr(pybamm.lithium_ion, model)(dict(options)),
        parameter_values=values,
        solver=pybamm.IDAKLUSolver(rtol=1e-6, atol=1e-8),
        var_pts=FINE if fine else None,
    )


def solve(simulation: Any, t: FloatArray, initial_soc: float = 0.7) -> dict[str, FloatArray]:
    """Voltage, temperature and film at every second of t."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        solution = simulation.solve([t[0], t[-1]], t_interp=t, initial_soc=initial_soc)
    return {
        "voltage_V": solution["Voltage [V]"](t),
        "temperature_C": solution["Volume-averaged cell temperature [K]"](t) - 273.15,
        "sei_thickness_m": solution["X-averaged negative SEI thickness [m]"](t),
        "stoichiometry_n": solution["Negative electrode stoichiometry"](t),
    }
