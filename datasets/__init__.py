"""What a record is, and where records live: the telemetry schema, the append-only log, the codecs, the drive cycles.

May import physics and data libraries (pyarrow, duckdb, orjson); never Ray, models or anything above.
Open `schema.py` first (the columns, their units and their other names), then `log.py` (the outbox every sink reads).
"""
