"""The scene."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.scene import Scene
from tests.recoveries import note_recoveries
from tests.services import Kafka, Mosquitto, Postgres


@pytest.fixture(params=["json", "avro"])  # "vss" differs from "json" by names only
def scene(
    kafka: Kafka,
    mosquitto: Mosquitto,
    postgres: Postgres,
    postgres_database: str,
    tmp_path: Path,
    unique_name: Callable[[str], str],
    request: pytest.FixtureRequest,
) -> Iterator[Scene]:
    scene = Scene(kafka, mosquitto, postgres, postgres_database, tmp_path, unique_name("run"), request.param)
    yield scene
    scene.close()
    note_recoveries(request.node, scene.recoveries)
