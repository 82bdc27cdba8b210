"""Charging: who charges, how fast, where, and how the power falls with the state of charge."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders.dashboard import Dashboard

from scripts.dashboards import panels as p

_CHARGING: Final = "mode IN ('charging', 'fast_charging')"
_DAY: Final = f"{p.RUN} AND ts > greatest($__timeFrom()::timestamptz, $__timeTo()::timestamptz - interval '1 day')\n" \
    "        AND ts <= $__timeTo()::timestamptz"  # fmt: skip
_LAST_DAY: Final = "Of the last day of the chosen time: these panels read the records themselves."
_COLOURS: Final = {"AC": p.COLOURS["charging"], "DC": p.COLOURS["fast_charging"]}

_NOW = f"""
SELECT count(*) FILTER (WHERE mode = 'charging') AS "vehicles at AC",
    count(*) FILTER (WHERE mode = 'fast_charging') AS "vehicles at DC",
    coalesce(sum(-power_consumption) FILTER (WHERE mode = 'charging'), 0) AS "power at AC",
    coalesce(sum(-power_consumption) FILTER (WHERE mode = 'fast_charging'), 0) AS "power at DC"
FROM {p.NEWEST}"""

_ENERGY = f"""
SELECT kind AS "kind", share AS "share of energy"
FROM (
    SELECT CASE mode WHEN 'charging' THEN 'AC' ELSE 'DC' END AS kind,
        sum(power_consumption_sum) / nullif(sum(sum(power_consumption_sum)) OVER (), 0) AS share
    FROM telemetry_minute
    WHERE {p.RUN} AND {_CHARGING} AND $__timeFilter(minute)
    GROUP BY mode
) AS shares
ORDER BY 1"""

# Of the records of charging alone: a new session begins where the one before was of another kind, is long ago, or had
# more charge. Single records may be missing (`twin run --drop`, `--send-on-change`).
_SESSIONS = f"""
WITH rows AS (
    SELECT vehicle_id, seq, ts, mode, soc, power_consumption, cell_temperature_max,
        lag(mode) OVER vehicle IS DISTINCT FROM mode
            OR (seq - lag(seq) OVER vehicle > 3 AND ts - lag(ts) OVER vehicle > interval '10 minutes')
            OR soc < lag(soc) OVER vehicle - 0.005 AS starts,
        extract(epoch FROM ts - lag(ts) OVER vehicle) / 3600 AS before
    FROM telemetry
    WHERE {_DAY} AND {_CHARGING}
    WINDOW vehicle AS (PARTITION BY vehicle_id ORDER BY seq)
),
parts AS (
    SELECT *, CASE WHEN NOT starts THEN before END AS hours,
        count(*) FILTER (WHERE starts) OVER (PARTITION BY vehicle_id ORDER BY seq) AS part
    FROM rows
),
sessions AS (
    SELECT
        vehicle_id,
        CASE mode WHEN 'charging' THEN 'AC' ELSE 'DC' END AS kind,
        min(ts) AS start,
        extract(epoch FROM max(ts) - min(ts)) AS duration,
        min(soc) AS soc_from,
        max(soc) AS soc_to,
        sum(-power_consumption * hours) AS energy,
        max(-power_consumption) AS highest_power,
        max(cell_temperature_max) AS warmest
    FROM parts
    GROUP BY vehicle_id, part, mode
)"""

_NEWEST_SESSIONS = f"""{_SESSIONS}
SELECT vehicle_id AS "vehicle", kind AS "kind", start AS "start", duration AS "duration", soc_from AS "SoC from",
    soc_to AS "SoC to", energy AS "energy", highest_power AS "highest power", warmest AS "warmest sensor"
FROM sessions
ORDER BY start DESC, vehicle_id
LIMIT 200"""

_STARTS = f"""{_SESSIONS}
SELECT to_char(date_trunc('hour', start AT TIME ZONE 'UTC'), 'DD HH24:MI') AS "hour",
    count(*) FILTER (WHERE kind = 'AC') AS "AC",
    count(*) FILTER (WHERE kind = 'DC') AS "DC"
FROM sessions
GROUP BY date_trunc('hour', start AT TIME ZONE 'UTC')
ORDER BY date_trunc('hour', start AT TIME ZONE 'UTC')"""

_CURVE = f"""
SELECT
    5 * floor(least(soc, 0.9999) * 20) + 2.5 AS "SoC",
    avg(-power_consumption) FILTER (WHERE mode = 'charging') AS "AC",
    avg(-power_consumption) FILTER (WHERE mode = 'fast_charging') AS "DC",
    max(-power_consumption) FILTER (WHERE mode = 'fast_charging') AS "DC, highest"
FROM telemetry
WHERE {_DAY} AND {_CHARGING}
GROUP BY 1
ORDER BY 1"""


def _by_kind(of: str) -> str:
    return ",\n".join(
        "    " + of.replace("MODE", f"FILTER (WHERE mode = '{mode}')") + f' AS "{kind}"'
        for kind, mode in (("AC", "charging"), ("DC", "fast_charging"))
    )


def board() -> Dashboard:
    """The dashboard."""
    panels = [
        p.figures("Charging, now", "By the newest record of each vehicle, whatever time is chosen above.", _NOW,
                  span=24, units={"power at AC": "kwatt", "power at DC": "kwatt"}, decimals=0),
        p.over_time("Vehicles that charge", "Share of the fleet's records.",
                    p.by_minute(_by_kind("coalesce(sum(records) MODE, 0) / sum(records)")),
                    unit="percentunit", stacked=True, colours=_COLOURS, least=0, interval="1m"),
        p.over_time("Power of a vehicle that charges", "Mean over records, at the pack's terminals.",
                    p.by_minute(_by_kind("-sum(power_consumption_sum) MODE / sum(records) MODE"),
                                more=f" AND {_CHARGING}"),
                    unit="kwatt", colours=_COLOURS, least=0, interval="1m"),
        p.bars("AC and DC by energy", "Share of the energy charged in the chosen time, at the pack's terminals.",
               _ENERGY, "kind", unit="percentunit"),
        p.against("Power against state of charge", f"{_LAST_DAY} Mean in steps of 5 % SoC, and the highest of any.",
                  _CURVE, "SoC", unit="kwatt", x_unit="percent", colours=_COLOURS),
        p.bars("Sessions by the hour they began", f"{_LAST_DAY} Simulated time, UTC.", _STARTS, "hour",
               colours=_COLOURS, stacked=True, span=12),
        p.rows("Sessions", f"{_LAST_DAY} The newest 200. A session that began before has the part within.",
               _NEWEST_SESSIONS, height=12, links={"vehicle": p.TO_VEHICLE},
               units={"duration": "s", "SoC from": "percentunit", "SoC to": "percentunit", "energy": "kwatth",
                      "highest power": "kwatt", "warmest sensor": "celsius"},
               empty="Nobody has charged in the last day of the chosen time"),
    ]  # fmt: skip
    return p.board("charging", "Who charges, how fast, and how the power falls.", panels, [p.run_variable()])
