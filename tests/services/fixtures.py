"""pytest fixtures of the real services; `pytest_plugins = ["tests.services.fixtures"]` in tests/conftest.py.

One server of a kind for the whole session, started when the first test asks for it. Where it cannot be had: a skip
with its reason on a laptop, a failure where CI is set.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import pytest

from tests.services import (
    S3,
    Alertmanager,
    Chromium,
    Docker,
    GrafanaSchema,
    Kafka,
    MLflow,
    Mosquitto,
    Postgres,
    Prometheus,
    Service,
    ServiceUnavailable,
    TimescaleDB,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def unavailable(reason: str) -> NoReturn:
    """What a test needs is not to be had here: a failure where CI is set, a skip with its reason on a laptop."""
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@contextmanager
def needed() -> Iterator[None]:
    """Where something in the block cannot be had here, it is `unavailable`."""
    try:
        yield
    except ServiceUnavailable as error:
        unavailable(str(error))


def _session[S: Service](service: S) -> Iterator[S]:
    try:
        with needed():
            service.start().wait_ready()
        yield service
    finally:
        service.remove()


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    """A broker; `.bootstrap_servers`."""
    yield from _session(Kafka())


@pytest.fixture(scope="session")
def mosquitto() -> Iterator[Mosquitto]:
    """A broker on `.port`, WebSocket on `.websocket_port`."""
    yield from _session(Mosquitto())


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server; `.url()`, `.password`."""
    yield from _session(Postgres())


@pytest.fixture(scope="session")
def timescaledb() -> Iterator[TimescaleDB]:
    """A server for one connection at a time; `.url()`. See `timescaledb_database` for an empty one."""
    yield from _session(TimescaleDB())


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """A server with one bucket; `.environment()`."""
    yield from _session(S3())


@pytest.fixture(scope="session")
def mlflow_server(s3: S3) -> Iterator[MLflow]:
    """A tracking server on SQLite with its artefacts in `s3`; `.url`."""
    yield from _session(MLflow().with_artefacts_in(s3))


@pytest.fixture(scope="session")
def grafana_schema() -> GrafanaSchema:
    """Grafana's types; `.complaints()` of the compiler about dashboards."""
    with needed():
        GrafanaSchema.install()
    return GrafanaSchema()


@pytest.fixture
def alertmanager() -> Iterator[Alertmanager]:
    """A server that tells a web hook; `.told`."""
    yield from _session(Alertmanager())


@pytest.fixture
def prometheus(free_port: int, request: pytest.FixtureRequest) -> Iterator[Prometheus]:
    """A server that scrapes `twin run` at `free_port` each second; `.query()`, `.firing()`. Where a test has an
    `alertmanager`, it is told."""
    service = Prometheus().scraping(free_port)
    if "alertmanager" in request.fixturenames:
        service.telling(request.getfixturevalue("alertmanager").url.removeprefix("http://"))
    yield from _session(service)


@pytest.fixture(scope="module")
def docker() -> Iterator[Docker]:
    """A container engine with the images that stand in; `.docker(...)` is its command line."""
    yield from _session(Docker())


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser; `.new_page()`. It lives for one module: while it does, its event loop runs in the tests' thread."""
    with needed():
        Chromium.install()
    with Chromium.started() as browser:
        yield browser


@pytest.fixture
def postgres_database(postgres: Postgres) -> Iterator[str]:
    """The URL of an empty database, dropped afterwards."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    yield postgres.create_database(name)
    postgres.drop_database(name)


@pytest.fixture
def timescaledb_database(timescaledb: TimescaleDB) -> str:
    """The URL of the one TimescaleDB database, emptied before the test."""
    timescaledb.empty()
    return timescaledb.url()


@pytest.fixture
def unique_name() -> Callable[[str], str]:
    """`unique_name("telemetry")`: a topic, group or client id that no other test uses."""
    return lambda stem: f"{stem}-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def kafka_topic(kafka: Kafka, unique_name: Callable[[str], str]) -> str:
    """A topic of its own; it is made by the first message."""
    return unique_name("ev-telemetry")
