"""TLS with certificates of both sides, users, passwords and rights, against the real servers: let in, and refused."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import ray

from actors.delivery.sinks import SinkError, SinkOptions, SinkRefused, Target
from actors.delivery.sinks.kafka import KafkaTarget
from actors.delivery.sinks.mqtt import MqttTarget
from actors.delivery.sinks.timescale import TimescaleTarget
from tests.command import Twin, environment
from tests.services.fixtures import needed
from tests.services.secured import PASSWORD, Authority, SecuredKafka, SecuredMosquitto, SecuredPostgres
from tests.support import HANG_S, make_batch, wait_until
from twin.commands.archive import archive_until
from twin.folders import ROOT

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]


@dataclass
class Secured:
    """The servers, and where everything is."""

    kafka: SecuredKafka
    mosquitto: SecuredMosquitto
    postgres: SecuredPostgres
    old_postgres: SecuredPostgres
    ours: Authority
    others: Authority
    folder: Path

    def kafka_file(self, name: str = "client", **more: str) -> Path:
        """A file of properties that lets us in, changed by `more` (`_` for `.`); "" leaves one out."""
        folder = self.ours.folder
        properties = {
            "security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "twin",
            "sasl.password": PASSWORD, "ssl.ca.location": self.ours.ca, "ssl.key.location": folder / "twin.key",
            "ssl.certificate.location": folder / "twin.pem",
        } | {key.replace("_", "."): value for key, value in more.items()}  # fmt: skip
        path = self.folder / f"{name}.properties"
        path.write_text("# of a test\n\n" + "".join(f"{key}={value}\n" for key, value in properties.items() if value))
        return path

    def mqtt_url(self, **more: Any) -> str:
        parts: dict[str, Any] = {
            "password": PASSWORD,
            "port": self.mosquitto.secured,
            "ca": self.ours.ca,
            "of": self.ours,
        } | more
        files = f"?cafile={parts['ca']}" if parts["ca"] else ""
        if parts["of"]:
            folder = parts["of"].folder
            files += f"{'&' if files else '?'}certfile={folder / 'twin.pem'}&keyfile={folder / 'twin.key'}"
        return f"mqtts://twin:{parts['password']}@127.0.0.1:{parts['port']}{files}"

    def database_url(self, **more: Any) -> str:
        parts: dict[str, Any] = {"server": self.postgres, "password": "", "ca": self.ours.ca, "of": self.ours} | more
        url = parts["server"].url()
        if parts["password"]:
            url = url.replace(parts["server"].password, parts["password"])
        folder = parts["of"].folder if parts["of"] else Path("/nowhere")
        own = f"&sslcert={folder / 'twin.pem'}&sslkey={folder / 'twin.key'}"
        return f"{url}?sslmode=verify-full&sslrootcert={parts['ca']}{own}"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    folder.chmod(0o755)
    ours, others = Authority(folder / "ours"), Authority(folder / "others")
    for authority in (ours, others):
        authority.issue("server")
        authority.issue("old", days=-1)
        authority.issue("twin")
    servers = Secured(
        SecuredKafka(ours), SecuredMosquitto(ours), SecuredPostgres(ours), SecuredPostgres(ours, "old"), ours, others,
        folder,
    )  # fmt: skip
    started = (servers.kafka, servers.mosquitto, servers.postgres, servers.old_postgres)
    try:
        with needed():
            for service in started:
                service.start()
        for service in started:
            service.wait_ready()
        yield servers
    finally:
        for service in started:
            service.remove()


def kafka(secured: Secured, servers: str = "", **more: str) -> Target:
    config = str(secured.kafka_file("changed", **more))
    return KafkaTarget.parse(servers or secured.kafka.secured, SinkOptions(kafka_config=config))


def mqtt(secured: Secured, **more: Any) -> Target:
    return MqttTarget.parse(secured.mqtt_url(**more), SinkOptions())


def database(secured: Secured, **more: Any) -> Target:
    return TimescaleTarget.parse(secured.database_url(**more), SinkOptions())


@pytest.mark.parametrize("of", [kafka, mqtt, database])
def test_whoever_belongs_gets_in(of: Callable[[Secured], Target], secured: Secured) -> None:
    assert of(secured).check()


REFUSED: list[tuple[str, Callable[[Secured], Target], str]] = [
    ("kafka, another authority", lambda s: kafka(s, ssl_ca_location=str(s.others.ca)), "certificate verify failed"),
    ("kafka, out of date", lambda s: kafka(s, s.kafka.expired), "certificate verify failed"),
    ("kafka, wrong password", lambda s: kafka(s, sasl_password="other"), "check user, password"),
    ("kafka, no certificate", lambda s: kafka(s, ssl_key_location="", ssl_certificate_location=""), "certificate"),
    ("mqtt, another authority", lambda s: mqtt(s, ca=s.others.ca), "not trusted"),
    ("mqtt, the system's authorities", lambda s: mqtt(s, ca=None), "not trusted"),
    ("mqtt, out of date", lambda s: mqtt(s, port=s.mosquitto.expired), "not trusted (certificate has expired)"),
    ("mqtt, wrong password", lambda s: mqtt(s, password="other"), "check user and password"),
    ("mqtt, no certificate", lambda s: mqtt(s, of=None), "does it ask for a certificate"),
    ("mqtt, a certificate of others", lambda s: mqtt(s, of=s.others), "MQTT at"),
    ("mqtt, no such file", lambda s: mqtt(s, ca="/nowhere/ca.pem"), "/nowhere/ca.pem"),
    ("database, another authority", lambda s: database(s, ca=s.others.ca), "certificate verify failed"),
    ("database, out of date", lambda s: database(s, server=s.old_postgres), "certificate"),
    ("database, wrong password", lambda s: database(s, password="other"), "password authentication failed"),
    ("database, no certificate", lambda s: database(s, of=None), "certificate"),
]


@pytest.mark.parametrize(("of", "says"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_whoever_does_not_is_told_why(of: Callable[[Secured], Target], says: str, secured: Secured) -> None:
    with pytest.raises(SinkError) as refused:
        of(secured).check()
    said = str(refused.value)
    assert says in said
    assert "\n" not in said
    assert PASSWORD not in said
    assert secured.postgres.password not in said


def test_whoever_may_not_write_is_refused(secured: Secured, twin: Twin, tmp_path: Path) -> None:
    """A user whom no rule of the broker knows."""
    target = kafka(secured, sasl_username="stranger")
    assert target.check()  # one may look who is there
    sink = target.sink("run-x", "telemetry")
    try:
        sink.open()
        with pytest.raises(SinkRefused, match="access rights"):
            sink.deliver(0, make_batch(2, range(2)), 4)
    finally:
        sink.close()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("security.protocol", "line 1: expected name=value"),
        ("linger.ms=5\nacks=0\n", "line 2: acks is set by the twin, whose guarantees need it; leave it out"),
        ("sasl.pasword=hush\n", 'No such configuration property: "sasl.pasword"'),
        ("security.protocol=hush\n", 'Invalid value "***" for configuration property "security.protocol"'),
        ("ssl.ca.location=/nowhere/ca.pem\nsecurity.protocol=SSL\n", "ssl.ca.location"),
    ],
)
def test_properties_that_are_none(content: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "client.properties"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"^.*$") as wrong:
        KafkaTarget.parse("127.0.0.1:9", SinkOptions(kafka_config=str(path)))
    assert says in str(wrong.value)
    assert "hush" not in str(wrong.value).replace("pasword", "")


@pytest.mark.parametrize(
    "url",
    ["mqtt://h?cafile=x", "mqtts://h?cafile=", "mqtts://h?capath=x", "mqtts://h?certfile=x", "mqtts://h?keyfile=x"],
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        MqttTarget.parse(url, SinkOptions())


def test_an_address_comes_back_whole() -> None:
    target = MqttTarget.parse("mqtts://me:a%2Fb@h?cafile=/a%20b/ca.pem&certfile=/c&keyfile=/k", SinkOptions())
    assert (target.port, target.cafile) == (8883, "/a b/ca.pem")
    assert MqttTarget.parse(target.url, SinkOptions()) == target


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
def test_a_run_leaves_its_secrets_nowhere(secured: Secured, twin: Twin, tmp_path: Path) -> None:
    """Delivered to all three, counted there by others, aggregated; and no file holds a password."""
    run, archive, archived = tmp_path / "run", tmp_path / "archive", threading.Event()
    servers = ("--kafka", secured.kafka.secured, "--kafka-config", str(secured.kafka_file()),
               "--mqtt", secured.mqtt_url(), "--timescale", secured.database_url())  # fmt: skip
    listener = threading.Thread(target=archive_until, args=(secured.mqtt_url(), archive, "canary", archived, "1min"))
    listener.start()
    try:
        wait_until(lambda: (archive / "messages.jsonl").exists() or any(archive.glob("*")), look_s=0.1)
        options = ("--vehicles", "20", "--duration", "30s", "--no-predict", "--metrics-port", "0", "--no-report")
        answer = twin("run", "--out", run, *options, *servers)
        assert answer.code == 0, answer.err
    finally:
        archived.set()
        listener.join()
    assert twin("doctor", *servers, "--metrics-port", "0").out.count("ok ") >= 7
    counted = twin("ledger", run, "--verify", "--archive", archive, *servers)
    assert counted.code == 0, counted.out + counted.err
    aggregated = twin("consume", *servers[:4], *servers[6:], "--until-idle", "3s", "--metrics-port", "0")
    assert aggregated.code == 0, aggregated.err
    with psycopg2.connect(secured.database_url()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        assert cursor.fetchone() == (True,)
        cursor.execute("SELECT sum(records) FROM fleet_minute")
        assert cursor.fetchone() == (300,)
    connection.close()

    session = Path(ray.get_runtime_context().worker.node.get_session_dir_path())
    settings = json.loads((run / "run.json").read_text())["settings"]
    assert settings["kafka_config"].endswith("client.properties")
    canaries = (PASSWORD.encode(), secured.postgres.password.encode())
    for folder in (run, session):
        for file in folder.rglob("*"):
            if file.is_file() and not file.is_symlink():
                assert not any(canary in file.read_bytes() for canary in canaries), file
    for text in (answer, counted, aggregated):
        assert not any(canary.decode() in text.out + text.err for canary in canaries)


def test_by_the_environment(secured: Secured, tmp_path: Path) -> None:
    """As libpq's and Mosquitto's clients are told."""
    folder = secured.ours.folder
    told = {
        "KAFKA_BOOTSTRAP_SERVERS": secured.kafka.secured,
        "TWIN_KAFKA_CONFIG": str(secured.kafka_file()),
        "MQTT_HOST": "127.0.0.1",
        "MQTT_PORT": str(secured.mosquitto.secured),
        "MQTT_USER": "twin",
        "MQTT_PASSWORD": PASSWORD,
        "MQTT_CAFILE": str(secured.ours.ca),
        "MQTT_CERTFILE": str(folder / "twin.pem"),
        "MQTT_KEYFILE": str(folder / "twin.key"),
        "PG_HOST": "127.0.0.1",
        "PG_PORT": str(secured.postgres.port),
        "PG_PASSWORD": secured.postgres.password,
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": str(secured.ours.ca),
        "PGSSLCERT": str(folder / "twin.pem"),
        "PGSSLKEY": str(folder / "twin.key"),
        "TWIN_METRICS_PORT": "0",
    }
    done = subprocess.run(
        [sys.executable, "-m", "twin", "doctor"],
        capture_output=True, text=True, cwd=ROOT, env=environment(**told), timeout=HANG_S,
    )  # fmt: skip
    found = {line.split()[1]: line.split()[0] for line in done.stdout.splitlines()}
    assert [found[name] for name in ("kafka", "mqtt", "timescale")] == ["ok", "ok", "ok"], done.stdout
