DROP MATERIALIZED VIEW telemetry_hourly;
