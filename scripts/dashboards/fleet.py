"""Fleet: how are the vehicles, and which of them need somebody?"""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders.dashboard import Dashboard

from physics.columns import MODES
from scripts.dashboards import panels as p

_NOW: Final = "By the newest record of each vehicle, whatever time is chosen above."
_MINUTES: Final = "Mean over records, with the lowest and the highest of any vehicle."

_RUNS = """
SELECT
    run_id AS "run",
    min(minute) AS "first minute",
    max(minute) AS "last minute",
    sum(records)::bigint AS "records",
    (extract(epoch FROM min(minute)) * 1000)::bigint AS "from",
    (extract(epoch FROM max(minute) + interval '1 minute') * 1000)::bigint AS "to"
FROM telemetry_minute
GROUP BY run_id
ORDER BY max(minute) DESC
LIMIT 50"""
_TO_RUN = "/d/ev-fleet?var-run_id=${__value.raw}&from=${__data.fields.from}&to=${__data.fields.to}"

_WORST = f"""
WITH fleet AS (
    SELECT *,
        percent_rank() OVER (ORDER BY rul) AS by_life,
        percent_rank() OVER (ORDER BY soh) AS by_health,
        percent_rank() OVER (ORDER BY cell_voltage_max - cell_voltage_min DESC) AS by_spread,
        percent_rank() OVER (ORDER BY cell_temperature_max DESC) AS by_warmth
    FROM {p.NEWEST} t
    LEFT JOIN (
        SELECT run_id, vehicle_id, rul, rul_low, rul_high, failure_probability FROM {p.NEWEST_PREDICTIONS}
    ) p USING (run_id, vehicle_id)
)
SELECT
    vehicle_id AS "vehicle",
    failure_probability AS "failure risk",
    rul AS "remaining cycles",
    rul_low AS "at least",
    rul_high AS "at most",
    soh AS "SoH",
    cell_temperature_max AS "warmest sensor",
    cell_voltage_max - cell_voltage_min AS "cell spread",
    coalesce(nullif(concat_ws('; ',
        nullif({p.codes()}, ''),
        nullif({p.flags()}, ''),
        CASE WHEN failure_probability >= 0.2 THEN 'likely to fail' END,
        CASE WHEN rul_low < 100 THEN 'fewer than 100 cycles may be left' WHEN by_life < 0.1 THEN 'shortest lives' END,
        CASE WHEN soh < 0.8 THEN 'SoH below 80 %' WHEN by_health < 0.1 THEN 'lowest SoH' END,
        CASE WHEN cell_voltage_max - cell_voltage_min > 0.1 THEN 'cells apart by more than 0.1 V'
            WHEN by_spread < 0.1 THEN 'cells furthest apart' END,
        CASE WHEN cell_temperature_max > 45 THEN 'warmer than 45 degC' WHEN by_warmth < 0.1 THEN 'warmest' END
    ), ''), 'nothing stands out') AS "why"
FROM fleet
ORDER BY (diagnostics <> 0) DESC, failure_probability DESC NULLS LAST, soh
LIMIT 20"""

_FADE = f"""
WITH now AS (SELECT distance_traveled AS km, soh FROM {p.NEWEST}),
width AS (SELECT greatest((max(km) - min(km)) / 20, 1.0) AS km FROM now)
SELECT
    avg(now.km) AS "km",
    percentile_cont(0.1) WITHIN GROUP (ORDER BY soh) AS "tenth",
    percentile_cont(0.5) WITHIN GROUP (ORDER BY soh) AS "median",
    percentile_cont(0.9) WITHIN GROUP (ORDER BY soh) AS "nine tenths"
FROM now CROSS JOIN width
GROUP BY floor(now.km / width.km)
ORDER BY 1"""

_RISK = f"""
SELECT class AS "failure risk", count(failure_probability) AS "vehicles"
FROM (VALUES ('below 1 %', 0.0, 0.01), ('1 to 5 %', 0.01, 0.05), ('5 to 20 %', 0.05, 0.2), ('20 to 50 %', 0.2, 0.5),
    ('above 50 %', 0.5, 1.1)) AS classes (class, low, high)
LEFT JOIN {p.NEWEST_PREDICTIONS} ON failure_probability >= low AND failure_probability < high
GROUP BY class, low
ORDER BY low"""

_ALARMS = f"""
SELECT
    vehicle_id AS "vehicle",
    ts AS "at",
    mode,
    {p.codes()} AS "trouble codes",
    {p.flags()} AS "flags",
    cell_voltage_min AS "lowest cell group",
    cell_temperature_max AS "warmest sensor"
FROM {p.NEWEST}
WHERE flags <> 0 OR diagnostics <> 0
ORDER BY diagnostics DESC, flags DESC, vehicle_id
LIMIT 200"""


def board() -> Dashboard:
    """The dashboard."""
    shares = ",\n".join(
        f"    sum(records) FILTER (WHERE mode = '{mode}') / sum(records) AS \"{mode}\"" for mode in MODES
    )
    modes = ",\n".join(f"    count(*) FILTER (WHERE mode = '{mode}') AS \"{mode}\"" for mode in MODES)
    panels = [
        p.figures(
            "Vehicles by state, now",
            _NOW,
            f'SELECT count(*) AS "vehicles",\n{modes}\nFROM {p.NEWEST}',
            span=16,
        ),
        p.figures(
            "Attention, now",
            f"{_NOW} Trouble codes are the BMS's; at risk: a failure probability of 20 % or more.",
            f'SELECT count(*) FILTER (WHERE t.diagnostics <> 0) AS "with trouble codes",\n'
            f'    count(*) FILTER (WHERE failure_probability >= 0.2) AS "at risk"\n'
            f"FROM {p.NEWEST} t LEFT JOIN {p.NEWEST_PREDICTIONS} p USING (run_id, vehicle_id)",
            span=8,
        ),
        p.over_time(
            "Vehicles by state", "Share of the fleet's records.", p.by_minute(shares),
            unit="percentunit", stacked=True, colours=p.COLOURS, least=0, most=1, interval="1m",
        ),
        p.over_time("State of charge", f"{_MINUTES} As the BMS counts it.", p.band_by_minute("soc"),
                    unit="percentunit", band=("lowest", "highest"), least=0, most=1, interval="1m"),
        p.over_time("State of health", f"{_MINUTES} As the BMS estimates it.", p.band_by_minute("soh"),
                    unit="percentunit", band=("lowest", "highest"), interval="1m"),
        p.over_time("Voltage", f"{_MINUTES} Of the pack.", p.band_by_minute("battery_voltage"),
                    unit="volt", band=("lowest", "highest"), interval="1m"),
        p.over_time("Current", f"{_MINUTES} Of the pack; positive discharges.", p.band_by_minute("battery_current"),
                    unit="amp", band=("lowest", "highest"), interval="1m"),
        p.over_time("Temperature", f"{_MINUTES} Of the battery.", p.band_by_minute("battery_temperature"),
                    unit="celsius", band=("lowest", "highest"), interval="1m"),
        p.over_time("Power", f"{_MINUTES} At the pack's terminals; positive discharges.",
                    p.band_by_minute("power_consumption"), unit="kwatt", band=("lowest", "highest"), interval="1m"),
        p.bars("Remaining useful life, now", f"{_NOW} Predicted equivalent full cycles to end of life (median).",
               p.distribution("rul", p.NEWEST_PREDICTIONS, "cycles", 0), "cycles"),
        p.bars("Failure risk, now", f"{_NOW} Probability of end of life within the horizon of the model's card.",
               _RISK, "failure risk"),
        p.rows(
            "The worst 20, and why",
            f"{_NOW} Vehicles with trouble codes first, then by failure risk, then by SoH. Shortest,"
            " lowest, furthest, warmest: of that tenth of the fleet.",
            _WORST,
            height=12,
            units={"failure risk": "percentunit", "SoH": "percentunit", "warmest sensor": "celsius",
                   "cell spread": "volt", "remaining cycles": "short", "at least": "short", "at most": "short"},
            links={"vehicle": p.TO_VEHICLE},
            widths={"why": 420},
        ),
        p.against("Fade against distance", f"{_NOW} Of the vehicles at that distance, a tenth is below the band and a"
                  " tenth above.", _FADE, "km", unit="percentunit", x_unit="lengthkm", band=("tenth", "nine tenths")),
        p.bars("State of health, now", f"{_NOW}", p.distribution("soh", p.NEWEST, "SoH", 3), "SoH", span=12),
        p.rows("Trouble codes and flags, now", f"{_NOW} No row: no vehicle reports any.", _ALARMS,
               units={"lowest cell group": "volt", "warmest sensor": "celsius"}, links={"vehicle": p.TO_VEHICLE},
               empty="No vehicle reports a trouble code or a flag"),
        p.rows("Runs in this database", "A click on a run shows it, for the time that it has simulated.", _RUNS,
               height=6, links={"run": _TO_RUN}, units={"records": "short"}, hidden=("from", "to")),
    ]  # fmt: skip
    return p.board("fleet", "How are the vehicles, and which of them need somebody?", panels, [p.run_variable()])
