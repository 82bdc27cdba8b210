"""Predictions: the pool of models, and the reader of the log that feeds it.

Open `feeder.py` first (which records are asked about, what is logged), then `pool.py` (Ray Serve replicas and REST).
`plan.py` has the settings of both; `feeder_actor.py` connects the feeder to Serve.
"""
