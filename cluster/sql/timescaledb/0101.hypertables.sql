-- Hypertables, a chunk for each simulated day. The block range indexes go along; no further index on ts is made.
-- Rows that a plain database has gathered before are moved.
-- depends: 0003.delivery

CREATE EXTENSION IF NOT EXISTS timescaledb;

DO $$
DECLARE
    stream text;
BEGIN
    FOREACH stream IN ARRAY ARRAY['telemetry', 'predictions'] LOOP
        PERFORM create_hypertable(
            stream::regclass,
            by_range('ts', INTERVAL '1 day'),
            create_default_indexes => false,
            migrate_data => true
        );
    END LOOP;
END
$$;
