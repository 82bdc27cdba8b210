-- Periods that can be set, before this migration or at any time after it:
--   ALTER DATABASE twin_data SET twin.columnstore_after = '7 days';   -- 'none': no chunk is turned into columns
--   ALTER DATABASE twin_data SET twin.retention = '90 days';          -- 'none': everything is kept
--   CALL twin_apply_periods();                                        -- in a new session
-- What is not set is left as it is.
-- depends: 0105.telemetry_daily

CREATE OR REPLACE PROCEDURE twin_apply_periods() LANGUAGE plpgsql AS $$
DECLARE
    columnstore_after text := nullif(current_setting('twin.columnstore_after', true), '');
    retention text := nullif(current_setting('twin.retention', true), '');
    stream text;
BEGIN
    FOREACH stream IN ARRAY ARRAY['telemetry', 'predictions'] LOOP
        IF columnstore_after IS NOT NULL THEN
            CALL remove_columnstore_policy(stream::regclass, if_exists => true);
            IF columnstore_after <> 'none' THEN
                CALL add_columnstore_policy(stream::regclass, created_before => columnstore_after::interval);
            END IF;
        END IF;
        IF retention IS NOT NULL THEN
            PERFORM delete_job(job_id) FROM timescaledb_information.jobs
            WHERE proc_name = 'twin_retention' AND config ->> 'table' = stream;
            IF retention <> 'none' THEN
                PERFORM add_job(
                    'twin_retention',
                    INTERVAL '1 day',
                    config => jsonb_build_object('table', stream, 'period', retention::interval)
                );
            END IF;
        END IF;
    END LOOP;
END
$$;

CALL twin_apply_periods();
