DROP INDEX telemetry_charging;
