"""Pipeline: do the records arrive, how soon, and does the ledger balance?"""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from scripts.dashboards import panels as p

_LEDGER = {
    "made": "sum by (sink) (ev_sink_made_records_total)",
    "delivered": "sum by (sink) (ev_sink_delivered_records_total)",
    "on their way": "sum by (sink) (ev_sink_backlog_records)",
    "rejected": "sum by (sink) (ev_sink_dead_letters_total)",
    "lost": "sum by (sink) (ev_sink_lost_records_total)",
}
_STORED = """
SELECT run_id AS "run", stream AS "stream", records AS "records", last AS "last minute"
FROM (
    SELECT run_id, 'telemetry' AS stream, sum(records)::bigint AS records, max(minute) AS last
    FROM telemetry_minute GROUP BY run_id
    UNION ALL
    SELECT run_id, 'predictions', sum(records)::bigint, max(minute)
    FROM predictions_minute GROUP BY run_id
) AS stored
ORDER BY last DESC, run_id, stream
LIMIT 50"""
_CURSORS = """
SELECT log_id AS "log", stream AS "stream", count(*) AS "shards", sum(position)::bigint AS "position",
    max(updated_at) AS "last written"
FROM sink_cursors
GROUP BY log_id, stream
ORDER BY max(updated_at) DESC
LIMIT 50"""
_REJECTED = """
SELECT received_at AS "received", reason AS "reason", length(payload) AS "bytes"
FROM rejected_records
ORDER BY received_at DESC
LIMIT 50"""


def _quantile(share: float, histogram: str, by: str = "") -> str:
    return f"histogram_quantile({share}, sum by ({by}le) (rate({histogram}_bucket[$__rate_interval])))"


def board() -> Dashboard:
    """The dashboard."""
    sink = "ev_sink_latency_seconds"
    prediction = "ev_prediction_latency_since_due_seconds"
    panels = [
        p.figures("Vehicles", "Simulated by the run.", {"vehicles": "sum(ev_vehicles)"}, span=4),
        p.figures("Real-time factor", "Simulated over real time, lately.", {"factor": "ev_real_time_factor"},
                  span=4, decimals=2),
        p.figures("Simulated", "Since the run's start.", {"simulated": "ev_simulated_seconds"}, unit="s", span=4),
        p.figures("Alerts that fire", "Now (cluster/prometheus/rules.yml).",
                  {"firing": 'count(ALERTS{alertstate="firing"}) or vector(0)'}, span=4),
        p.figures("Unaccounted", "Made, but neither delivered nor on their way. Anything but 0 for long: ask"
                  " `twin ledger DIR --verify`.",
                  {"{{sink}}": "sum by (sink) (ev_sink_made_records_total) - sum by (sink)"
                   " (ev_sink_delivered_records_total) - sum by (sink) (ev_sink_backlog_records)"}, span=8),
        p.over_time("Records made", "Telemetry and predictions a second.",
                    {"telemetry": "rate(ev_telemetry_records_total[$__rate_interval])",
                     "predictions": "rate(ev_predictions_total[$__rate_interval])"}, least=0),
        p.over_time("Records delivered", "Acknowledged by each sink, a second.",
                    {"{{sink}}": "sum by (sink) (rate(ev_sink_delivered_records_total[$__rate_interval]))"}, least=0),
        p.over_time("Backlog", "Records in the log that a sink, or the predictor, has not taken.",
                    {"{{sink}} {{stream}}": "ev_sink_backlog_records",
                     "predictor": "ev_predictor_backlog_records"}, least=0),
        p.over_time("Oldest that waits", "Since the first record that waits was due.",
                    {"{{sink}}": "max by (sink) (ev_sink_oldest_waiting_seconds)"}, unit="s", least=0),
        p.over_time("Latency of a record", "From when it was due to its acknowledgement; of this process.",
                    {"{{sink}} p50": _quantile(0.5, sink, "sink, "), "{{sink}} p99": _quantile(0.99, sink, "sink, ")},
                    unit="s", least=0),
        p.over_time("Latency of a prediction", "From when a record was due to its logged prediction.",
                    {"p50": _quantile(0.5, prediction), "p99": _quantile(0.99, prediction),
                     "last batch to the pool": "ev_prediction_latency_seconds"}, unit="s", least=0),
        p.over_time("Who waits", "1 while a part waits for another.", {"{{part}}": "ev_waiting"}, least=0, most=1),
        p.over_time("Faults", "Since the run's start.",
                    {"{{sink}} rejected": "ev_sink_dead_letters_total", "{{sink}} lost": "ev_sink_lost_records_total",
                     "{{sink}} reconnected": "ev_sink_retries_total",
                     "{{sink}} had already": "ev_sink_duplicates_total",
                     "shards restarted": "ev_shard_restarts_total", "bytes cut off logs": "ev_log_cut_bytes_total"},
                    least=0),
        p.over_time("Never sent", "Telemetry that vehicles did not send, or that was lost on its way, since the start.",
                    {"{{reason}}": "ev_unsent_records_total"}, least=0),
        p.rows("Ledger", "What each sink has taken, of both streams, since the run's start.", _LEDGER, span=12,
               height=7),
        p.rows("Alerts", "Pending and firing. No row: none.",
               {"": 'ALERTS{alertstate=~"pending|firing"}'}, span=12, height=7, empty="No alert"),
        p.over_time("twin consume: records", "Counted, late, malformed, missing, or seen before, a second.",
                    {"counted": "sum(rate(ev_consume_consumed_records_total[$__rate_interval]))",
                     "late": "sum(rate(ev_consume_late_records_total[$__rate_interval]))",
                     "malformed": "sum(rate(ev_consume_malformed_total[$__rate_interval]))",
                     "missing": "sum(rate(ev_consume_missing_records_total[$__rate_interval]))",
                     "duplicates": "sum(rate(ev_consume_duplicates_total[$__rate_interval]))"}, span=12, least=0),
        p.over_time("twin consume: behind", "Messages not read yet, and windows in memory.",
                    {"messages": "sum(ev_consume_lag_records)", "open windows": "sum(ev_consume_open_windows)"},
                    span=12, least=0),
        p.rows("In the database", "Records stored, by run.", _STORED, span=12, height=7,
               units={"records": "short"}),
        p.rows("How far the database is", "By log and stream, moved in the transaction that writes the records.",
               _CURSORS, span=12, height=7, units={"position": "short"}),
        p.rows("Rejected messages", "Malformed messages that a consumer has put into the database. No row: none.",
               _REJECTED, height=6, empty="No message was rejected"),
    ]  # fmt: skip
    return p.board("pipeline", "Do the records arrive, how soon, and does the ledger balance?", panels)
