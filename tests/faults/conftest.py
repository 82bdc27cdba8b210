"""The scene, and the recovery times in pytest's summary."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.scene import Scene
from tests.services import Kafka, Mosquitto, Postgres

_RECOVERIES = pytest.StashKey[list[tuple[str, float]]]()


@pytest.fixture
def scene(
    kafka: Kafka,
    mosquitto: Mosquitto,
    postgres: Postgres,
    postgres_database: str,
    tmp_path: Path,
    unique_name: Callable[[str], str],
    request: pytest.FixtureRequest,
) -> Iterator[Scene]:
    scene = Scene(kafka, mosquitto, postgres, postgres_database, tmp_path, unique_name("run"))
    yield scene
    scene.close()
    request.config.stash.setdefault(_RECOVERIES, []).extend(scene.recoveries)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    recoveries = config.stash.get(_RECOVERIES, [])
    if recoveries:
        terminalreporter.section("recovery times")
        for what, seconds in recoveries:
            terminalreporter.write_line(f"{seconds:6.1f} s  {what}")
