CALL remove_columnstore_policy('predictions');
CALL remove_columnstore_policy('telemetry');
