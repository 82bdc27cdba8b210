-- What the fleet did by the simulated minute: sums that add up, written by the sink in the transaction that writes the
-- records, of the records that are new. telemetry_minute: one row for each run, minute and mode; predictions_minute: for
-- each run, minute and model version. A month of 5,000 vehicles is 170,000 rows instead of hundreds of millions, and it
-- stays when retention drops the records. Records that are there already are summed here.
-- newest_telemetry and newest_predictions: the last record of each vehicle of a run, by one look into the primary key
-- for each vehicle instead of a walk through all records.
-- depends: 0006.reported

CREATE TABLE telemetry_minute (
    run_id text NOT NULL,
    minute timestamptz NOT NULL,
    mode text NOT NULL,
    records bigint NOT NULL,
    soc_sum double precision NOT NULL,
    soc_min double precision NOT NULL,
    soc_max double precision NOT NULL,
    soh_sum double precision NOT NULL,
    soh_min double precision NOT NULL,
    soh_max double precision NOT NULL,
    battery_voltage_sum double precision NOT NULL,
    battery_voltage_min double precision NOT NULL,
    battery_voltage_max double precision NOT NULL,
    battery_current_sum double precision NOT NULL,
    battery_current_min double precision NOT NULL,
    battery_current_max double precision NOT NULL,
    battery_temperature_sum double precision NOT NULL,
    battery_temperature_min double precision NOT NULL,
    battery_temperature_max double precision NOT NULL,
    power_consumption_sum double precision NOT NULL,
    power_consumption_min double precision NOT NULL,
    power_consumption_max double precision NOT NULL,
    flagged bigint NOT NULL,
    diagnosed bigint NOT NULL,
    PRIMARY KEY (run_id, minute, mode)
);

COMMENT ON TABLE telemetry_minute IS 'Sums over the records of a simulated minute and a mode; units as in telemetry';
COMMENT ON COLUMN telemetry_minute.flagged IS 'Records with flags other than 0';
COMMENT ON COLUMN telemetry_minute.diagnosed IS 'Records with a trouble code';

CREATE TABLE predictions_minute (
    run_id text NOT NULL,
    minute timestamptz NOT NULL,
    model_version text NOT NULL,
    records bigint NOT NULL,
    rul_sum double precision NOT NULL,
    rul_min double precision NOT NULL,
    rul_max double precision NOT NULL,
    rul_low_sum double precision NOT NULL,
    rul_high_sum double precision NOT NULL,
    failure_probability_sum double precision NOT NULL,
    failure_probability_max double precision NOT NULL,
    PRIMARY KEY (run_id, minute, model_version)
);

COMMENT ON TABLE predictions_minute IS 'Sums over the predictions for a simulated minute; units as in predictions';

INSERT INTO telemetry_minute
SELECT
    run_id,
    date_trunc('minute', ts),
    mode,
    count(*),
    sum(soc), min(soc), max(soc),
    sum(soh), min(soh), max(soh),
    sum(battery_voltage), min(battery_voltage), max(battery_voltage),
    sum(battery_current), min(battery_current), max(battery_current),
    sum(battery_temperature), min(battery_temperature), max(battery_temperature),
    sum(power_consumption), min(power_consumption), max(power_consumption),
    count(*) FILTER (WHERE flags <> 0),
    count(*) FILTER (WHERE diagnostics <> 0)
FROM telemetry
GROUP BY 1, 2, 3;

INSERT INTO predictions_minute
SELECT
    run_id,
    date_trunc('minute', ts),
    model_version,
    count(*),
    sum(rul), min(rul), max(rul),
    sum(rul_low),
    sum(rul_high),
    sum(failure_probability), max(failure_probability)
FROM predictions
GROUP BY 1, 2, 3;

CREATE FUNCTION newest_telemetry(run text) RETURNS SETOF telemetry LANGUAGE sql STABLE AS $$
    WITH RECURSIVE vehicles AS (
        (SELECT t.vehicle_id FROM telemetry t WHERE t.run_id = run ORDER BY t.vehicle_id LIMIT 1)
        UNION ALL
        SELECT (
            SELECT t.vehicle_id FROM telemetry t
            WHERE t.run_id = run AND t.vehicle_id > v.vehicle_id
            ORDER BY t.vehicle_id LIMIT 1
        )
        FROM vehicles v
        WHERE v.vehicle_id IS NOT NULL
    )
    SELECT newest.*
    FROM vehicles v
    CROSS JOIN LATERAL (
        SELECT t.* FROM telemetry t
        WHERE t.run_id = run AND t.vehicle_id = v.vehicle_id
        ORDER BY t.seq DESC LIMIT 1
    ) newest
$$;

COMMENT ON FUNCTION newest_telemetry IS 'The record with the highest seq of each vehicle of a run';

CREATE FUNCTION newest_predictions(run text) RETURNS SETOF predictions LANGUAGE sql STABLE AS $$
    WITH RECURSIVE vehicles AS (
        (SELECT p.vehicle_id FROM predictions p WHERE p.run_id = run ORDER BY p.vehicle_id LIMIT 1)
        UNION ALL
        SELECT (
            SELECT p.vehicle_id FROM predictions p
            WHERE p.run_id = run AND p.vehicle_id > v.vehicle_id
            ORDER BY p.vehicle_id LIMIT 1
        )
        FROM vehicles v
        WHERE v.vehicle_id IS NOT NULL
    )
    SELECT newest.*
    FROM vehicles v
    CROSS JOIN LATERAL (
        SELECT p.* FROM predictions p
        WHERE p.run_id = run AND p.vehicle_id = v.vehicle_id
        ORDER BY p.seq DESC LIMIT 1
    ) newest
$$;

COMMENT ON FUNCTION newest_predictions IS 'The prediction with the highest seq of each vehicle of a run';
