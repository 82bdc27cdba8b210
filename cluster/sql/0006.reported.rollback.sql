ALTER TABLE telemetry DROP COLUMN resistance_25;
ALTER TABLE telemetry DROP COLUMN diagnostics;
COMMENT ON COLUMN telemetry.soc IS NULL;
COMMENT ON COLUMN telemetry.soh IS NULL;
