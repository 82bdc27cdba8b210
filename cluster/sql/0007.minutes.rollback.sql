DROP FUNCTION newest_predictions;
DROP FUNCTION newest_telemetry;
DROP TABLE predictions_minute;
DROP TABLE telemetry_minute;
