-- Retention: chunks are dropped ten years after they were made (not ten simulated years: a run over a battery's life
-- would lose its beginning). Another period: set twin.retention before the migration, 'none' keeps everything:
--   ALTER DATABASE twin_data SET twin.retention = '90 days';
-- afterwards see README.md.
-- depends: 0102.columnstore

DO $$
DECLARE
    period text := coalesce(nullif(current_setting('twin.retention', true), ''), '10 years');
    stream text;
BEGIN
    IF period <> 'none' THEN
        FOREACH stream IN ARRAY ARRAY['telemetry', 'predictions'] LOOP
            PERFORM add_retention_policy(stream::regclass, drop_created_before => period::interval);
        END LOOP;
    END IF;
END
$$;
