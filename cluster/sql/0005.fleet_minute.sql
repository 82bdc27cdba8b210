-- Fleet aggregates by the simulated minute, written by `twin consume`: one row for each run, minute and partition of the
-- topic, as sums that add up; fleet_by_minute merges the partitions. A row says through which offset it has counted
-- and which records (identities: vehicle -> ranges of seq, zlib over JSON), so that nothing is ever counted twice.
-- depends: 0003.delivery

CREATE TABLE fleet_minute (
    run_id text NOT NULL,
    minute timestamptz NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    records bigint NOT NULL CHECK (records > 0),
    vehicles bigint NOT NULL CHECK (vehicles > 0),
    soc_sum double precision NOT NULL,
    soc_min double precision NOT NULL,
    soc_max double precision NOT NULL,
    soh_sum double precision NOT NULL,
    soh_min double precision NOT NULL,
    battery_temperature_sum double precision NOT NULL,
    battery_temperature_min double precision NOT NULL,
    battery_temperature_max double precision NOT NULL,
    power_sum double precision NOT NULL,
    parked bigint NOT NULL,
    driving bigint NOT NULL,
    charging bigint NOT NULL,
    fast_charging bigint NOT NULL,
    flagged bigint NOT NULL,
    last_offset bigint NOT NULL,
    identities bytea NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, minute, topic, partition)
);

COMMENT ON TABLE fleet_minute IS 'Sums over the records of a minute and a partition; read fleet_by_minute instead';
COMMENT ON COLUMN fleet_minute.minute IS 'Start of the minute, simulated time';
COMMENT ON COLUMN fleet_minute.battery_temperature_sum IS 'degC, summed over records';
COMMENT ON COLUMN fleet_minute.power_sum IS 'kW, positive discharges, summed over records';
COMMENT ON COLUMN fleet_minute.flagged IS 'Records with flags other than 0';
COMMENT ON COLUMN fleet_minute.last_offset IS 'All records of this minute up to this offset are counted';

CREATE VIEW fleet_by_minute AS
SELECT
    run_id,
    minute,
    topic,
    sum(records)::bigint AS records,
    sum(vehicles)::bigint AS vehicles,
    sum(soc_sum) / sum(records) AS soc_mean,
    min(soc_min) AS soc_min,
    max(soc_max) AS soc_max,
    sum(soh_sum) / sum(records) AS soh_mean,
    min(soh_min) AS soh_min,
    sum(battery_temperature_sum) / sum(records) AS battery_temperature_mean,
    min(battery_temperature_min) AS battery_temperature_min,
    max(battery_temperature_max) AS battery_temperature_max,
    sum(power_sum * vehicles / records) AS power_total,
    sum(parked)::bigint AS parked,
    sum(driving)::bigint AS driving,
    sum(charging)::bigint AS charging,
    sum(fast_charging)::bigint AS fast_charging,
    sum(flagged)::bigint AS flagged,
    max(updated_at) AS updated_at
FROM fleet_minute
GROUP BY run_id, minute, topic;

COMMENT ON VIEW fleet_by_minute IS
'The fleet by the minute: means over records; power_total in kW is mean power times vehicles; modes count records';
