"""Fixtures for all tests. Real services come from `tests.services`, one Ray cluster serves a whole session."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator

import hypothesis
import pytest

from tests.services.base import free_ports

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Ray would start an idle process for each of the cluster's 32 logical CPUs, some 3 s of a core each.
os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
# Ray's worker processes import our packages from here, also when pytest was started from another folder.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH", "")]))

# How long an example takes decides no test.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

pytest_plugins = ["tests.command", "tests.histories", "tests.services.fixtures", "tests.tiers", "tests.recoveries"]


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One local Ray for the whole session: a start costs 5-15 s."""
    import ray

    # Logical CPUs: every test finds room for its shards, whatever the machine has.
    ray.init("local", num_cpus=32, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


@pytest.fixture(scope="module", autouse=True)
def _no_event_loop_left() -> Iterator[None]:
    """What a module starts in this thread ends with it: a running event loop fails the asyncio tests of all others."""
    yield
    assert asyncio._get_running_loop() is None, "a fixture of this module leaves an event loop running in this thread"


@pytest.fixture
def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on, and that no outgoing connection takes meanwhile."""
    return free_ports(1)[0]
