"""Life of published cells, computed with BLAST-Lite's models (a development dependency, BSD-3 licence).

The models are NREL's fits to laboratory data of one to three years. Beyond that they extrapolate, as their
documentation says: "it is good to treat all models as qualitative". Every entry of `PUBLISHED` names its data.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np

from physics.parameters import FloatArray
from training.validation.reference import ReferenceMissing

DAYS_A_YEAR: Final = 365.25
_FIRST_STEP: Final = 1.0  # day or equivalent full cycle
_GROWTH: Final = 0.01  # later steps are this share of what has passed


class BlastMissingError(ReferenceMissing):
    """BLAST-Lite is not installed."""


@dataclass(frozen=True)
class PublishedCell:
    """One of BLAST-Lite's life models. Ranges are those its documentation states for the data behind it."""

    key: str
    model: str
    """Class in `blast.models`."""
    cell: str
    data: str
    tested_C: tuple[float, float]
    tested_depth: tuple[float, float]
    """Depth of discharge in the cycling tests."""
    tested_rate: float
    """Largest C-rate of charge in the cycling tests."""
    calendar_loss: str
    """The state that holds what time alone costs."""
    cycling_loss: str
    """The state that holds what cycles cost on top."""
    remark: str = ""


def _published(*cells: PublishedCell) -> dict[str, PublishedCell]:
    return {cell.key: cell for cell in cells}


_GASPER2023: Final = "doi 10.1016/j.est.2023.109042"
PUBLISHED: Final = _published(
    PublishedCell(
        "denso",
        "Nmc622_Gr_DENSO50Ah_Battery",
        "DENSO 50 Ah, NMC622-graphite",
        "Smith et al. 2021, J. Electrochem. Soc. 168, 100530 (doi 10.1149/1945-7111/ac2ebd)",
        (10.0, 60.0),
        (0.1, 1.0),
        1.0,
        "qLoss_t",
        "qLoss_EFC",
        "calendar at 10-60 degC and 10-100 % charge; sqrt(t) by construction; its cycling part starts as sqrt(cycles)"
        " and is far above the others",
    ),
    PublishedCell(
        "b1",
        "NMC_Gr_50Ah_B1",
        "50 Ah pouch 'B1', NMC-graphite",
        _GASPER2023,
        (10.0, 45.0),
        (0.8, 1.0),
        1.75,
        "qLoss_t",
        "qLoss_EFC",
    ),
    PublishedCell(
        "b2",
        "NMC_Gr_50Ah_B2",
        "50 Ah pouch 'B2', NMC-graphite",
        _GASPER2023,
        (10.0, 45.0),
        (0.8, 1.0),
        1.75,
        "qLoss_t",
        "qLoss_EFC",
    ),
    PublishedCell(
        "a75",
        "NMC_Gr_75Ah_A",
        "75 Ah pouch 'A', NMC-graphite",
        _GASPER2023,
        (10.0, 45.0),
        (0.8, 1.0),
        2.0,
        "qLoss_t",
        "qLoss_EFC",
        "built for fast charging; ages least of all",
    ),
    PublishedCell(
        "kokam",
        "Nmc111_Gr_Kokam75Ah_Battery",
        "Kokam 75 Ah, NMC-graphite",
        "Smith et al. 2017, American Control Conference (ieeexplore.ieee.org/document/7963578)",
        (0.0, 45.0),
        (0.8, 1.0),
        1.0,
        "qLoss_LLI_t",
        "qLoss_LLI_EFC",
        "next to nothing lost below half charge",
    ),
    PublishedCell(
        "lgm50",
        "Nmc811_GrSi_LGM50_5Ah_Battery",
        "LG M50 5 Ah, NMC811 against graphite with silicon",
        "Bui et al. 2021 (ieeexplore.ieee.org/document/9617644)",
        (0.0, 60.0),
        (1.0, 1.0),
        0.3,
        "qLoss_t",
        "qLoss_EFC",
        "the cell of chen2020; its calendar fit is not monotonic in temperature below 25 degC at high charge, and its"
        " cycling part knows no depth of discharge",
    ),
    PublishedCell(
        "sony",
        "Lfp_Gr_SonyMurata3Ah_Battery",
        "Sony-Murata 3 Ah, LFP-graphite",
        "Naumann et al. 2018 and 2020 (doi 10.1016/j.est.2018.01.019, 10.1016/j.jpowsour.2019.227666)",
        (20.0, 40.0),
        (0.8, 1.0),
        1.0,
        "qLoss_LLI_t",
        "qLoss_LLI_EFC",
        "its break-in loss, seen above three full cycles a day only, is left out; cycling knows no temperature",
    ),
    PublishedCell(
        "lfp250",
        "Lfp_Gr_250AhPrismatic",
        "prismatic LFP-graphite above 250 Ah",
        _GASPER2023,
        (10.0, 45.0),
        (0.8, 1.0),
        0.65,
        "qLoss_t",
        "qLoss_EFC",
    ),
)


@cache
def _models() -> dict[str, Any]:
    """BLAST-Lite's model classes by name.

    Its package imports a downloader of climate data with some forty packages, which the life models do not use. So the
    package's own __init__ and that one module are bypassed.
    """
    spec = importlib.util.find_spec("blast")
    if spec is None or not spec.submodule_search_locations:
        raise BlastMissingError(
            "expected BLAST-Lite, the published life models, and it is not installed:"
            " pip install --no-deps blast-lite==1.1.1"
        )
    root = next(iter(spec.submodule_search_locations))
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "blast"}
    package, utils, functions = (types.ModuleType(n) for n in ("blast", "blast.utils", "blast.utils.functions"))
    package.__path__ = [root]
    utils.__path__ = [f"{root}/utils"]
    functions.rescale_soc = None  # type: ignore[attr-defined]  # imported by name, used by no function we call
    sys.modules |= {"blast": package, "blast.utils": utils, "blast.utils.functions": functions}
    try:
        module = importlib.import_module("blast.models")
        return {name: getattr(module, name) for name in dir(module)}
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "blast"]:
            del sys.modules[name]
        sys.modules.update(before)


@contextmanager
def _older_numpy() -> Iterator[None]:
    """NumPy 2 renamed `trapz`; the models still call it."""
    had = np.__dict__.get("trapz")
    np.trapz = np.trapezoid  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if had is None:
            del np.trapz  # type: ignore[attr-defined]
        else:
            np.trapz = had  # type: ignore[attr-defined]


def _march(
    cell: PublishedCell, time_s: FloatArray, soc: FloatArray, temperature_C: float, steps: FloatArray, per: str
) -> FloatArray:
    """Losses (time, cycles) of fresh capacity after each of `steps`, shape (n, 2).

    The pattern (time_s, soc) repeats. `per` says whether `steps` count days or equivalent full cycles (EFC). Inner
    steps grow with what has passed; the result is within 1e-3 of that of equal steps.
    """
    with _older_numpy():
        model = _models()[cell.model]()
        model.update_battery_state(time_s, soc, np.full(time_s.size, temperature_C))
        once = {name: values[-1] for name, values in model.stressors.items()}
        days = (time_s[-1] - time_s[0]) / 86400.0
        efc = 0.5 * float(np.abs(np.diff(soc)).sum())
        model = _models()[cell.model]()
        model.update_rates(model._extract_stressors(time_s, soc, np.full(time_s.size, temperature_C)))
        unit = days if per == "days" else efc
        passed, losses = 0.0, []
        for target in steps:
            while passed < target - 1e-9:
                step = min(max(_FIRST_STEP, _GROWTH * passed), float(target) - passed)
                once["delta_t_days"], once["delta_efc"] = days * step / unit, efc * step / unit
                model.update_states(once)
                model.states = {name: values[-1:] for name, values in model.states.items()}
                passed += step
            losses.append((model.states[cell.calendar_loss][-1], model.states[cell.cycling_loss][-1]))
    return np.array(losses, dtype=np.float64)


def calendar_capacity(key: str, temperature_C: float, soc: float, years: FloatArray) -> FloatArray:
    """Capacity over fresh capacity after `years` of storage, shape (n,)."""
    time_s = np.array([0.0, 43200.0, 86400.0])
    losses = _march(PUBLISHED[key], time_s, np.full(3, soc), temperature_C, DAYS_A_YEAR * np.asarray(years), "days")
    return np.asarray(1.0 - losses[:, 0], dtype=np.float64)


def cycling_loss(
    key: str, temperature_C: float, soc_low: float, soc_high: float, c_rate: float, efc: FloatArray
) -> FloatArray:
    """What cycling without pause costs beyond the passing of time, as part of fresh capacity, shape (n,).

    A cycle goes down from `soc_high` to `soc_low` and up again at `c_rate`. `efc`: equivalent full cycles, charge in
    both directions over twice the nominal capacity.
    """
    half_s = 3600.0 * (soc_high - soc_low) / c_rate
    down, up = np.linspace(soc_high, soc_low, 21), np.linspace(soc_low, soc_high, 21)
    losses = _march(
        PUBLISHED[key],
        np.linspace(0.0, 2.0 * half_s, 41),
        np.concatenate([down, up[1:]]),
        temperature_C,
        np.asarray(efc),
        "efc",
    )
    return np.asarray(losses[:, 1], dtype=np.float64)
