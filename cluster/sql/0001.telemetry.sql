-- Telemetry: one row for each record of the log; units as in datasets/schema.py.
-- A record is (run_id, vehicle_id, seq); ts follows from it and is in the key because the unique key of a hypertable
-- must hold its time column. ts is simulated time.

CREATE TABLE telemetry (
    run_id text NOT NULL,
    vehicle_id text NOT NULL,
    seq bigint NOT NULL,
    ts timestamptz NOT NULL,
    soc double precision NOT NULL,
    soh double precision NOT NULL,
    battery_voltage double precision NOT NULL,
    battery_current double precision NOT NULL,
    battery_temperature double precision NOT NULL,
    charge_cycles double precision NOT NULL,
    power_consumption double precision NOT NULL,
    cell_voltage_min double precision NOT NULL,
    cell_voltage_max double precision NOT NULL,
    cell_temperature_min double precision NOT NULL,
    cell_temperature_max double precision NOT NULL,
    resistance double precision NOT NULL,
    ambient_temperature double precision NOT NULL,
    mode text NOT NULL,
    driving_speed double precision NOT NULL,
    distance_traveled double precision NOT NULL,
    flags integer NOT NULL,
    PRIMARY KEY (run_id, vehicle_id, seq, ts)
);

COMMENT ON TABLE telemetry IS 'Vehicle telemetry; ts is simulated time; positive current and power discharge';

-- A fleet arrives in the order of time: a block range index finds a period at next to no cost for each row written.
CREATE INDEX telemetry_ts ON telemetry USING brin (ts);
