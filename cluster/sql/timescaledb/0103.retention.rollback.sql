SELECT delete_job(job_id) FROM timescaledb_information.jobs WHERE proc_name = 'twin_retention';

DROP PROCEDURE twin_retention;
