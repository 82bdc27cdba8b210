-- Predictions: what the model of that version said of the telemetry record with the same key. Cycles are equivalent
-- full cycles (EFC).
-- depends: 0001.telemetry

CREATE TABLE predictions (
    run_id text NOT NULL,
    vehicle_id text NOT NULL,
    seq bigint NOT NULL,
    ts timestamptz NOT NULL,
    model_version text NOT NULL,
    rul double precision NOT NULL,
    rul_low double precision NOT NULL,
    rul_high double precision NOT NULL,
    failure_probability double precision NOT NULL,
    PRIMARY KEY (run_id, vehicle_id, seq, ts)
);

COMMENT ON TABLE predictions IS 'Remaining useful life in equivalent full cycles, its interval, failure probability';

CREATE INDEX predictions_ts ON predictions USING brin (ts);
