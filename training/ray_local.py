"""Ray for generating and training: a cluster that is there, or a local one that ends with the work."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def init_ray(address: str, **options: Any) -> None:
    """`ray.init`, quietly, and without what it does beside: it takes SIGTERM for itself, and whoever has a handler of
    his own would be cut off in mid-run."""
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **options)
    finally:
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextmanager
def ray_started(address: str | None, cpus: int, *, dashboard: bool = False) -> Iterator[None]:
    """Ray, connected. If it is already, it is used as it is. ConnectionError where no cluster is at the address.

    address    of a cluster; None: RAY_ADDRESS if it is set, else a local Ray of `cpus` logical CPUs
    dashboard  Ray Train's clean-up needs it
    """
    import ray

    if ray.is_initialized():
        yield
        return
    if address := address or os.environ.get("RAY_ADDRESS"):
        try:
            init_ray(address)
        except Exception as error:  # Ray raises many kinds
            why = " ".join(str(error).split())[:200]
            raise ConnectionError(f"expected a Ray cluster at {address}: {why}") from error
    else:
        init_ray("local", num_cpus=cpus, include_dashboard=dashboard)
    try:
        yield
    finally:
        ray.shutdown()
