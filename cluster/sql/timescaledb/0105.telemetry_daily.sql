-- telemetry_daily: each vehicle by the day (UTC), made of telemetry_hourly: 24 rows for a day instead of 43,200. Averages
-- are weighted by the records behind them, so they are those of the records. distance_driven is the sum of the hours: it
-- lacks the way between the last record of an hour and the first of the next.
-- Late rows: the refresh of telemetry_hourly marks the days it has changed, the next one here computes them again.
-- depends: 0104.telemetry_hourly

CREATE MATERIALIZED VIEW telemetry_daily
WITH (timescaledb.continuous, timescaledb.materialized_only = false)
AS
SELECT
    run_id,
    vehicle_id,
    time_bucket(INTERVAL '1 day', hour) AS day,
    sum(records) AS records,
    sum(soc_avg * records) / sum(records) AS soc_avg,
    min(soc_min) AS soc_min,
    max(soc_max) AS soc_max,
    last(soh_last, hour) AS soh_last,
    sum(battery_voltage_avg * records) / sum(records) AS battery_voltage_avg,
    min(battery_voltage_min) AS battery_voltage_min,
    max(battery_voltage_max) AS battery_voltage_max,
    sum(battery_current_avg * records) / sum(records) AS battery_current_avg,
    sum(battery_temperature_avg * records) / sum(records) AS battery_temperature_avg,
    min(battery_temperature_min) AS battery_temperature_min,
    max(battery_temperature_max) AS battery_temperature_max,
    last(charge_cycles_last, hour) AS charge_cycles_last,
    sum(power_consumption_avg * records) / sum(records) AS power_consumption_avg,
    sum(ambient_temperature_avg * records) / sum(records) AS ambient_temperature_avg,
    sum(distance_driven) AS distance_driven,
    bit_or(flags) AS flags
FROM telemetry_hourly
GROUP BY run_id, vehicle_id, day
WITH NO DATA;

DO $$
BEGIN
    PERFORM add_continuous_aggregate_policy(
        'telemetry_daily',
        start_offset => NULL,
        end_offset => NULL,
        schedule_interval => INTERVAL '1 hour'
    );
END
$$;
