DROP MATERIALIZED VIEW telemetry_daily;
