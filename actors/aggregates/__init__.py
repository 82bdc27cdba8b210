"""`twin consume`: fleet aggregates per simulated minute, from the telemetry topic.

Open `windows.py` first (what is counted, without Kafka or a database), then `consumer.py` (the loop), `store.py` (the
database), `producer.py` (the output topic). No Ray: a consumer is a process like any other.
"""
