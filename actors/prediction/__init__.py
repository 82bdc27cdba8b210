"""Predictions: the pool of models, and the reader of the log that feeds it.

Open `feeder.py` first (which records are asked about, what is logged), then `pool.py` (Ray Serve replicas), `rest.py`
(their REST interface) and `source.py` (where their model comes from, and how it is replaced). `plan.py` has the
settings of all; `feeder_actor.py` connects the feeder to Serve.
"""
