"""How records get from a log to a sink.

Open `shipper.py` first: it follows the logs of a run while they grow. `replay.py` delivers an old run. Both move a
position (`position.py`), which remembers how far one log has been delivered to one sink. `sinks/` has the sinks, one
file each. No Ray: a shipper runs in a Ray actor and in a test alike.
"""
