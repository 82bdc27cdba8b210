DO $$
BEGIN
    PERFORM remove_retention_policy('predictions', if_exists => true);
    PERFORM remove_retention_policy('telemetry', if_exists => true);
END
$$;
