"""A real car's trips, driven again by our car model: a BMW i3 of 60 Ah around Munich in the summer of 2019.

Data: Steinstraeter, Buberger and Trifonov 2020, Battery and Heating Data in Real Driving Cycles, IEEE DataPort
(doi 10.21227/6jr9-5235); files `bmw_i3_summer_trips_1hz.parquet`. Their current is negative when it discharges.

Inputs of a trip are its speed, elevation, outside air, heating and air-conditioning power, and the battery's state of
charge and temperature at the start. Power, current, voltage, temperature and charge are outputs. No parameter is fitted
to the trips.

Elevation is noisy and comes in steps, and it drifts while the car stands. So it is first averaged in stretches of
`STRETCH_M` of road, then smoothed over the road by a Gaussian of `SMOOTH_M`, and only then differentiated, by distance.
Slopes beyond `STEEPEST` are cut to it.

A heater's power varies. Where one value above 0 fills more than half of a trip, the signal is frozen (trip A06: 5.32 kW
for 52 minutes, while the whole pack gives 1.0 to 1.4 kW at traffic lights; A13: 1.48 kW, while the pack gives 7). An
input of such a trip is unknown, so the trip is shown, without heating, and not counted in medians.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from scipy.ndimage import gaussian_filter1d

from datasets.table_file import DataError, read_table
from physics import load_cell
from physics.parameters import FloatArray
from physics.trip import Car, TripInputs, TripResult, simulate_trip
from physics.vehicle import ROLLING_25C

FILE: Final = "bmw_i3_summer_trips_1hz.parquet"
CELL: Final = "chen2020"
"""Stands for the Samsung SDI cell, of which no parameters are public: NMC-graphite, too, but with more nickel."""
POWER_CELL: Final = "kim2011"
"""The other way to stand for it: of another chemistry, but built for power, as the Samsung cell is (6C)."""
GOAL_ENERGY_PERCENT: Final = 10.0
"""Median over the trips of the absolute error of a trip's energy."""
GOAL_K: Final = 1.5
"""Median over the trips of the RMSE of the temperature."""

STRETCH_M: Final = 10.0
SMOOTH_M: Final = 100.0
STEEPEST: Final = 0.12
_SCALE_HEIGHT_M: Final = 8430.0  # of the lower atmosphere, ISO 2533
_SHORTEST: Final = 60  # rows
_GEAR: Final = 9.665  # motor over wheel, BMW i3 technical data 2013
_WHEEL_M: Final = 0.339  # rolling radius of 155/70 R19: 0.97 of half its diameter

# EU 1222/2009, passenger cars: class A up to 6.5 kg/t, class B 6.6 to 7.7. The i3's narrow tyres (Bridgestone Ecopia
# EP500, 155/70 R19) are sold as low in rolling resistance; the upper end of class B is taken, because a test drum is
# smooth and a road is not.
_CLASS_A: Final = 6.5e-3
_CLASS_B: Final = 7.7e-3

BMW_I3: Final = Car(
    name="BMW i3 60 Ah",
    mass_kg=1195.0 + 75.0,
    drag_area_m2=0.29 * 2.38,
    rolling_25C=_CLASS_B,
    recovers_W=50e3,
    auxiliary_W=350.0,
    series=96,
    capacity_Ah=60.0,
    charge_C_rate=2.5,
    discharge_C_rate=7.0,
    sources=(
        "mass: 1,195 kg kerb (DIN), BMW i3 technical data 2013, and a driver of 75 kg (EU 1,270 kg with driver)",
        "drag: Cd 0.29, frontal area 2.38 m2, the same",
        "rolling resistance: upper end of class B of EU 1222/2009, 7.7 kg/t",
        "recuperation: 50 kW, BMW press kit 2013",
        "auxiliaries: the middle of our fleet's 200 to 500 W",
        "efficiency: our fleet's 89 % to the wheel and 80 % back; ORNL measured up to 94 % for the motor and 99 % for"
        " the inverter (Burress 2016, DOE merit review EDT006), before gears and at the best point",
        "pack: 96 cells of 60 Ah in series, 21.6 kWh; 125 kW peak are 6C, recuperation 2.3C",
    ),
)


@dataclass(frozen=True)
class Trip:
    """A trip as recorded, positive discharges; arrays of shape (n,), one value a second."""

    name: str
    heater_frozen: bool
    speed_mps: FloatArray
    elevation_m: FloatArray
    consumers_W: FloatArray
    ambient_C: FloatArray
    voltage_V: FloatArray
    current_A: FloatArray
    temperature_C: FloatArray
    """In whole degrees."""
    soc: FloatArray
    """The battery management system's, 0 to 1."""
    motor_W: FloatArray
    """At the motor's shaft, from its torque: not an input, only for the balance."""


@dataclass(frozen=True)
class Variant:
    """Medians over all trips with something else assumed."""

    what: str
    energy_percent: float
    energy_error_percent: float
    """Of the absolute error."""
    temperature_K: float
    voltage_V: float


@dataclass(frozen=True)
class Balance:
    """Energy of all counted trips together [kWh], measured and ours: where a difference arises."""

    what: str
    measured_kWh: float
    ours_kWh: float


@dataclass(frozen=True)
class TripTables:
    """What `twin validate vehicle` shows."""

    rows: tuple[TripRow, ...]
    variants: tuple[Variant, ...]
    """The first is what the rows show."""
    balance: tuple[Balance, ...]
    frozen: tuple[str, ...]
    """Trips that do not count, because their heating signal is frozen."""

    def missed(self) -> list[str]:
        """Goals that are missed, one phrase each."""
        ours = self.variants[0]
        return [
            f"{what} {value:.1f} {unit}, the goal is {goal:g} {unit}"
            for what, value, goal, unit in (
                ("energy of a trip, median error", ours.energy_error_percent, GOAL_ENERGY_PERCENT, "%"),
                ("temperature, median RMSE", ours.temperature_K, GOAL_K, "K"),
            )
            if not value <= goal
        ]


@dataclass(frozen=True)
class TripRow:
    """A trip in one line. Errors are ours less measured."""

    trip: str
    km: float
    minutes: float
    measured_kWh: float
    ours_kWh: float
    energy_percent: float
    power_kW: float
    """RMSE, as the next three."""
    current_A: float
    voltage_V: float
    temperature_K: float
    temperature_end_K: float
    soc_points: float
    """At the end of the trip."""


_COLUMNS: Final = (
    "trip", "t_s", "speed_kmh", "elevation_m", "voltage_V", "current_A", "battery_temp_C", "soc_pct",
    "heating_power_kW", "aircon_power_kW", "ambient_C", "motor_torque_Nm",
)  # fmt: skip


def read_trips(folder: Path) -> list[Trip]:
    """All trips. DataError, in one line, where the file is not there or not what it should be."""
    path = folder / FILE
    table = read_table(path, _COLUMNS)
    trips = []
    for name, rows in table.groupby("trip", observed=True, sort=False):
        # Seconds without a row are filled linearly: they are few, and the model needs even steps.
        second = rows["t_s"].to_numpy()
        if len(rows) < _SHORTEST or not (np.diff(second) > 0).all():
            raise DataError(f"{path}: expected at least {_SHORTEST} rows of rising t_s in trip {name}")
        every = np.arange(second[0], second[-1] + 1)
        at = {
            column: np.interp(every, second, rows[column].to_numpy(dtype=np.float64))
            for column in _COLUMNS
            if column not in ("trip", "t_s")
        }
        if bad := [column for column, values in at.items() if not np.isfinite(values).all()]:
            raise DataError(f"{path}: expected numbers in {', '.join(bad)} of trip {name}")
        trips.append(
            Trip(
                name=str(name),
                speed_mps=at["speed_kmh"] / 3.6,
                elevation_m=at["elevation_m"],
                heater_frozen=(frozen := _is_frozen(at["heating_power_kW"])),
                consumers_W=1e3 * (at["heating_power_kW"] * (not frozen) + at["aircon_power_kW"]),
                ambient_C=at["ambient_C"],
                voltage_V=at["voltage_V"],
                current_A=-at["current_A"],
                temperature_C=at["battery_temp_C"],
                soc=at["soc_pct"] / 100.0,
                motor_W=at["motor_torque_Nm"] * at["speed_kmh"] / 3.6 * _GEAR / _WHEEL_M,
            )
        )
    return trips


def _is_frozen(power_kW: FloatArray) -> bool:
    """Whether one value above 0 fills more than half of a trip."""
    running = power_kW[power_kW > 0.0]
    return running.size > 0 and bool(np.unique(running, return_counts=True)[1].max() > 0.5 * power_kW.size)


def slope_of(speed_mps: FloatArray, elevation_m: FloatArray) -> FloatArray:
    """Rise over distance at each second, from noisy elevation: see the top of this file."""
    along = np.concatenate([[0.0], np.cumsum(0.5 * (speed_mps[1:] + speed_mps[:-1]))])
    stretch = (along / STRETCH_M).astype(np.int64)
    count = np.bincount(stretch)
    if count.size < 2:
        return np.zeros_like(elevation_m)
    passed = np.flatnonzero(count)  # a fast car skips a stretch
    mean = np.bincount(stretch, elevation_m)[passed] / count[passed]
    even = np.interp(np.arange(count.size), passed, mean)
    slope = np.gradient(gaussian_filter1d(even, SMOOTH_M / STRETCH_M, mode="nearest"), STRETCH_M)
    return np.asarray(np.interp(along, STRETCH_M * (np.arange(count.size) + 0.5), np.clip(slope, -STEEPEST, STEEPEST)))


def drive_again(trip: Trip, car: Car = BMW_I3, cell: str = CELL) -> TripResult:
    """The trip with our car."""
    return simulate_trip(
        car,
        load_cell(cell),
        TripInputs(
            step_s=1.0,
            speed_mps=trip.speed_mps,
            slope=slope_of(trip.speed_mps, trip.elevation_m),
            consumers_W=trip.consumers_W,
            ambient_C=trip.ambient_C,
            air_density_ratio=float(np.exp(-trip.elevation_m.mean() / _SCALE_HEIGHT_M)),
            initial_soc=float(trip.soc[0]),
            initial_C=float(trip.temperature_C[0]),
        ),
    )


def compare(trip: Trip, ours: TripResult) -> TripRow:
    """Errors of one trip."""
    power_W = (trip.voltage_V * trip.current_A)[1:]
    kWh = 1.0 / 3.6e6

    def rmse(a: FloatArray, b: FloatArray) -> float:
        return float(np.sqrt(np.mean((a - b) ** 2)))

    measured, simulated = kWh * float(power_W.sum()), kWh * float(ours.power_W.sum())
    return TripRow(
        trip=trip.name,
        km=float(trip.speed_mps.sum()) / 1e3,
        minutes=len(power_W) / 60.0,
        measured_kWh=measured,
        ours_kWh=simulated,
        energy_percent=100.0 * (simulated / measured - 1.0),
        power_kW=rmse(ours.power_W, power_W) / 1e3,
        current_A=rmse(ours.current_A, trip.current_A[1:]),
        voltage_V=rmse(ours.voltage_V, trip.voltage_V[1:]),
        temperature_K=rmse(ours.temperature_C, trip.temperature_C[1:]),
        temperature_end_K=float(ours.temperature_C[-1] - trip.temperature_C[-1]),
        soc_points=100.0 * float(ours.soc[-1] - trip.soc[-1]),
    )


def balance(trips: Sequence[Trip], car: Car = BMW_I3) -> tuple[Balance, ...]:
    """From the pack to the shaft and the wheels."""
    parts = []
    for trip in trips:
        ours = drive_again(trip, car)
        shaft, pack = trip.motor_W[1:], (trip.voltage_V * trip.current_A)[1:]
        parts.append(
            [
                [np.maximum(pack, 0.0).sum(), np.maximum(ours.power_W, 0.0).sum()],
                [np.minimum(pack, 0.0).sum(), np.minimum(ours.power_W, 0.0).sum()],
                [np.maximum(shaft, 0.0).sum(), np.maximum(ours.wheel_W, 0.0).sum()],
                [np.minimum(shaft, 0.0).sum(), np.minimum(ours.wheel_W, 0.0).sum()],
            ]
        )
    kWh = np.sum(parts, axis=0) / 3.6e6
    names = ("pack, given", "pack, taken back", "shaft (ours: wheels), driving", "shaft (ours: wheels), braking")
    return tuple(Balance(name, float(a), float(b)) for name, (a, b) in zip(names, kWh, strict=True))


def trip_tables(trips: Sequence[Trip]) -> TripTables:
    """All trips, and their medians with other assumptions."""
    variants = []
    rows: tuple[TripRow, ...] = ()
    for what, car, cell in (
        ("as in the table", BMW_I3, CELL),
        (f"cell {POWER_CELL}", BMW_I3, POWER_CELL),
        ("tyres of class A, 6.5 kg/t", replace(BMW_I3, rolling_25C=_CLASS_A), CELL),
        (f"our fleet's rolling resistance, {1e3 * ROLLING_25C:g} kg/t", replace(BMW_I3, rolling_25C=ROLLING_25C), CELL),
        ("auxiliaries of 500 W", replace(BMW_I3, auxiliary_W=500.0), CELL),
        ("both of these two", replace(BMW_I3, rolling_25C=ROLLING_25C, auxiliary_W=500.0), CELL),
    ):
        found = tuple(compare(trip, drive_again(trip, car, cell)) for trip in trips)
        rows = rows or found
        counted = [row for row, trip in zip(found, trips, strict=True) if not trip.heater_frozen]
        energy = np.array([row.energy_percent for row in counted])
        variants.append(
            Variant(
                what=what,
                energy_percent=float(np.median(energy)),
                energy_error_percent=float(np.median(np.abs(energy))),
                temperature_K=float(np.median([row.temperature_K for row in counted])),
                voltage_V=float(np.median([row.voltage_V for row in counted])),
            )
        )
    counted_trips = [trip for trip in trips if not trip.heater_frozen]
    return TripTables(
        rows, tuple(variants), balance(counted_trips), tuple(trip.name for trip in trips if trip.heater_frozen)
    )


def render(tables: TripTables) -> str:
    """The tables as text."""
    lines = [
        f"Trips of a real {BMW_I3.name}, driven again by our car model; errors are ours less measured",
        "(energy: relative error; power, current, voltage, temperature: RMSE; last two: at the end of the trip)",
        "",
        f"{'trip':>8} {'km':>6} {'min':>5} {'kWh':>6} {'ours':>6} {'energy %':>8} {'kW':>5} {'A':>5} {'V':>5} {'K':>5}"
        f" {'end K':>6} {'SoC':>6}",
    ]
    for row in tables.rows:
        lines.append(
            f"{row.trip + '*' * (row.trip in tables.frozen):>8}"
            f" {row.km:6.1f} {row.minutes:5.0f} {row.measured_kWh:6.2f} {row.ours_kWh:6.2f}"
            f" {row.energy_percent:+8.1f} {row.power_kW:5.1f} {row.current_A:5.1f} {row.voltage_V:5.1f}"
            f" {row.temperature_K:5.2f} {row.temperature_end_K:+6.2f} {row.soc_points:+6.2f}"
        )
    counted = [row for row in tables.rows if row.trip not in tables.frozen]
    measured, ours = sum(row.measured_kWh for row in counted), sum(row.ours_kWh for row in counted)
    if tables.frozen:
        lines.append("* the heating signal is frozen: heating is left out, the trip does not count below")
    lines += [
        f"{len(counted)} trips: {measured:.1f} kWh measured, {ours:.1f} kWh ours"
        f" ({100.0 * (ours / measured - 1.0):+.1f} %)",
        "",
        f"{'medians over the trips':<42} {'energy %':>8} {'|energy| %':>10} {'K':>5} {'V':>5}",
    ]
    for v in tables.variants:
        lines.append(
            f"{v.what:<42} {v.energy_percent:+8.1f} {v.energy_error_percent:10.1f} {v.temperature_K:5.2f}"
            f" {v.voltage_V:5.1f}"
        )
    lines.append(f"{'goals':<42} {'':>8} {GOAL_ENERGY_PERCENT:10.1f} {GOAL_K:5.2f}")
    lines += ["", f"{'energy of the counted trips [kWh]':<42} {'measured':>8} {'ours':>8}"]
    lines += [f"{b.what:<42} {b.measured_kWh:8.1f} {b.ours_kWh:8.1f}" for b in tables.balance]
    lines += ["", "The car:", *(f"  {source}" for source in BMW_I3.sources)]
    return "\n".join(lines)
