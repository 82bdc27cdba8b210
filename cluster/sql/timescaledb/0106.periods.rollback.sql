CALL add_columnstore_policy('telemetry', created_before => INTERVAL '1 day', if_not_exists => true);
CALL add_columnstore_policy('predictions', created_before => INTERVAL '1 day', if_not_exists => true);

DROP PROCEDURE twin_apply_periods();
