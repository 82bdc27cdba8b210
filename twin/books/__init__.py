"""The books of a run: records produced, delivered and pending per sink, counted by code that did not deliver them.

Open `ledger.py` first. `peers.py` asks broker, database and archive themselves, and shares nothing with the sinks.
`archive.py` keeps the messages of an MQTT broker, because the broker keeps none. `messages.py` reads them back.
"""
