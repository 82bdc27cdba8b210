"""The running system on Ray: vehicle shards, shippers that carry the log to each sink, predictor pool, supervisor.

Every actor is a plain class that is made remote where it is spawned, so a test steps it in-process. Its memory can be
rebuilt from a checkpoint plus the log. May import models, datasets, physics and Ray; never twin.
Open `shard.py` first (where records are made), then `shipper.py` (how they leave), then `supervisor.py` (who watches).
"""
