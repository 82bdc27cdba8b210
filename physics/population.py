"""The vehicles of a fleet. Every value is a pure function of (keys, vehicle index): it does not matter which others are
drawn.

Capacity spreads by 1.2 % and resistance by 5 %. That is the order that studies of cells of one type report (Rumpf et
al. 2017, J. Energy Storage 14, 224; Baumhoefer et al. 2014, J. Power Sources 247, 332), on the wide side. A pack is its
mean cell, so the spread is between vehicles. The rate of SEI growth spreads by 30 %, because the three EV cells it is
fitted to lose 8 to 14 % in ten years at 25 degC and half charge. Driver, payload and habits are set for variety, not
fitted. Age is uniform from 0 to 10 years, with 9,000 to 24,000 km a year for a commuter. It was spent at the yearly
mean temperature of the home city, plus 3 K for parking and driving, at the vehicle's usual charge. Film, lost lithium,
odometer and cycles all follow from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from physics.car_models import CAR_MODELS
from physics.cells import load_cell
from physics.climate import CITIES, mean_temperature_C
from physics.constants import FARADAY, GAS_CONSTANT, KELVIN, YEAR_S
from physics.default_fleet import MODEL_SHARES, MOST_FAULTY, OLDEST_YEARS, USE_SHARES, USES
from physics.faults import BAD_ELECTROLYTE, draw_faults
from physics.modal import PACK_VOLTAGE_V, CellModel, cell_model, equilibrium_voltage, stoichiometry_limits, table_value
from physics.pack import Pack
from physics.parameters import FloatArray
from physics.rng import Keys, normals, uniforms

IntArray = npt.NDArray[np.int64]

CAPACITY_SD: Final = 0.012
RESISTANCE_SD: Final = 0.05
SPEED_SD: Final = 0.05
SEI_SD: Final = 0.3
FILM_SD: Final = 0.25
"""Of the logarithm; assumed. Without it resistance would tell SoH exactly, which it does not."""
YEAR_KM: Final = np.array([(13.5e3, 43e3), (31e3, 36e3), (84e3, 97e3), (61e3, 66e3)])
"""Least and most distance of a year, by use. This and the three tables below are what lives of the default fleet come
to in ten years, so that a vehicle that begins old is as if it had lived (`tests/physics/test_life.py` compares)."""
HELD_K: Final = 31.0 + KELVIN
"""Where the cooler holds a battery that its use warms."""
WARMED: Final = np.array([(0.15, 0.2, 0.72, 0.55), (0.05, 0.07, 0.42, 0.27)])
"""How far on the way from the air to `HELD_K` a film's steady temperature is: of cells that are not LFP and of LFP, by
use."""
LOST_N: Final = np.array([(0.0014, 0.0012, 0.0056, 0.0059), (0.0003, 0.0004, 0.0016, 0.0021)])
"""Active material that the negative electrode loses in a year, likewise."""
LOST_P: Final = np.array([(0.0007, 0.0009, 0.0125, 0.0078), (0.0, 0.0, 0.0, 0.0)])
WARMER_K: Final = 3.0
VANS_DELIVER: Final = 0.8
"""Share of delivery vehicles that are vans."""
FLAT_BELOW_V: Final = 3.4
"""At half charge: a cell of lithium iron phosphate. Its makers ask for full charges, so that the BMS can count."""
CHARGERS_W: Final = (7200.0, 11000.0)
SCHEDULED: Final = 0.35
"""Share of owners whose vehicle charges at home by a timer; assumed, as many as have a tariff for the night."""
NIGHT_HOURS: Final = (22.0, 23.0, 0.5, 1.0)
"""When such tariffs begin. A timer is up to ten minutes behind."""
STANDBY_W: Final = (4.0, 25.0)  # 0.2 to 1 % of a 60 kWh pack a day, the range that owners measure
SELF_DISCHARGE: Final = (0.005, 0.015)  # of the charge in a month
MONTH_H: Final = 730.5


@dataclass(frozen=True)
class Population:
    """The vehicles of a fleet or of a shard; every array has shape (n,), but for the faults'."""

    keys: Keys
    cells: tuple[str, ...]
    """Names of the cells in this fleet."""
    cell: IntArray
    """Index in `cells`."""
    vehicle: IntArray
    """Index in the fleet: the key of all random draws."""
    capacity_scale: FloatArray
    resistance_scale: FloatArray
    sei_scale: FloatArray
    """Factor on the rate of SEI growth."""
    film_scale: FloatArray
    """Factor on the resistivity of its film."""
    electrolyte_reserve: FloatArray
    """Beyond what fills the fresh pores, as a share of it (dryout.py)."""
    speed_scale: FloatArray
    """The driver's factor on trace speeds."""
    mass_kg: FloatArray
    auxiliary_W: FloatArray
    """While driving."""
    standby_W: FloatArray
    """While parked: control units, 12 V battery, telematics."""
    self_discharge: FloatArray
    """Conductance across each cell [S]."""
    charger_W: FloatArray
    """AC power from the wall."""
    plug_habit: FloatArray
    """Probability of plugging in at home on an evening above half charge."""
    charge_from_s: FloatArray
    """Local time of day from which it charges at home; -1: as soon as it is plugged in."""
    soc_limit: FloatArray
    """State of charge at which its owner lets charging at home end."""
    city: IntArray
    """Index in `climate.CITIES`."""
    initial_soc: FloatArray
    age_years: FloatArray
    sei_thickness_m: FloatArray
    active_n: FloatArray
    """Active material left in each electrode."""
    active_p: FloatArray
    odometer_km: FloatArray
    charge_cycles: FloatArray
    """Equivalent full cycles so far."""
    use: IntArray
    """Index in `default_fleet.USES`."""
    model: IntArray
    """Index in `car_models.CAR_MODELS`."""
    parallel: FloatArray
    """Cells in parallel in each group of its pack."""
    weak_capacity: FloatArray
    """Of the pack's weakest cell group relative to the mean, below 0; the strongest is its mirror image."""
    weak_resistance: FloatArray
    hot_share: FloatArray
    fault: IntArray
    """Index in `faults.FAULTS`, 0 for none, by onset: these three have shape (n, faults.SLOTS)."""
    fault_onset_s: FloatArray
    """Seconds since 1970."""
    fault_severity: FloatArray

    def __len__(self) -> int:
        return int(self.vehicle.size)

    def at(self, positions: IntArray) -> Population:
        """Some of the vehicles, by their positions, shape (m,)."""
        columns = ((part.name, getattr(self, part.name)) for part in fields(self))
        chosen: dict[str, Any] = {name: v[positions] for name, v in columns if isinstance(v, np.ndarray)}
        return replace(self, **chosen)


def grown_film(
    model: CellModel, thickness_m: FloatArray, seconds: FloatArray, temperature_K: FloatArray, b_V: FloatArray
) -> FloatArray:
    """SEI thickness [m] after `seconds` at constant temperature and negative potential `b_V`; all of shape (n,).

    For a rate k times as fast, pass k times the seconds. The kernel's law dL/dt = v / (1 + s L), integrated, says that
    L + s L^2/2 grows by v t.
    """
    reaction = np.exp((model.sei_potential - b_V) * FARADAY / (2.0 * GAS_CONSTANT * temperature_K))
    inverse_t = (1.0 / model.t_ref - 1.0 / temperature_K) / GAS_CONSTANT
    v = model.sei_length * model.sei_current * np.exp(model.e_sei * inverse_t) * reaction
    s = model.sei_rate_over_diffusivity * reaction * np.exp((model.e_sei - model.e_sei_diffusion) * inverse_t)
    target = thickness_m + 0.5 * s * thickness_m**2 + v * seconds
    return np.asarray((np.sqrt(1.0 + 2.0 * s * target) - 1.0) / s, dtype=np.float64)


def lost_lithium(model: CellModel, thickness_m: FloatArray) -> FloatArray:
    """Lithium bound in the film since the cell was fresh, as charge [C/m2]."""
    return (thickness_m - model.sei_initial) / model.sei_length


class Owners(NamedTuple):
    """Who has each vehicle; every array has shape (n,). The units are those of `Population`."""

    speed_scale: FloatArray
    payload_kg: FloatArray
    charger_W: FloatArray
    plug_habit: FloatArray
    charge_from_s: FloatArray
    soc_limit: FloatArray


def draw_owners(owner: int, vehicle: IntArray, flat: IntArray) -> Owners:
    """The owners that this key draws. `flat`: 1 for cells of LFP, whose owners charge to full more often."""

    def spread(stream: int, low: float, high: float) -> FloatArray:
        return low + (high - low) * uniforms(owner, stream, vehicle)

    below_full = uniforms(owner, 7, vehicle) < np.where(flat > 0, 0.4, 0.88)
    tariff = np.array(NIGHT_HOURS)[(uniforms(owner, 27, vehicle) * len(NIGHT_HOURS)).astype(np.int64)]
    night_s = 3600.0 * tariff + spread(28, 0.0, 600.0)
    return Owners(
        speed_scale=1.0 + SPEED_SD * normals(owner, 3, vehicle, limit=2.0),
        payload_kg=spread(4, 75.0, 400.0),
        charger_W=np.where(uniforms(owner, 6, vehicle) < 0.5, *CHARGERS_W),
        plug_habit=spread(8, 0.3, 1.0),
        charge_from_s=np.where(uniforms(owner, 26, vehicle) < SCHEDULED, night_s, -1.0),
        soc_limit=np.where(below_full, np.where(uniforms(owner, 7, vehicle, 1) < 0.8, 0.8, 0.9), 1.0),
    )


def is_flat(name: str) -> bool:
    """Is this a cell of lithium iron phosphate, by its voltage at half charge?"""
    return _middle_V(cell_model(load_cell(name))) < FLAT_BELOW_V


def draw_population(
    seed: int | Keys,
    vehicles: IntArray,
    cells: str | Mapping[str, float] = "chen2020",
    *,
    use: str | None = None,
    models: str | Mapping[str, float] | None = None,
    oldest_years: float = OLDEST_YEARS,
    fault_share: float | None = None,
    start_s: float = 0.0,
    drains: bool = True,
) -> Population:
    """Draw vehicles by their indices, shape (n,), not negative and without repetition.

    seed           of all random draws, or one for each role of chance
    cells          a cell's name, or names with their shares of the fleet
    use            one of `default_fleet.USES` for all; default: all of them by `default_fleet.USE_SHARES`
    models         one of `car_models.CAR_MODELS`, or several with their shares of the fleet; default: all of them by
                   `default_fleet.MODEL_SHARES`, and most deliveries with the van
    oldest_years   vehicles are between new and this old
    fault_share    share of vehicles that get a fault within ten years of `start_s`; default: by the rates of the field
    drains         parked vehicles supply their 12 V side, and cells discharge themselves
    """
    keys = seed if isinstance(seed, Keys) else Keys.of(seed)
    vehicle = _checked(keys, vehicles)
    shares = _shares(cells, "cells")
    if not (0.0 <= oldest_years <= 30.0 and 0.0 <= (fault_share or 0.0) <= MOST_FAULTY):
        raise ValueError(
            f"expected oldest_years from 0 to 30 and fault_share from 0 to {MOST_FAULTY:g}, got {oldest_years} and"
            f" {fault_share}"
        )
    names = tuple(load_cell(name).name for name in shares)
    cell = _dealt(shares, uniforms(keys.manufacture, 15, vehicle))

    def spread(stream: int, low: float, high: float, key: int = keys.owner) -> FloatArray:
        return low + (high - low) * uniforms(key, stream, vehicle)

    if use is None:
        use_of = _dealt(USE_SHARES, uniforms(keys.owner, 14, vehicle))
    elif use in USES:
        use_of = np.full(vehicle.size, USES.index(use))
    else:
        raise ValueError(f"expected a use of {', '.join(USES)}, got {use!r}")
    asked = MODEL_SHARES if models is None else _shares(models, "models")
    if unknown := set(asked) - set(CAR_MODELS):
        raise ValueError(f"expected models of {', '.join(CAR_MODELS)}, got {', '.join(sorted(unknown))}")
    numbers = np.array([list(CAR_MODELS).index(name) for name in asked])
    model_of = numbers[_dealt(asked, uniforms(keys.owner, 24, vehicle))]
    if models is None:
        delivers = (use_of == USES.index("delivery")) & (uniforms(keys.owner, 25, vehicle) < VANS_DELIVER)
        model_of = np.where(delivers, list(CAR_MODELS).index("van"), model_of)
    kinds = tuple(CAR_MODELS.values())
    city = np.minimum((uniforms(keys.owner, 9, vehicle) * len(CITIES)).astype(np.int64), len(CITIES) - 1)
    chemistry = np.array([int(is_flat(name)) for name in names])[cell]
    owners = draw_owners(keys.owner, vehicle, chemistry)
    age = spread(11, 0.0, oldest_years)
    least_km, most_km = YEAR_KM[use_of].T
    year_km = least_km * (most_km / least_km) ** uniforms(keys.owner, 12, vehicle)
    temperature = np.array([mean_temperature_C(k) for k in range(len(CITIES))])[city] + KELVIN + WARMER_K
    # A vehicle mostly rests near the limit it is charged to, less what the day's trips take.
    usual_soc = owners.soc_limit - 0.15
    sei_scale = 1.0 + SEI_SD * normals(keys.manufacture, 13, vehicle, limit=2.5)
    fault, onset, severity = draw_faults(keys.faults, vehicle, fault_share, start_s)
    faster = 1.0 + np.where(fault == BAD_ELECTROLYTE, severity, 0.0).sum(axis=1)
    temperature += WARMED[chemistry, use_of] * (HELD_K - temperature)
    film, reserve, weak_capacity, weak_resistance, leak, parallel = (np.empty(vehicle.size) for _ in range(6))
    fuller = normals(keys.manufacture, 30, vehicle, limit=2.5)
    pack = Pack()
    for index, name in enumerate(names):
        of = cell == index
        c = cell_model(load_cell(name))
        b = table_value(c, 0, c.x_empty + usual_soc[of] * (c.x_full - c.x_empty))
        fresh = np.full(b.size, c.sei_initial)
        dry_out = load_cell(name).dry_out
        reserve[of] = c.dry_reserve * np.exp((dry_out.reserve_spread if dry_out else 0.0) * fuller[of])
        film[of] = grown_film(c, fresh, (faster * sei_scale * age)[of] * YEAR_S, temperature[of], b)
        for number, kind in enumerate(kinds):
            those = of & (model_of == number)
            parallel[those] = max(1.0, round(1e3 * kind.pack_kWh / (PACK_VOLTAGE_V * c.nominal_Ah)))
            if those.any():
                weak_capacity[those], weak_resistance[those] = pack.extremes(c.series, parallel[those][0])
        leak[of] = c.nominal_Ah / (MONTH_H * _middle_V(c))
    worse = 1.0 + 0.5 * normals(keys.manufacture, 16, vehicle, limit=1.8)
    return Population(
        keys=keys,
        cells=names,
        cell=cell,
        vehicle=vehicle,
        capacity_scale=1.0 + CAPACITY_SD * normals(keys.manufacture, 1, vehicle),
        resistance_scale=1.0 + RESISTANCE_SD * normals(keys.manufacture, 2, vehicle),
        sei_scale=sei_scale,
        film_scale=np.exp(FILM_SD * normals(keys.manufacture, 29, vehicle, limit=2.5)),
        electrolyte_reserve=reserve,
        speed_scale=owners.speed_scale,
        mass_kg=np.array([kind.curb_mass_kg for kind in kinds])[model_of] + owners.payload_kg,
        auxiliary_W=spread(5, 200.0, 500.0),
        standby_W=spread(22, *STANDBY_W) if drains else np.zeros(vehicle.size),
        self_discharge=spread(23, *SELF_DISCHARGE, keys.manufacture) * leak if drains else np.zeros(vehicle.size),
        charger_W=owners.charger_W,
        plug_habit=owners.plug_habit,
        charge_from_s=owners.charge_from_s,
        soc_limit=owners.soc_limit,
        city=city,
        initial_soc=owners.soc_limit - spread(10, 0.02, 0.35),
        age_years=age,
        sei_thickness_m=film,
        active_n=1.0 - age * LOST_N[chemistry, use_of],
        active_p=1.0 - age * LOST_P[chemistry, use_of],
        odometer_km=age * year_km,
        charge_cycles=age * year_km / np.array([kind.range_km for kind in kinds])[model_of],
        use=use_of,
        model=model_of,
        parallel=parallel,
        weak_capacity=weak_capacity * worse,
        weak_resistance=weak_resistance * worse,
        hot_share=pack.hot_share * (0.5 + uniforms(keys.manufacture, 17, vehicle)),
        fault=fault,
        fault_onset_s=onset,
        fault_severity=severity,
    )


def _shares(named: str | Mapping[str, float], what: str) -> dict[str, float]:
    shares = {named: 1.0} if isinstance(named, str) else dict(named)
    if not shares or not all(math.isfinite(share) and share > 0.0 for share in shares.values()):
        raise ValueError(f"expected {what} with shares above 0, got {named!r}")
    return shares


def _dealt(shares: Mapping[str, float], chance: FloatArray) -> IntArray:
    """Position in `shares` that a uniform random number falls on."""
    bounds = np.cumsum(list(shares.values())) / sum(shares.values())
    return np.searchsorted(bounds[:-1], chance, side="right")


def _middle_V(model: CellModel) -> float:
    """Open-circuit voltage of a fresh cell at half charge."""
    middle = np.array([0.5 * (model.x_full + model.x_empty)])
    return float(equilibrium_voltage(model, middle, np.array([model.inventory]))[0])


def _checked(keys: Keys, vehicles: IntArray) -> IntArray:
    vehicle = np.asarray(vehicles)
    if vehicle.ndim != 1 or vehicle.size == 0 or not np.issubdtype(vehicle.dtype, np.integer):
        raise ValueError(
            f"expected a non-empty 1-D array of vehicle indices, got shape {vehicle.shape} {vehicle.dtype}"
        )
    vehicle = vehicle.astype(np.int64)
    if vehicle.min() < 0 or np.unique(vehicle).size != vehicle.size:
        raise ValueError("vehicle indices must not be negative or repeated")
    for seed in keys:
        if not 0 <= seed < 2**63:
            raise ValueError(f"seed must be from 0 to 2**63 - 1, got {seed}")
    return vehicle


def usual_branches(soc: FloatArray | float) -> tuple[FloatArray | float, FloatArray | float]:
    """State of the hysteresis of the negative and the positive electrode where nothing is known of the past: a full
    cell has been charged, an empty one discharged, and between they are in proportion between."""
    return 1.0 - 2.0 * soc, 2.0 * soc - 1.0


def aged_limits(model: CellModel, sei_thickness_m: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(inventory [C/m2], x_full, x_empty) of cells with films of this thickness, each of shape (n,)."""
    inventory = model.inventory - lost_lithium(model, sei_thickness_m)
    x_full, x_empty = stoichiometry_limits(model, inventory)
    return inventory, x_full, x_empty
