"""Vehicle: one of them, from its newest record to its charges and trips."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders.dashboard import Dashboard

from scripts.dashboards import panels as p

_SEEN: Final = f"{p.VEHICLE} AND $__timeFilter(ts)"

_NOW = f"""
SELECT mode AS "state", soc AS "SoC", soh AS "SoH", distance_traveled AS "odometer", charge_cycles AS "cycles lived",
    ts::text AS "newest record"
FROM telemetry
WHERE {p.VEHICLE}
ORDER BY seq DESC
LIMIT 1"""
_PREDICTED = f"""
SELECT rul AS "remaining cycles", rul_low AS "at least", rul_high AS "at most",
    failure_probability AS "failure risk", model_version AS "model"
FROM predictions
WHERE {p.VEHICLE}
ORDER BY seq DESC
LIMIT 1"""

_CHARGES = p.stays(
    _SEEN,
    """    min(ts) AS "start",
    extract(epoch FROM max(ts) - min(ts)) AS "duration",
    CASE mode WHEN 'charging' THEN 'AC' ELSE 'DC' END AS "kind",
    min(soc) AS "SoC from",
    max(soc) AS "SoC to",
    sum(-power_consumption * hours) AS "energy",
    max(-power_consumption) AS "highest power",
    max(cell_temperature_max) AS "warmest sensor\"""",
    "'charging', 'fast_charging'",
)
_TRIPS = p.stays(
    _SEEN,
    """    min(ts) AS "start",
    extract(epoch FROM max(ts) - min(ts)) AS "duration",
    max(distance_traveled) - min(distance_traveled) AS "distance",
    avg(driving_speed) AS "mean speed",
    max(soc) AS "SoC from",
    min(soc) AS "SoC to",
    sum(power_consumption * hours) AS "energy",
    100 * sum(power_consumption * hours) / nullif(max(distance_traveled) - min(distance_traveled), 0)
        AS "kWh per 100 km",
    avg(ambient_temperature) AS "outside\"""",
    "'driving'",
)
_CODES = f"""
SELECT min(ts) AS "first", max(ts) AS "last", count(*) AS "records",
    {p.codes()} AS "trouble codes", {p.flags()} AS "flags"
FROM telemetry
WHERE {_SEEN} AND (flags <> 0 OR diagnostics <> 0)
GROUP BY flags, diagnostics
ORDER BY 1 DESC
LIMIT 100"""
_LIFE = f"""
SELECT $__timeGroupAlias(p.ts, $__interval), avg(t.charge_cycles) AS "lived",
    avg(t.charge_cycles + p.rul) AS "predicted end of life"
FROM predictions p
JOIN telemetry t USING (run_id, vehicle_id, seq, ts)
WHERE {p.VEHICLE} AND $__timeFilter(p.ts)
GROUP BY 1
ORDER BY 1"""

_TRUTH = """
**Where is the truth?** A vehicle reports what its sensors and its battery management system say, and only that is in
the database. What a simulated vehicle really is stays in the run's directory, in `DIR/truth`, where no model or
dashboard can take it for a report: `docs/reports.md` shows how to join the two.
"""


def _seen(columns: str, source: str = "telemetry") -> str:
    return f"""
SELECT $__timeGroupAlias(ts, $__interval),
{columns}
FROM {source}
WHERE {_SEEN}
GROUP BY 1
ORDER BY 1"""


def board() -> Dashboard:
    """The dashboard."""
    panels = [
        p.figures("Now", "The newest record, whatever time is chosen above.", _NOW, span=14,
                  units={"SoC": "percentunit", "SoH": "percentunit", "odometer": "lengthkm"}),
        p.figures("Predicted, now", "The newest prediction: equivalent full cycles left, with the interval of the"
                  " model's card, and the probability of end of life within its horizon.", _PREDICTED, span=10,
                  units={"failure risk": "percentunit"}),
        p.over_time("State of charge", "As the BMS counts it; mean of each interval.",
                    _seen('    avg(soc) AS "SoC"'), unit="percentunit", least=0, most=1, interval="2s"),
        p.over_time("Power and speed", "Power at the pack's terminals; positive discharges.",
                    _seen('    avg(power_consumption) AS "power",\n    avg(driving_speed) AS "speed"'),
                    unit="kwatt", right={"speed": "velocitykmh"}, interval="2s"),
        p.over_time("Voltage and current", "Of the pack; positive current discharges.",
                    _seen('    avg(battery_voltage) AS "voltage",\n    avg(battery_current) AS "current"'),
                    unit="volt", right={"current": "amp"}, interval="2s"),
        p.over_time("Temperatures", "Mean, coldest and warmest sensor, and the air outside.",
                    _seen('    min(cell_temperature_min) AS "coldest",\n    avg(battery_temperature) AS "mean",\n'
                          '    max(cell_temperature_max) AS "warmest",\n    avg(ambient_temperature) AS "outside"'),
                    unit="celsius", band=("coldest", "warmest"), interval="2s"),
        p.over_time("Weakest and strongest cell group", "The lowest and the highest voltage of a group of parallel"
                    " cells, as the BMS reports them. It does not say which group that is.",
                    _seen('    min(cell_voltage_min) AS "weakest",\n    max(cell_voltage_max) AS "strongest",\n'
                          '    avg(cell_voltage_max - cell_voltage_min) AS "spread"'),
                    unit="volt", right={"spread": "volt"}, interval="2s"),
        p.over_time("Health", "As the BMS estimates it, and the resistance of a 10 s pulse referred to 25 degC.",
                    _seen('    avg(soh) AS "SoH",\n    avg(resistance_25) AS "resistance"'),
                    unit="percentunit", right={"resistance": "ohm"}, interval="1m"),
        p.over_time("Remaining useful life", "Equivalent full cycles to end of life: median, and the interval whose"
                    " coverage the model's card states.",
                    _seen('    avg(rul_low) AS "at least",\n    avg(rul) AS "median",\n    avg(rul_high) AS "at most"',
                          "predictions"), band=("at least", "at most"), interval="5s"),
        p.over_time("Failure risk", "Probability of end of life within the horizon of the model's card.",
                    _seen('    avg(failure_probability) AS "failure risk"', "predictions"),
                    unit="percentunit", least=0, interval="5s"),
        p.over_time("Predicted life", "Cycles lived, and lived plus remaining: level, if the model keeps to what it"
                    " has said.", _LIFE, interval="5s"),
        p.rows("Charges", "Stretches of charging within the chosen time. Energy is the sum of each record's power for"
               " the time since the one before, at the pack's terminals.", _CHARGES,
               units={"duration": "s", "SoC from": "percentunit", "SoC to": "percentunit", "energy": "kwatth",
                      "highest power": "kwatt", "warmest sensor": "celsius"},
               empty="This vehicle has not charged in the chosen time"),
        p.rows("Trips", "Stretches of driving within the chosen time. Energy is summed as for charges: with records"
               " minutes apart it is a sample of a power that changes from second to second.", _TRIPS,
               units={"duration": "s", "distance": "lengthkm", "mean speed": "velocitykmh", "SoC from": "percentunit",
                      "SoC to": "percentunit", "energy": "kwatth", "outside": "celsius"},
               empty="This vehicle has not driven in the chosen time"),
        p.rows("Trouble codes and flags", "What was reported within the chosen time. No row: nothing.", _CODES,
               empty="No trouble codes and no flags in the chosen time", height=6),
        p.note(_TRUTH),
    ]  # fmt: skip
    return p.board(
        "vehicle", "One vehicle, from its newest record to its charges and trips.", panels,
        [p.run_variable(), p.vehicle_variable()],
    )  # fmt: skip
