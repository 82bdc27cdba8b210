"""The dynamic attributes of a battery passport, of one vehicle of a run, from what it has reported.

What the battery was when new follows from the run's settings: the same vehicle is drawn again, at age 0. State of
health, resistance and cycles are those that the vehicle's battery management system reports, with its errors. Minutes
in heat and cold and negative events are counted over the records of the run; before it, nobody has counted. What no
vehicle reports (self-discharge) is left out and not made up.

Names and units: BatteryPass data model, Performance 1.2.1 (CC BY 4.0); Catena-X io.catenax.battery.battery_pass 6.1.0.
The spelling `batteryTechicalProperties` is the model's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from datasets.drive_cycles import drive_cycle_names, load_drive_cycle
from datasets.names import utc_text
from datasets.schema import vehicle_index
from physics import DIAGNOSTICS, FLAGS, FleetPhysics, load_cell
from physics.modal import PACK_VOLTAGE_V, cell_model, equilibrium_voltage
from physics.vehicle import DISCHARGE_C_RATE
from twin.books.sealed import opened, quoted, read_parquet, some_sealed
from twin.errors import BadInput
from twin.run_directory import population_plan, run_settings
from twin.settings import RunSettings

HOT_C: Final = 45.0
COLD_C: Final = 0.0
"""Beyond these a battery is in extreme heat or cold."""
POWER_AT: Final = (80, 50, 20)
"""States of charge [%] at which power is told."""
_COUNTED_PERIOD_S: Final = 3600.0
"""With fewer records than this, minutes cannot be counted."""
_EVENTS: Final = {"thermal_runaway": FLAGS["thermal_runaway"], "stopped": FLAGS["stopped"]}


@dataclass(frozen=True)
class Fresh:
    """The battery as it left the factory, by its rating."""

    capacity_Ah: float
    energy_kWh: float
    resistance_Ohm: float
    rest_V: dict[int, float]
    """At rest, by state of charge [%]."""
    least_V: float

    def power_W(self, at: int, resistance_Ohm: float) -> float:
        """Of a 10 s discharge pulse from rest: down to the least voltage, but at no more than the car's C-rate."""
        rest = self.rest_V[at]
        current = min((rest - self.least_V) / resistance_Ohm, DISCHARGE_C_RATE * self.capacity_Ah)
        return current * (rest - resistance_Ohm * current)

    def efficiency(self, resistance_Ohm: float) -> float:
        """Of a round trip at 1C around half charge, by resistance alone, 0 to 1."""
        drop = resistance_Ohm * self.capacity_Ah / self.rest_V[50]
        return (1.0 - drop) / (1.0 + drop)


@dataclass(frozen=True)
class Facts:
    """What both forms are written from."""

    vehicle: str
    at: str
    """Time of the last record, ISO 8601."""
    fresh: Fresh
    soc: float
    soh: float
    cycles: float
    resistance_Ohm: float
    """A pulse of 10 s at 1C, referred to 25 degC."""
    minutes: dict[str, float]
    """In extreme heat and cold, at all and while charging; empty where there are too few records to count."""
    events: list[tuple[str, str]]
    """(what, when it began)."""

    @property
    def figures(self) -> dict[str, float]:
        """What both forms tell, rounded: %, kWh, Ah, cycles, W."""
        fresh, soh, now = self.fresh, self.soh, self.resistance_Ohm
        before = fresh.resistance_Ohm
        return {
            "soc": round(100.0 * self.soc, 2),
            "soce": round(100.0 * soh, 2),
            "fade": round(100.0 * (1.0 - soh), 2),
            "capacity_Ah": round(soh * fresh.capacity_Ah, 2),
            "capacity_kWh": round(soh * fresh.energy_kWh, 3),
            "remaining_kWh": round(self.soc * soh * fresh.energy_kWh, 3),
            "throughput_Ah": round(2.0 * self.cycles * fresh.capacity_Ah, 1),
            "throughput_kWh": round(2.0 * self.cycles * fresh.energy_kWh, 1),
            "cycles": int(self.cycles),
            # A sensor's error may put a new one below 0.
            "resistance_increase": round(100.0 * (now / before - 1.0), 1),
            "power_fade": round(100.0 * (1.0 - fresh.power_W(50, now) / fresh.power_W(50, before)), 1),
            "efficiency": round(100.0 * fresh.efficiency(now), 2),
            "efficiency_fade": round(100.0 * (1.0 - fresh.efficiency(now) / fresh.efficiency(before)), 2),
        }


def facts_of(run: Path, known: Mapping[str, Any], vehicle: str) -> Facts:
    """Of one vehicle; BadInput where the run has none of that name, or no sealed records of it."""
    settings = run_settings(run, known)
    try:
        index = vehicle_index(vehicle)
    except ValueError as error:
        raise BadInput(str(error)) from None
    if index >= settings.population.vehicles:
        raise BadInput(f"{run} has vehicles up to EV-{settings.population.vehicles - 1:06d}, got {vehicle}")
    files = some_sealed(run, "telemetry")
    period_s = float(known["period_s"])
    with opened(run) as database:
        database.execute(
            "CREATE TABLE told AS SELECT seq, ts::TIMESTAMP AS ts, soc, soh, charge_cycles, resistance_25, "
            f"diagnostics, flags, cell_temperature_max > {HOT_C} AS hot, cell_temperature_min < {COLD_C} AS cold, "
            f"mode LIKE '%charging' AS charges FROM {read_parquet(files)} WHERE vehicle_id = {quoted(vehicle)}"
        )
        last = database.execute(
            "SELECT ts, soc, soh, charge_cycles, resistance_25 FROM told ORDER BY seq DESC LIMIT 1"
        ).fetchone()
        if last is None:
            raise BadInput(f"{run} holds no sealed telemetry of {vehicle} yet")
        counted = database.execute(
            "SELECT count(*) FILTER (hot), count(*) FILTER (cold), count(*) FILTER (hot AND charges), "
            "count(*) FILTER (cold AND charges) FROM told"
        ).fetchone()
        assert counted is not None
        changes = database.execute(
            "SELECT * FROM (SELECT ts, diagnostics, lag(diagnostics, 1, 0) OVER (ORDER BY seq) AS diagnosed, flags, "
            "lag(flags, 1, 0) OVER (ORDER BY seq) AS flagged, seq FROM told) "
            "WHERE diagnostics <> diagnosed OR flags <> flagged ORDER BY seq"
        ).fetchall()
    events = [
        (_utc(ts), name)
        for ts, codes, codes_before, flags, flags_before, _ in changes
        for bits, now, before in ((DIAGNOSTICS, codes, codes_before), (_EVENTS, flags, flags_before))
        for name, bit in bits.items()
        if now & bit and not before & bit
    ]
    names = ("hot", "cold", "hot_charging", "cold_charging")
    return Facts(
        vehicle=vehicle,
        at=_utc(last[0]),
        fresh=_fresh(settings, index),
        soc=float(last[1]),
        soh=float(last[2]),
        cycles=float(last[3]),
        resistance_Ohm=float(last[4]),
        minutes={name: count * period_s / 60.0 for name, count in zip(names, counted, strict=True)}
        if period_s <= _COUNTED_PERIOD_S
        else {},
        events=[(name, when) for when, name in sorted(events)],
    )


def _utc(time: datetime) -> str:
    return utc_text(time.replace(tzinfo=UTC))


def _fresh(settings: RunSettings, index: int) -> Fresh:
    """The same vehicle, drawn again at age 0."""
    plan = dataclasses.replace(population_plan(settings), oldest_years=0.0)
    start_s = int(settings.clock.start.timestamp())
    who = plan.draw(np.array([index]), start_s)
    cycles = [load_drive_cycle(name).speed_mps for name in drive_cycle_names()]
    truth = FleetPhysics(who, cycles=cycles, start_s=start_s).truth()
    cell = load_cell(who.cells[int(who.cell[0])])
    model, parallel = cell_model(cell), float(who.parallel[0])
    capacity = parallel * cell.nominal_capacity_Ah
    share = np.array(POWER_AT) / 100.0
    x_n = model.x_empty + share * (model.x_full - model.x_empty)
    rest = model.series * equilibrium_voltage(model, x_n, np.full(share.size, model.inventory))
    return Fresh(
        capacity_Ah=capacity,
        energy_kWh=capacity * PACK_VOLTAGE_V / 1e3,
        resistance_Ohm=float(truth["resistance"][0]),
        rest_V=dict(zip(POWER_AT, rest.tolist(), strict=True)),
        least_V=model.series * model.voltage_min,
    )


def batterypass(facts: Facts) -> dict[str, Any]:
    """The attributes of the BatteryPass data model, each with `lastUpdate`. Units: %, kWh, Ah, W, minutes, cycles."""
    figures = facts.figures

    def told(name: str, figure: str) -> dict[str, Any]:
        return {name: {f"{name}Value": figures[figure], "lastUpdate": facts.at}}

    condition = {
        **told("stateOfCertifiedEnergy", "soce"),
        **told("capacityFade", "fade"),
        **told("remainingCapacity", "capacity_kWh"),
        **told("remainingEnergy", "remaining_kWh"),
        **told("energyThroughput", "throughput_kWh"),
        **told("capacityThroughput", "throughput_Ah"),
        **told("numberOfFullCycles", "cycles"),
        **told("stateOfCharge", "soc"),
        **told("remainingRoundTripEnergyEfficiency", "efficiency"),
        "internalResistanceIncrease": [
            {
                "internalResistanceIncreaseValue": figures["resistance_increase"],
                "batteryComponent": "pack",
                "lastUpdate": facts.at,
            }
        ],
        "remainingPowerCapability": {
            "remainingPowerCapabilityValue": [
                {
                    "atSoC": at,
                    "powerCapabilityAt": round(facts.fresh.power_W(at, facts.resistance_Ohm)),
                    "rPCLastUpdated": facts.at,
                }
                for at in POWER_AT
            ],
            "lastUpdate": facts.at,
        },
        "negativeEvents": [{"negativeEvent": name, "lastUpdate": when} for name, when in facts.events],
    }
    if facts.minutes:
        condition["temperatureInformation"] = {
            "timeExtremeHighTemp": round(facts.minutes["hot"], 1),
            "timeExtremeLowTemp": round(facts.minutes["cold"], 1),
            "timeExtremeHighTempCharging": round(facts.minutes["hot_charging"], 1),
            "timeExtremeLowTempCharging": round(facts.minutes["cold_charging"], 1),
            "lastUpdate": facts.at,
        }
    return {
        "vehicle": facts.vehicle,
        "batteryCondition": condition,
        "batteryTechicalProperties": {
            "ratedCapacity": round(facts.fresh.capacity_Ah, 2),
            "powerFade": figures["power_fade"],
            "roundTripEfficiencyFade": figures["efficiency_fade"],
        },
    }


def catena_x(facts: Facts) -> dict[str, Any]:
    """`performance.dynamic` of Catena-X's battery_pass, each `{value, time}`. It has no field for minutes in heat."""
    told = {name: {"value": value, "time": facts.at} for name, value in facts.figures.items()}
    power, resistance = round(facts.fresh.power_W(50, facts.resistance_Ohm)), round(facts.resistance_Ohm, 6)
    return {
        "vehicle": facts.vehicle,
        "performance": {
            "dynamic": {
                "stateOfCharge": told["soc"],
                "fullCycles": told["cycles"],
                "capacity": {
                    "capacity": told["capacity_Ah"], "fade": told["fade"], "throughput": told["throughput_Ah"]
                },
                "energy": {
                    "soce": told["soce"], "remaining": told["remaining_kWh"], "throughput": told["throughput_kWh"]
                },
                "power": {"remaining": {"value": power, "time": facts.at}, "fade": told["power_fade"]},
                "resistance": {
                    "remaining": {"pack": {"value": resistance, "time": facts.at}},
                    "increase": {"pack": told["resistance_increase"]},
                },
                "roundTripEfficiency": {"remaining": told["efficiency"], "fade": told["efficiency_fade"]},
            }
        },
    }  # fmt: skip
