-- Retention: chunks are dropped ten years after they were made (not ten simulated years: a run over a battery's life
-- would lose its beginning). Another period: set twin.retention before the migration, 'none' keeps everything:
--   ALTER DATABASE twin_data SET twin.retention = '90 days';
-- afterwards see README.md.
-- A job of our own, because add_retention_policy(drop_created_before) makes one that fails whenever it runs on a
-- hypertable by time, up to TimescaleDB 2.26 (timescale/timescaledb#9446).
-- depends: 0102.columnstore

CREATE PROCEDURE twin_retention(job_id integer, config jsonb) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM drop_chunks((config ->> 'table')::regclass, created_before => now() - (config ->> 'period')::interval);
END
$$;

DO $$
DECLARE
    period text := coalesce(nullif(current_setting('twin.retention', true), ''), '10 years');
    stream text;
BEGIN
    IF period <> 'none' THEN
        FOREACH stream IN ARRAY ARRAY['telemetry', 'predictions'] LOOP
            PERFORM add_job(
                'twin_retention',
                INTERVAL '1 day',
                config => jsonb_build_object('table', stream, 'period', period::interval)
            );
        END LOOP;
    END IF;
END
$$;
