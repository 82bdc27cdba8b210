"""The three sinks on real servers: afterwards log, Kafka, MQTT and database hold the same records, by witnesses that
share nothing with the ledger. Servers that die in mid-run: `tests/faults`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.fleet.status import FleetStatus
from tests.integration.witness import Identity, MqttWitness, from_database, from_kafka
from tests.services import Kafka, Mosquitto, Postgres
from tests.support import records
from twin import Fleet
from twin.errors import BadInput

pytestmark = [
    pytest.mark.services,
    pytest.mark.cluster,
    pytest.mark.usefixtures("ray_cluster"),
    pytest.mark.timeout(600),
]

VEHICLES = 30


class Sinks:
    """URLs of all three, and what each has received of one run."""

    def __init__(self, kafka: Kafka, mosquitto: Mosquitto, database: str, run_id: str) -> None:
        self.run_id = run_id
        self._kafka = kafka
        self._database = database
        self._mqtt = MqttWitness(mosquitto.port, "ev/battery/telemetry/+")
        self.settings: dict[str, Any] = {
            "kafka": kafka.bootstrap_servers,
            "mqtt": f"mqtt://127.0.0.1:{mosquitto.port}",
            "timescale": database,
            "run_id": run_id,
        }

    def assert_equal_to(self, run: Path) -> None:
        """Each sink has exactly the ids of the log; each vehicle's records in order; the database no id twice."""
        made = ids_of(run)
        kafka = from_kafka(self._kafka.bootstrap_servers, "ev-telemetry", self.run_id, len(made))
        mqtt = self._mqtt.wait_for(len(made))
        database = from_database(self._database, self.run_id)
        for name, received in (("kafka", kafka), ("mqtt", mqtt), ("database", database)):
            mine = {identity for identity in received.ids if identity[0] == self.run_id}
            assert mine == made, f"{name}: {len(made - mine)} missing, {len(mine - made)} unknown"
            assert received.in_order(), name
        assert set(database.ids.values()) == {1}

    def close(self) -> None:
        self._mqtt.close()


def ids_of(run: Path) -> set[Identity]:
    table = pq.read_table(run / "telemetry", columns=["run_id", "vehicle_id", "seq"])
    rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    assert len(set(rows)) == len(rows)
    return set(rows)


@pytest.fixture
def sinks(
    kafka: Kafka, mosquitto: Mosquitto, postgres_database: str, unique_name: Callable[[str], str]
) -> Iterator[Sinks]:
    sinks = Sinks(kafka, mosquitto, postgres_database, unique_name("run"))
    yield sinks
    sinks.close()
    kafka.empty()


def test_all_sinks_hold_what_the_log_holds(sinks: Sinks, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with Fleet(vehicles=VEHICLES, shards=3, predict=False, out=run, **sinks.settings) as fleet:
        fleet.run("10min")
    assert len(ids_of(run)) == VEHICLES * 300
    sinks.assert_equal_to(run)
    status = fleet.status()
    assert {sink.name: sink.delivered["telemetry"] for sink in status.sinks} == dict.fromkeys(
        ("kafka", "mqtt", "timescale"), VEHICLES * 300
    )
    assert status.backlog == 0


def test_the_same_run_twice_is_stored_once(postgres_database: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        with Fleet(
            vehicles=5, shards=1 if name == "one" else 2, predict=False, out=tmp_path / name,
            timescale=postgres_database, duration="1min",
        ) as fleet:  # fmt: skip
            fleet.run("1min")
    assert fleet.status().sinks[0].duplicates == 150
    assert len(from_database(postgres_database, fleet.run_id).ids) == 150


@pytest.mark.parametrize("absent", ["kafka", "mosquitto", "postgres"])
def test_a_server_that_is_down_at_the_start(
    absent: str, sinks: Sinks, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue(absent)
    if isinstance(server, Mosquitto):
        server.wait_saved()  # the session of the witness
    server.kill()
    run = tmp_path / "run"
    try:
        with Fleet(vehicles=10, shards=1, predict=False, out=run, **sinks.settings) as fleet:
            assert len(fleet.warnings) == 1
            assert "the run goes on" in fleet.warnings[0]
            fleet.run("2min")
            server.restart()
            fleet.run("2min")
    finally:
        if not server.running:
            server.restart()
    assert len(ids_of(run)) == 10 * 120
    sinks.assert_equal_to(run)


def test_predictions_are_delivered_too(
    sinks: Sinks, tmp_path: Path, free_port: int, kafka: Kafka, postgres_database: str
) -> None:
    run = tmp_path / "run"
    with Fleet(vehicles=10, shards=2, out=run, rest_port=free_port, **sinks.settings) as fleet:
        fleet.run("2min")
    table = pq.read_table(run / "predictions", columns=["run_id", "vehicle_id", "seq"])
    made = set(zip(*(column.to_pylist() for column in table.columns), strict=True))
    assert len(made) == table.num_rows == 10 * 24
    assert set(from_kafka(kafka.bootstrap_servers, "ev-predictions", sinks.run_id, len(made)).ids) == made
    assert set(from_database(postgres_database, sinks.run_id, "predictions").ids) == made


def test_a_shipper_killed_in_mid_run_goes_on_from_its_cursors(sinks: Sinks, tmp_path: Path) -> None:
    killed: list[int] = []
    run = tmp_path / "run"
    with Fleet(vehicles=VEHICLES, shards=2, pace=60, predict=False, out=run, **sinks.settings) as fleet:

        def shippers() -> list[int]:
            return [pid for name, pids in fleet.processes().items() if name != "shard" for pid in pids]

        def kill(_: FleetStatus) -> None:
            if not killed:
                killed.extend(shippers())
                for pid in killed:
                    os.kill(pid, signal.SIGKILL)

        while len(shippers()) < 3:
            fleet.run("30s")
        fleet.run("4min", kill)
    assert len(killed) == 3
    sinks.assert_equal_to(run)


def test_a_wrong_password_ends_the_run_before_it_begins(postgres: Postgres, tmp_path: Path) -> None:
    url = f"postgresql://twin:wrong-{postgres.password}@127.0.0.1:{postgres.port}/twin_data"
    with pytest.raises(BadInput, match=r"--timescale: .* refused us: password authentication failed") as error:
        Fleet(vehicles=1, predict=False, out=tmp_path / "run", timescale=url).start()
    assert postgres.password not in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_values_survive_the_way_to_the_database(postgres_database: str, tmp_path: Path) -> None:
    """Not only ids: every value of every column reads back from the database as it stands in the log."""
    import psycopg2

    run = tmp_path / "run"
    with Fleet(vehicles=4, shards=1, predict=False, out=run, timescale=postgres_database) as fleet:
        fleet.run("1min")
    table = records(run)
    connection = psycopg2.connect(postgres_database)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT {', '.join(table.column_names)} FROM telemetry ORDER BY vehicle_id, seq")
            rows = cursor.fetchall()
    finally:
        connection.close()
    for name, stored in zip(table.column_names, zip(*rows, strict=True), strict=True):
        column = table.column(name)
        if pa.types.is_float32(column.type):
            assert pa.array(stored, pa.float32()).equals(column.combine_chunks()), name
        else:
            assert list(stored) == column.to_pylist(), name
