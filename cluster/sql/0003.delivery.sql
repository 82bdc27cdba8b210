-- Delivery: how far each log has been written into this database, moved in the transaction that writes the rows; and
-- the messages that could not be read, with the reason.
-- depends: 0002.predictions

CREATE TABLE sink_cursors (
    log_id text NOT NULL,
    stream text NOT NULL,
    shard integer NOT NULL,
    position bigint NOT NULL CHECK (position >= 0),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (log_id, stream, shard)
);

COMMENT ON TABLE sink_cursors IS 'Next position to deliver, for each log (a run directory), stream and shard';

-- The payload is bytes: what could not be read need not be text.
CREATE TABLE rejected_records (
    received_at timestamptz NOT NULL DEFAULT now(),
    reason text NOT NULL,
    payload bytea NOT NULL
);

COMMENT ON TABLE rejected_records IS 'Dead letters: malformed incoming messages and why they were refused';

CREATE INDEX rejected_records_received_at ON rejected_records (received_at);
