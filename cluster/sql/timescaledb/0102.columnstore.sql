-- Columnstore: a chunk is turned into columns a day after it was made, one segment for each vehicle of a run.
-- created_before looks at the clock on the wall. The usual `after` would compare the simulated ts with it: a run that
-- plays in the past would be compressed while it is being written, one that plays in the future never.
-- depends: 0101.hypertables

ALTER TABLE telemetry SET (
    timescaledb.enable_columnstore = true,
    timescaledb.segmentby = 'run_id, vehicle_id',
    timescaledb.orderby = 'ts, seq'
);

ALTER TABLE predictions SET (
    timescaledb.enable_columnstore = true,
    timescaledb.segmentby = 'run_id, vehicle_id',
    timescaledb.orderby = 'ts, seq'
);

CALL add_columnstore_policy('telemetry', created_before => INTERVAL '1 day');

CALL add_columnstore_policy('predictions', created_before => INTERVAL '1 day');
