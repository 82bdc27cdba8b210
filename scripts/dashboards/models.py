"""Models: which version speaks, what it says of the fleet, and whether what it is asked has moved."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders.dashboard import Dashboard

from scripts.dashboards import panels as p

_MODEL: Final = " AND model_version = ${model:sqlstring}"

_VERSIONS = f"""
SELECT model_version AS "model", min(minute) AS "first", max(minute) AS "last", sum(records)::bigint AS "predictions",
    sum(rul_sum) / sum(records) AS "mean RUL",
    (sum(rul_high_sum) - sum(rul_low_sum)) / sum(records) AS "mean width of interval",
    sum(failure_probability_sum) / sum(records) AS "mean failure risk"
FROM predictions_minute
WHERE {p.RUN}
GROUP BY model_version
ORDER BY max(minute) DESC, model_version"""

_SPEAKS = f"""
SELECT model_version AS "model", count(*) AS "vehicles"
FROM {p.NEWEST_PREDICTIONS}
GROUP BY model_version
ORDER BY 2 DESC, 1"""

_ORDER = f"""
SELECT count(*) AS "predictions, now",
    count(*) FILTER (WHERE rul_low > rul OR rul > rul_high) AS "outside their interval",
    count(*) FILTER (WHERE rul <= 0) AS "at end of life"
FROM {p.NEWEST_PREDICTIONS}"""

_AGREES = f"""
WITH now AS (
    SELECT t.soh, p.rul FROM {p.NEWEST} t JOIN {p.NEWEST_PREDICTIONS} p USING (run_id, vehicle_id)
),
width AS (SELECT greatest((max(soh) - min(soh)) / 20, 0.001) AS soh FROM now)
SELECT
    100 * avg(now.soh) AS "SoH",
    percentile_cont(0.1) WITHIN GROUP (ORDER BY rul) AS "tenth",
    percentile_cont(0.5) WITHIN GROUP (ORDER BY rul) AS "median",
    percentile_cont(0.9) WITHIN GROUP (ORDER BY rul) AS "nine tenths"
FROM now CROSS JOIN width
GROUP BY floor(now.soh / width.soh)
ORDER BY 1"""

_NOT_STORED = """
**Not here, because the database does not have it:** coverage of the intervals, error against truth, and calibration.
They need what a vehicle really was, which is in the run's directory (`DIR/truth`) and in the lives that a model is
judged by. `twin evaluate` measures them, the card of each bundle and the run in the MLflow registry state them, and
`twin retrain --run DIR` measures the drift of a run's inputs and the coverage of its intervals (docs/retraining.md).
"""


def board() -> Dashboard:
    """The dashboard."""
    panels = [
        p.rows("Versions", "Every version that has predicted in this run.", _VERSIONS, span=16, height=6,
               units={"mean failure risk": "percentunit"}),
        p.figures("In order", "Of the newest prediction of each vehicle.", _ORDER, span=8, height=6),
        p.over_time("Predictions by version", "Predictions a simulated minute, on average over the interval.",
                    f"""
SELECT $__timeGroupAlias(minute, $__interval), model_version AS metric, sum(records) / count(DISTINCT minute) AS value
FROM predictions_minute
WHERE {p.RUN} AND $__timeFilter(minute)
GROUP BY 1, 2
ORDER BY 1, 2""", stacked=True, least=0, interval="1m"),
        p.over_time("Remaining useful life", "Equivalent full cycles, mean over vehicles: median and interval.",
                    p.by_minute('    sum(rul_low_sum) / sum(records) AS "at least",\n'
                                '    sum(rul_sum) / sum(records) AS "median",\n'
                                '    sum(rul_high_sum) / sum(records) AS "at most"', "predictions_minute", _MODEL),
                    band=("at least", "at most"), interval="1m"),
        p.over_time("Failure risk", "Mean over vehicles, and the highest of any.",
                    p.by_minute('    sum(failure_probability_sum) / sum(records) AS "mean",\n'
                                '    max(failure_probability_max) AS "highest"', "predictions_minute", _MODEL),
                    unit="percentunit", least=0, interval="1m"),
        p.over_time("Width of the interval", "Over the median: how unsure the model is.",
                    p.by_minute('    (sum(rul_high_sum) - sum(rul_low_sum)) / nullif(sum(rul_sum), 0) AS "width"',
                                "predictions_minute", _MODEL), unit="percentunit", least=0, interval="1m"),
        p.over_time("What it is asked: SoH and SoC", "Mean over the fleet's records. Where these move, inputs drift.",
                    p.by_minute('    sum(soh_sum) / sum(records) AS "SoH",\n    sum(soc_sum) / sum(records) AS "SoC"'),
                    unit="percentunit", interval="1m"),
        p.over_time("What it is asked: temperature and power", "Mean over the fleet's records.",
                    p.by_minute('    sum(battery_temperature_sum) / sum(records) AS "temperature",\n'
                                '    sum(power_consumption_sum) / sum(records) AS "power"'),
                    unit="celsius", right={"power": "kwatt"}, interval="1m"),
        p.bars("Who speaks for how many", "By the newest prediction of each vehicle.", _SPEAKS, "model"),
        p.against("Remaining life against health, now", "Of the vehicles at that SoH, a tenth is below the band and a"
                  " tenth above.", _AGREES, "SoH", x_unit="percent", span=16, band=("tenth", "nine tenths")),
        p.note(_NOT_STORED),
    ]  # fmt: skip
    model = p.variable(
        "model", "Model",
        f"SELECT model_version FROM predictions_minute WHERE {p.RUN} GROUP BY 1 ORDER BY max(minute) DESC",
        depends=True,
    )  # fmt: skip
    return p.board("models", "Which version speaks, and what it says.", panels, [p.run_variable(), model])
