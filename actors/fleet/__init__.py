"""The fleet: which process steps which vehicles, at what pace, and what happens when a process dies.

Open `supervisor.py` first: it runs in the driver and holds no data that is not also on disk. `plan.py` says what a
fleet is. `shard.py` steps vehicles and logs what they report. `slot.py` is the supervisor's side of one shard, and
`carriers.py` its side of the processes that take the records away. Decisions are plain objects: `placement.py` (what
runs where), `restart_policy.py`, `drain_policy.py`, `pacer.py` (simulated time against the wall clock).
`restart_points.py` is for nodes that are lost with their disk. `status.py` is what is known at one moment; `metrics.py`
shows it to Prometheus. `cluster.py` says what the fleet asks of a cluster. Only `ray_cluster.py` and `shard_actor.py`
know Ray.
"""
