"""What runs concurrently: vehicle shards, shippers to the sinks, the predictor pool, the consumer of aggregates.

It may import models, datasets and physics. `fleet/` steps vehicles on Ray, `delivery/` carries the log to the sinks,
`prediction/` asks the models, `aggregates/` reads the stream back. Open `fleet/supervisor.py` first. Classes are plain
and become Ray actors where they are started (`fleet/ray_cluster.py`), so a test can step them in its own process.
"""
