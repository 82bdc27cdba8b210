"""The scene."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from zlib import crc32

import pytest

from datasets.names import Payload
from tests.faults.scene import Scene
from tests.recoveries import note_recoveries
from tests.services import Kafka, Mosquitto

# "vss" differs from "json" by names only.
_PAYLOADS: tuple[Payload, ...] = ("json", "avro")


@pytest.fixture
def scene(
    kafka: Kafka,
    mosquitto: Mosquitto,
    postgres_database: str,
    tmp_path: Path,
    unique_name: Callable[[str], str],
    request: pytest.FixtureRequest,
) -> Iterator[Scene]:
    # A fault does not care how a message is written: each is tried with one encoding, both with half of the faults.
    payload = _PAYLOADS[crc32(request.node.name.encode()) % len(_PAYLOADS)]
    scene = Scene(kafka, mosquitto, postgres_database, tmp_path, unique_name("run"), payload)
    yield scene
    scene.close()
    note_recoveries(request.node, scene.recoveries)
