-- telemetry_hourly: each vehicle by the hour, kept up to date by a policy. What the policy has not reached yet is
-- computed when it is asked for (materialized_only = false).
-- The policy has no start and no end: simulated time has nothing to do with now(). It costs no more, because a refresh
-- computes only the hours that have changed.
-- depends: 0103.retention

CREATE MATERIALIZED VIEW telemetry_hourly
WITH (timescaledb.continuous, timescaledb.materialized_only = false)
AS
SELECT
    run_id,
    vehicle_id,
    time_bucket(INTERVAL '1 hour', ts) AS hour,
    count(*) AS records,
    avg(soc) AS soc_avg,
    min(soc) AS soc_min,
    max(soc) AS soc_max,
    last(soh, ts) AS soh_last,
    avg(battery_voltage) AS battery_voltage_avg,
    min(battery_voltage) AS battery_voltage_min,
    max(battery_voltage) AS battery_voltage_max,
    avg(battery_current) AS battery_current_avg,
    avg(battery_temperature) AS battery_temperature_avg,
    min(battery_temperature) AS battery_temperature_min,
    max(battery_temperature) AS battery_temperature_max,
    last(charge_cycles, ts) AS charge_cycles_last,
    avg(power_consumption) AS power_consumption_avg,
    avg(ambient_temperature) AS ambient_temperature_avg,
    max(distance_traveled) - min(distance_traveled) AS distance_driven,
    bit_or(flags) AS flags
FROM telemetry
GROUP BY run_id, vehicle_id, hour
WITH NO DATA;

DO $$
BEGIN
    PERFORM add_continuous_aggregate_policy(
        'telemetry_hourly',
        start_offset => NULL,
        end_offset => NULL,
        schedule_interval => INTERVAL '10 minutes'
    );
END
$$;
