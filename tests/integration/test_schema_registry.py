"""Avro with a schema registry: written in Confluent's wire format, read by Confluent's own client and by ours."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from confluent_kafka import Consumer
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from actors.aggregates.consumer import ConsumePlan, FleetConsumer
from actors.delivery.sinks import SinkOptions, SinkRefused, SinkUnavailable
from actors.delivery.sinks.kafka import KafkaSink, KafkaTarget
from actors.delivery.sinks.timescale import TimescaleTarget
from datasets.codec import decode, schema_number
from datasets.schema import avro_schema
from tests.command import Twin
from tests.services import Kafka
from tests.services.base import free_ports
from tests.services.fixtures import needed
from tests.services.schema_registry import SchemaRegistry
from tests.services.secured import Authority
from tests.support import HANG_S, make_batch

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    authority = Authority(tmp_path_factory.mktemp("ours"))
    authority.issue("server")
    return authority


@pytest.fixture(scope="module")
def registry(ours: Authority) -> Iterator[SchemaRegistry]:
    server = SchemaRegistry(certificate=ours.folder / "server.pem")
    try:
        with needed():
            server.start()
        yield server.wait_ready()
    finally:
        server.remove()


@pytest.fixture
def client(registry: SchemaRegistry, ours: Authority) -> SchemaRegistryClient:
    return SchemaRegistryClient({"url": registry.url, "ssl.ca.location": str(ours.ca)})


def properties(folder: Path, url: str, **more: object) -> Path:
    path = folder / "client.properties"
    lines = {"schema.registry.url": url} | {name.replace("_", "."): value for name, value in more.items()}
    path.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
    return path


@pytest.fixture
def file(registry: SchemaRegistry, ours: Authority, tmp_path: Path) -> Path:
    return properties(tmp_path, registry.url, schema_registry_ssl_ca_location=ours.ca)


def target_of(address: str, file: Path, payload: Any = "avro") -> KafkaTarget:
    return KafkaTarget.parse(address, SinkOptions(kafka_config=str(file), payload=payload))


def values(kafka: Kafka, topic: str, count: int) -> list[bytes]:
    consumer = Consumer(
        {"bootstrap.servers": kafka.bootstrap_servers, "group.id": f"of-{topic}", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([topic])
    try:
        found: list[bytes] = []
        while len(found) < count:
            [message] = consumer.consume(1, timeout=HANG_S)
            found.append(message.value() or b"")
        return found
    finally:
        consumer.close()


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
def test_a_run_is_read_by_confluents_client_and_by_ours(
    kafka: Kafka, file: Path, client: SchemaRegistryClient, postgres_database: str, twin: Twin, tmp_path: Path
) -> None:
    address, run = f"{kafka.bootstrap_servers}/registered.", tmp_path / "run"
    servers = ("--kafka", address, "--kafka-config", file)
    made = twin("run", "--vehicles", 5, "--duration", "2min", "--payload", "avro", "--metrics-port", 0, "--out", run,
                "--no-predict", "--no-report", *servers)  # fmt: skip
    assert made.code == 0, made.err
    assert client.get_versions("registered.ev-telemetry-value") == [1]
    messages = values(kafka, "registered.ev-telemetry", 300)
    read = AvroDeserializer(client)
    context = SerializationContext("registered.ev-telemetry", MessageField.VALUE)
    records = [read(message, context) for message in messages]
    assert {record["vehicle_id"] for record in records} == {f"EV-00000{number}" for number in range(5)}
    assert sorted(record["seq"] for record in records if record["vehicle_id"] == "EV-000003") == list(range(60))
    assert twin("ledger", run, "--verify", *servers).code == 0
    stored = ("--timescale", postgres_database, "--metrics-port", 0, "--until-idle", "3s")
    aggregated = twin("consume", *servers, *stored, "--group", "with")
    assert aggregated.code == 0, aggregated.err
    assert "300 records" in aggregated.out
    assert "malformed    0" in aggregated.out
    with psycopg2.connect(postgres_database) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT sum(records) FROM fleet_minute")
        assert cursor.fetchone() == (300,)
    connection.close()
    # Without the registry nothing is lost: each goes to the dead letters, with what is to be done.
    plain = twin("consume", *servers[:2], *stored, "--group", "without", "--output", "other")
    assert "malformed    300" in plain.out
    assert set(values(kafka, "registered.ev-telemetry-dlq", 300)) == set(messages)
    with pytest.raises(ValueError, match=r"number \d+ of a registry; name it by schema.registry.url"):
        decode(messages[0], "telemetry")


def test_an_older_version_in_the_registry_gets_ours_as_its_next_one(
    kafka: Kafka, file: Path, client: SchemaRegistryClient
) -> None:
    """Under the strictest rule: whoever has either schema reads what was written with the other."""
    subject = "evolved.ev-telemetry-value"
    newest = avro_schema("telemetry")
    older = newest | {"fields": [field for field in newest["fields"] if "default" not in field]}
    assert len(older["fields"]) < len(newest["fields"])
    client.register_schema(subject, Schema(json.dumps(older), "AVRO"))
    client.set_compatibility(subject, "FULL")
    sink = target_of(f"{kafka.bootstrap_servers}/evolved.", file).sink("log", "telemetry")
    try:
        sink.open()
        sink.open()
        sink.deliver(0, make_batch(2, range(1)), 2)
    finally:
        sink.close()
    assert client.get_versions(subject) == [1, 2]
    number = client.get_latest_version(subject).schema_id
    assert {schema_number(value) for value in values(kafka, "evolved.ev-telemetry", 2)} == {number}


def test_a_schema_that_does_not_fit_is_refused_and_written_nowhere(
    kafka: Kafka, file: Path, client: SchemaRegistryClient
) -> None:
    subject = "other.ev-telemetry-value"
    theirs = {"type": "record", "name": "telemetry", "namespace": "evtwin", "fields": [{"name": "x", "type": "long"}]}
    client.register_schema(subject, Schema(json.dumps(theirs), "AVRO"))
    client.set_compatibility(subject, "FULL")
    sink = target_of(f"{kafka.bootstrap_servers}/other.", file).sink("log", "telemetry")
    try:
        with pytest.raises(
            SinkRefused, match=r"^the schema registry at .* refused us the schema of other.ev-telemetry"
        ):
            sink.open()
    finally:
        sink.close()


def test_doctor_and_who_is_not_trusted(
    kafka: Kafka, file: Path, registry: SchemaRegistry, ours: Authority, tmp_path: Path
) -> None:
    assert target_of(kafka.bootstrap_servers, file).certificates() == [str(ours.ca)]
    said = target_of(kafka.bootstrap_servers, file).check()
    assert f"; the schema registry at {registry.url}: " in said
    assert "registry" not in target_of(kafka.bootstrap_servers, file, "json").check()
    others = Authority(tmp_path / "others")
    changed = properties(tmp_path, registry.url, schema_registry_ssl_ca_location=others.ca)
    with pytest.raises(SinkRefused, match="is not trusted"):
        target_of(kafka.bootstrap_servers, changed).check()


def test_messages_wait_for_a_registry_that_is_away(
    kafka: Kafka, file: Path, ours: Authority, postgres_database: str, tmp_path: Path
) -> None:
    """A consumer neither drops nor buries what it cannot read yet."""
    topic = f"{kafka.bootstrap_servers}/away."
    sink = target_of(topic, file).sink("log", "telemetry")
    sink.open()
    sink.deliver(0, make_batch(3, range(10)), 30)
    sink.close()
    server = SchemaRegistry(certificate=ours.folder / "server.pem")
    away = target_of(topic, properties(tmp_path, server.url, schema_registry_ssl_ca_location=ours.ca))
    with pytest.raises(SinkUnavailable, match="does not answer"):
        KafkaSink(away, "log", "telemetry").open()
    database = TimescaleTarget.parse(postgres_database, SinkOptions())
    plan = ConsumePlan(
        away, database, group="away", topic="away.ev-telemetry", output="away.minute", lateness_s=10.0, idle_s=3.0,
        until_idle_s=3.0, max_open=1000,
    )  # fmt: skip
    said: list[str] = []
    waits = threading.Event()

    def say(line: str) -> None:
        said.append(line)
        if "schema registry" in line:
            waits.set()

    consumer, stop = FleetConsumer(plan, say), threading.Event()
    thread = threading.Thread(target=consumer.run, args=(stop,))
    thread.start()
    try:
        assert waits.wait(HANG_S), said
        assert consumer.windows.counts.counted == consumer.windows.counts.malformed == 0
        with needed():
            server.start().wait_ready()
        again = target_of(topic, properties(tmp_path, server.url, schema_registry_ssl_ca_location=ours.ca))
        again.sink("log", "telemetry").open()  # the same schema has the same number: it is the first of either
        thread.join(HANG_S)
        assert consumer.windows.counts.counted + consumer.windows.counts.malformed == 30
    finally:
        stop.set()
        thread.join()
        server.remove()


@contextmanager
def answering(status: int, seen: list[str]) -> Iterator[str]:
    """A registry that says no."""

    class No(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization", ""))
            body = json.dumps({"error_code": status, "message": "no"}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    [port] = free_ports(1)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), No)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(
    ("status", "kind"), [(401, SinkRefused), (403, SinkRefused), (503, SinkUnavailable), (429, SinkUnavailable)]
)
def test_a_user_is_named_and_no_password_is_said(
    status: int, kind: type[Exception], kafka: Kafka, tmp_path: Path
) -> None:
    """As in a file that Confluent Cloud hands out."""
    seen: list[str] = []
    with answering(status, seen) as url:
        file = properties(
            tmp_path, url, basic_auth_credentials_source="USER_INFO", basic_auth_user_info="twin:canary", linger_ms=10
        )
        with pytest.raises(kind) as refused:
            target_of(kafka.bootstrap_servers, file).check()
    assert seen == ["Basic dHdpbjpjYW5hcnk="]
    assert "canary" not in str(refused.value)
    assert str(status) in str(refused.value)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("schema.registry.ssl.ca.location=/nowhere/ca.pem", "expected schema.registry.url beside"),
        ("schema.registry.url=registry:8081", "Invalid url"),
        ("schema.registry.url=http://h\nschema.registry.colour=red", "Unrecognized properties: colour"),
        ("schema.registry.url=https://h\nschema.registry.ssl.ca.location=/nowhere/ca.pem", "No such file"),
        ("schema.registry.url=http://h\nbasic.auth.user.info=hush", "must be in the form"),
        ("schema.registry.url=http://h\nbasic.auth.credentials.source=SASL_INHERIT", "expected USER_INFO or URL"),
    ],
)
def test_properties_that_are_none(lines: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "client.properties"
    path.write_text(lines)
    with pytest.raises(ValueError, match=says) as wrong:
        target_of("127.0.0.1:9", path)
    assert "\n" not in str(wrong.value)
    assert "hush" not in str(wrong.value)
    assert str(path) in str(wrong.value)
