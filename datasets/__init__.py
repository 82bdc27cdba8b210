"""What a record is, and where records are kept: telemetry schema, append-only log, codecs, drive cycles.

It may import physics and data libraries (pyarrow, duckdb, orjson); never Ray, models or anything above.
Open `schema.py` first (the columns, their units and their other names), then `log/` (the outbox every sink reads).
"""
