"""Servers that die, refuse or stand still."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator

import psycopg2
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource

from tests.faults.scene import Scene
from tests.services import Kafka, Postgres
from tests.services.proxy import Proxy

pytestmark = [
    pytest.mark.services,
    pytest.mark.cluster,
    pytest.mark.usefixtures("ray_cluster"),
    pytest.mark.timeout(600),
]


def test_broker_killed_and_restarted(scene: Scene, kafka: Kafka) -> None:
    with scene.fleet() as running:
        kafka.kill()
        running.piling_up("kafka")
        kafka.restart().wait_ready()
        with scene.recovery("Kafka killed and restarted"):
            running.flowing("kafka")
    scene.balance()


def test_broker_unreachable_for_longer_than_the_clients_timeouts(scene: Scene, kafka: Kafka) -> None:
    """Packets vanish: nothing is refused, nothing is answered, until the client's patience is at its end."""
    with Proxy(kafka.port) as proxy:
        address = f"127.0.0.1:{proxy.port}"
        with scene.fleet(kafka=address, patience_s=5.0) as running:
            proxy.stall()
            running.waiting("kafka")  # after KafkaTarget.patience_s
            proxy.cut()
            proxy.resume()
            with scene.recovery("Kafka unreachable for longer than the client's patience"):
                running.flowing("kafka")
        scene.balance(kafka=address)


def _accept(scene: Scene, oldest_ms: int) -> None:
    """How old a record may be for the broker to take it: with 0 it answers INVALID_TIMESTAMP to every one."""
    resource = ConfigResource(ConfigResource.Type.TOPIC, "ev-telemetry")
    resource.add_incremental_config(
        ConfigEntry("message.timestamp.before.max.ms", f"{oldest_ms}", incremental_operation=AlterConfigOpType.SET)
    )
    admin = AdminClient({"bootstrap.servers": scene.urls["kafka"]})
    for done in admin.incremental_alter_configs([resource]).values():
        done.result(10)


def test_broker_refuses_a_topic(scene: Scene) -> None:
    """It answers, and what it answers is no."""
    with scene.fleet() as running:
        _accept(scene, 0)
        try:
            running.waiting("kafka")
            running.piling_up("kafka")
        finally:
            _accept(scene, (1 << 63) - 1)
        with scene.recovery("Kafka refuses a topic, then takes it"):
            running.flowing("kafka")
    scene.balance()


def test_connection_cut_in_mid_copy(scene: Scene, postgres: Postgres) -> None:
    """Ten times, each in the middle of a COPY's bytes: nothing of that batch is in the store, or all of it."""
    with Proxy(postgres.port) as proxy:
        url = scene.database.replace(f":{postgres.port}/", f":{proxy.port}/")
        with scene.fleet(timescale=url) as running:
            longest = 0.0
            for number in range(10):
                retries = running.fleet.status().sinks[2].retries
                proxy.cut_after(2_000 + 3_000 * number)
                running.cut_off("timescale", retries)
                began = time.monotonic()
                running.flowing("timescale")
                longest = max(longest, time.monotonic() - began)
            scene.recoveries.append(("connection cut in mid-COPY, the longest of ten", longest))
        scene.balance(timescale=url)


def test_database_killed_and_restarted(scene: Scene, postgres: Postgres) -> None:
    with scene.fleet() as running:
        postgres.kill()
        running.waiting("timescale")
        running.piling_up("timescale")
        postgres.restart().wait_ready()
        with scene.recovery("database killed (SIGKILL) and restarted"):
            running.flowing("timescale")
    scene.balance()


@contextlib.contextmanager
def _administrator(postgres: Postgres) -> Iterator[psycopg2.extensions.cursor]:
    with contextlib.closing(postgres._admin()) as connection, connection.cursor() as cursor:
        yield cursor


def test_database_read_only(scene: Scene, postgres: Postgres) -> None:
    name = scene.database.rpartition("/")[2]
    with scene.fleet() as running:
        with _administrator(postgres) as cursor:
            cursor.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
            cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        running.waiting("timescale")
        running.piling_up("timescale")
        with _administrator(postgres) as cursor:
            cursor.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
        with scene.recovery("database read-only, then writable"):
            running.flowing("timescale")
    scene.balance()


def test_mqtt_broker_restarted_without_persistence(scene: Scene) -> None:
    """It forgets sessions and queues: what it had acknowledged last goes out again once its subscribers are back."""
    with scene.fleet() as running:
        scene.mosquitto.kill()
        shutil.rmtree(scene.mosquitto.directory / "data")
        (scene.mosquitto.directory / "data").mkdir()
        running.piling_up("mqtt")
        scene.mosquitto.restart().wait_ready()
        with scene.recovery("MQTT broker restarted without its memory"):
            running.flowing("mqtt")
    scene.balance()
