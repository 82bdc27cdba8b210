-- Schema 2: the pulse resistance referred to 25 degC, and the trouble codes of the battery management system.
-- Rows of schema 1 get the values that a reader of old messages fills in.
-- depends: 0005.fleet_minute

ALTER TABLE telemetry ADD COLUMN resistance_25 double precision NOT NULL DEFAULT 0;
ALTER TABLE telemetry ADD COLUMN diagnostics integer NOT NULL DEFAULT 0;

COMMENT ON COLUMN telemetry.soc IS 'As the battery management system counts it; before schema 2 the true value';
COMMENT ON COLUMN telemetry.soh IS 'As the battery management system estimates it; before schema 2 the true value';
