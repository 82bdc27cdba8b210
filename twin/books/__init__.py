"""The books of a run: records produced, delivered and pending per sink, counted by those who did not deliver them.

Open `ledger.py` first. `peers.py` asks broker, database and archive themselves, and shares nothing with the sinks.
`archive.py` keeps what an MQTT broker carries, which keeps nothing itself; `messages.py` reads that back.
"""
