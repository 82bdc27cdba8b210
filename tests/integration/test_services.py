"""The real servers: each answers its protocol, keeps its data over a crash, listens on loopback only, is no orphan."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Literal

import paho.mqtt.client as mqtt
import psycopg2
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.services import (
    Kafka,
    Mosquitto,
    Postgres,
    Service,
    ServiceFailed,
    ServiceUnavailable,
    TimescaleDB,
    __main__,
    fixtures,
)
from tests.services.base import free_ports, install_once
from tests.support import HANG_S, wait_until

PROJECT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.services,
    # kafka-python 3.0 reads its protocol files in a way that Python 3.12 deprecates
    pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),
]
on_linux = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="looks into /proc")


# Kafka


def test_kafka_gives_back_what_it_got_even_after_a_crash(kafka: Kafka, kafka_topic: str) -> None:
    produce(kafka, kafka_topic, [b"1", b"2"])
    port, pid = kafka.port, kafka.pid
    kafka.kill()
    assert not alive(pid)
    kafka.restart()
    assert kafka.port == port
    assert kafka.pid != pid
    produce(kafka, kafka_topic, [b"3"])
    assert consume(kafka, kafka_topic, 3) == [b"1", b"2", b"3"]


def produce(kafka: Kafka, topic: str, values: list[bytes]) -> None:
    from kafka import KafkaProducer

    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap_servers, acks="all")
    for value in values:
        producer.send(topic, value, key=b"EV-000001").get(timeout=HANG_S)
    producer.close()


def consume(kafka: Kafka, topic: str, count: int) -> list[bytes]:
    from kafka import KafkaConsumer

    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=kafka.bootstrap_servers,
        group_id=f"group-{topic}",
        auto_offset_reset="earliest",
        consumer_timeout_ms=round(HANG_S * 1000),
    )
    values: list[bytes] = []
    for record in consumer:
        values.append(record.value)
        if len(values) == count:
            break
    consumer.close()
    return values


def test_kafka_topics_have_four_partitions(kafka: Kafka, kafka_topic: str) -> None:
    from kafka import KafkaConsumer

    produce(kafka, kafka_topic, [b"1"])
    consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap_servers)
    assert consumer.partitions_for_topic(kafka_topic) == {0, 1, 2, 3}
    consumer.close()


# Mosquitto


@pytest.mark.parametrize("transport", ["tcp", "websockets"])
def test_mosquitto_delivers(
    mosquitto: Mosquitto, transport: Literal["tcp", "websockets"], unique_name: Callable[[str], str]
) -> None:
    topic = unique_name("ev/battery/telemetry/EV-000001")
    with Subscriber(mosquitto, topic, transport=transport) as subscriber:
        publish(mosquitto, topic, [b"1", b"2"])
        assert subscriber.wait(2) == [b"1", b"2"]


def test_mosquitto_keeps_an_absent_subscribers_queue_over_a_restart(
    mosquitto: Mosquitto, unique_name: Callable[[str], str]
) -> None:
    topic, client_id = unique_name("queue"), unique_name("client")
    with Subscriber(mosquitto, topic, client_id=client_id):
        pass
    values = [b"%d" % number for number in range(2500)]  # more than any default bound
    publish(mosquitto, topic, values)
    port = mosquitto.port
    mosquitto.restart()
    assert mosquitto.port == port
    with Subscriber(mosquitto, topic, client_id=client_id) as subscriber:
        assert subscriber.wait(len(values)) == values


def publish(broker: Mosquitto, topic: str, values: list[bytes]) -> None:
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.max_inflight_messages_set(1000)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    for sent in [client.publish(topic, value, qos=1) for value in values]:
        sent.wait_for_publish(HANG_S)
        assert sent.is_published()
    client.disconnect()
    client.loop_stop()


class Subscriber:
    """QoS 1; with a client id, in a session that outlives the connection."""

    def __init__(
        self,
        broker: Mosquitto,
        topic: str,
        *,
        transport: Literal["tcp", "websockets"] = "tcp",
        client_id: str = "",
    ) -> None:
        self._got: list[bytes] = []
        self._changed = threading.Condition()
        self._subscribed = threading.Event()
        port = broker.port if transport == "tcp" else broker.websocket_port
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id, clean_session=not client_id, transport=transport
        )
        self._client.on_message = lambda _client, _data, message: self._add(bytes(message.payload))
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.connect("127.0.0.1", port)
        self._client.subscribe(topic, qos=1)

    def __enter__(self) -> Subscriber:
        self._client.loop_start()
        assert self._subscribed.wait(HANG_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _add(self, payload: bytes) -> None:
        with self._changed:
            self._got.append(payload)
            self._changed.notify_all()

    def wait(self, count: int) -> list[bytes]:
        with self._changed:
            self._changed.wait_for(lambda: len(self._got) >= count, HANG_S)
            return list(self._got)


# PostgreSQL


def test_postgres_keeps_committed_rows_over_a_crash(postgres: Postgres, postgres_database: str) -> None:
    execute(postgres_database, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (1), (2)")
    port, pid = postgres.port, postgres.pid
    postgres.kill()
    assert not alive(pid)
    postgres.restart()
    assert postgres.port == port
    assert execute(postgres_database, "SELECT n FROM kept ORDER BY n") == [(1,), (2,)]


def test_postgres_refuses_a_wrong_password(postgres: Postgres) -> None:
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(postgres.url().replace(postgres.password, "wrong"))


def test_postgres_user_is_no_superuser_and_owns_its_database(postgres: Postgres) -> None:
    roles = "SELECT rolname, rolsuper FROM pg_roles WHERE rolname = current_user"
    assert execute(postgres.url(), roles) == [("twin", False)]
    owner = "SELECT datname, datdba::regrole::text FROM pg_database WHERE datname = current_database()"
    assert execute(postgres.url(), owner) == [("twin_data", "twin")]


@pytest.mark.parametrize("_turn", [1, 2])
def test_postgres_database_is_empty_for_each_test(postgres_database: str, _turn: int) -> None:
    execute(postgres_database, "CREATE TABLE only_here (n int)")


# TimescaleDB


def test_timescaledb_has_its_extension_and_keeps_rows_over_a_restart(
    timescaledb: TimescaleDB, timescaledb_database: str
) -> None:
    [(version,)] = execute(timescaledb_database, "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'")
    assert str(version).startswith("2.23")
    execute(timescaledb_database, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (1)")
    port = timescaledb.port
    timescaledb.restart()
    assert timescaledb.port == port
    assert execute(timescaledb_database, "SELECT n FROM kept") == [(1,)]
    execute(
        timescaledb_database,
        "CREATE TABLE measured (ts timestamptz NOT NULL)",
        "SELECT create_hypertable('measured', by_range('ts'))",
        "ALTER TABLE measured SET (timescaledb.enable_columnstore)",
    )


def test_timescaledb_rolls_back_what_a_client_left_open(timescaledb_database: str) -> None:
    execute(timescaledb_database, "CREATE TABLE half (n int)")
    with closing(psycopg2.connect(timescaledb_database)) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO half VALUES (1)")
    assert execute(timescaledb_database, "SELECT n FROM half") == []


def execute(url: str, *statements: str) -> list[tuple[object, ...]]:
    """Run them; the rows of the last one."""
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


# All of them


@on_linux
@pytest.mark.parametrize("name", ["kafka", "mosquitto", "postgres", "prometheus", "timescaledb"])
def test_listens_on_loopback_only(name: str, request: pytest.FixtureRequest) -> None:
    service: Service = request.getfixturevalue(name)
    found = listening(service.pid)
    assert service.port in {port for _, port in found}
    assert {address for address, _ in found} == {"127.0.0.1"}


def listening(pid: int) -> set[tuple[str, int]]:
    """The TCP addresses on which a process accepts connections."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            inodes.add(os.readlink(link))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in inodes:
                address, port = local.split(":")
                found.add(("127.0.0.1" if address == "0100007F" else address, int(port, 16)))
    return found


@on_linux
@pytest.mark.parametrize("kind", [Mosquitto, Postgres])  # one as ourselves, one as another user
def test_no_server_survives_a_test_run_that_is_killed(kind: type[Service], request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(kind.name)  # skips where it cannot be had
    code = f"""
        import time
        from tests.services import {kind.__name__}
        service = {kind.__name__}().start().wait_ready()
        print(service.pid, flush=True)
        time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        pid = int(run.stdout.readline())
        assert alive(pid)
        run.kill()
    assert gone(pid)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pid: int) -> bool:
    wait_until(lambda: not alive(pid))
    return True


def test_a_missing_prerequisite_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    for kind, tool in ((Kafka, "Java"), (TimescaleDB, "Node.js")):
        with pytest.raises(ServiceUnavailable, match=f"needs {tool} .*; install it with: ") as caught:
            kind.install()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_a_missing_service_skips_at_the_desk_and_fails_in_ci(
    ci: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", ci)

    def missing(_: object) -> None:
        raise ServiceUnavailable("Kafka needs Java")

    monkeypatch.setattr(Kafka, "install", missing)
    with pytest.raises(outcome, match="Kafka needs Java"):
        next(fixtures._session(Kafka()))


def test_a_server_that_ends_at_once_shows_its_log(mosquitto: Mosquitto) -> None:
    second = Mosquitto(port=mosquitto.port)
    second.start()
    try:
        with pytest.raises(ServiceFailed, match=r"(?s)mosquitto ended while starting .*Address already in use"):
            wait_dead_then_ready(second)
    finally:
        second.remove()


def wait_dead_then_ready(service: Service) -> None:
    # The port answers, for the other one has it: wait for the end of ours first.
    assert gone(service.pid)
    service.wait_ready()


def test_an_interrupted_install_leaves_nothing_and_a_new_recipe_installs_again(tmp_path: Path) -> None:
    target = tmp_path / "thing-1"
    with pytest.raises(RuntimeError), install_once(target, b"recipe 1"):
        raise RuntimeError
    assert not target.exists()
    for recipe, installs in [(b"recipe 1", True), (b"recipe 1", False), (b"recipe 2", True)]:
        with install_once(target, recipe) as folder:
            assert (folder is not None) is installs
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["thing-1"]


def test_free_ports_are_distinct_and_not_ephemeral() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    bounds = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if bounds.exists():
        assert max(ports) < int(bounds.read_text().split()[0])


# The command


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-W", "error", "-m", "tests.services", *words, "--folder", str(folder)]
    return subprocess.run(line, cwd=PROJECT, capture_output=True, text=True, timeout=HANG_S)


def environment(folder: Path) -> dict[str, str]:
    lines = (folder / "env").read_text().splitlines()
    return dict(line.removeprefix("export ").split("=", 1) for line in lines)


@on_linux
def test_start_and_stop_from_the_command_line(
    tmp_path: Path, kafka: Kafka, mosquitto: Mosquitto, postgres: Postgres
) -> None:
    folder = tmp_path / ".services"
    try:
        started = command(folder, "start")
        assert (started.returncode, started.stderr) == (0, "")
        assert (folder / "env").stat().st_mode & 0o777 == 0o600
        env = environment(folder)
        pids = {name: int((folder / f"{name}.pid").read_text()) for name in ("kafka", "mosquitto", "postgres")}
        for name, pid in pids.items():
            assert f"{name}: started on 127.0.0.1:" in started.stdout
            assert alive(pid)
        expected = "KAFKA_BOOTSTRAP_SERVERS MQTT_HOST MQTT_PORT PG_HOST PG_PORT PG_USER PG_PASSWORD PG_DATABASE"
        assert env.keys() >= set(expected.split())
        url = "postgresql://{PG_USER}:{PG_PASSWORD}@{PG_HOST}:{PG_PORT}/{PG_DATABASE}".format(**env)
        assert execute(url, "SELECT 1") == [(1,)]

        again = command(folder, "start")
        assert again.returncode == 0
        assert again.stdout.count("already running") == started.stdout.count(": started on")
        assert environment(folder) == env

        os.kill(pids["mosquitto"], signal.SIGKILL)
        assert gone(pids["mosquitto"])
        assert "mosquitto: died" in command(folder, "status").stdout
        assert "mosquitto: started on" in command(folder, "start").stdout
        assert environment(folder) == env
        pids["mosquitto"] = int((folder / "mosquitto.pid").read_text())
        assert command(folder, "status").returncode == 0
    finally:
        everything = [int(path.read_text()) for path in folder.glob("*.pid")]
        stopped = command(folder, "stop")
    assert stopped.returncode == 0
    assert not [pid for pid in everything if alive(pid)]
    assert not folder.exists()
    assert command(folder, "stop").stdout == "no services were started\n"


@pytest.mark.usefixtures("mosquitto")
def test_one_service_can_be_started_alone(tmp_path: Path) -> None:
    folder = tmp_path / "services"
    try:
        started = command(folder, "start", "mosquitto")
        assert started.returncode == 0, started.stderr
        assert started.stdout.count(": started on") == 1
        assert set(environment(folder)) == {"MQTT_HOST", "MQTT_PORT"}
    finally:
        command(folder, "stop")
    assert "invalid choice: 'mosquito'" in command(folder, "start", "mosquito").stderr


@on_linux
def test_stop_leaves_a_process_alone_that_only_has_the_pid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        directory = tmp_path / "ev-twin-services-kafka"
        directory.mkdir()
        state = {"kafka": {"pid": stranger.pid, "port": 9092, "directory": str(directory)}}
        (tmp_path / "state.json").write_text(json.dumps(state))
        assert __main__.main(["stop", "--folder", str(tmp_path)]) == 0
        assert stranger.poll() is None
        stranger.kill()
    assert capsys.readouterr().out == "kafka: was not running\n"
