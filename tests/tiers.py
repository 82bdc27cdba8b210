"""Which tier a test is in. `make quick` runs those that need no server and no Ray; a test says so by what it asks for.

A test that uses the fixture of a service is marked `services`, one that uses Ray's is marked `cluster`. A test that
starts either in another way (a subprocess, say) marks itself. One that starts Ray in this process without a mark fails.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

_SERVICES = {
    "alertmanager", "chromium", "docker", "grafana_schema", "kafka", "mlflow_server", "mosquitto", "postgres",
    "prometheus", "s3", "timescaledb",
}  # fmt: skip
_CLUSTER = {"ray_cluster"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by the fixtures it uses, its fixtures' included."""
    for item in items:
        used = set(getattr(item, "fixturenames", ()))
        if used & _SERVICES:
            item.add_marker("services")
        if used & _CLUSTER:
            item.add_marker("cluster")


@pytest.fixture(autouse=True)
def _no_ray_unasked(request: pytest.FixtureRequest) -> Iterator[None]:
    before = _ray_runs()
    yield
    if request.node.get_closest_marker("cluster") is None and not before:
        assert not _ray_runs(), "this test has started Ray: mark it `cluster`"


def _ray_runs() -> bool:
    ray = sys.modules.get("ray")
    return bool(ray is not None and ray.is_initialized())
