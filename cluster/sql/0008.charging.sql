-- Charging, by time: a twentieth to a tenth of the records, with what the dashboard of charging asks for, so that it
-- reads a small index instead of all records of the day. Rows of other modes cost nothing to write.
-- depends: 0007.minutes

CREATE INDEX telemetry_charging ON telemetry (run_id, ts)
INCLUDE (vehicle_id, seq, mode, soc, power_consumption, cell_temperature_max)
WHERE mode IN ('charging', 'fast_charging');
