"""Apache Kafka 4.1.1, a single KRaft node, from its Maven jars (Java 17 or newer).

The clients are imported where they are used, so that `python -m tests.services status` needs only the standard library.
"""

from __future__ import annotations

import shutil
import uuid
import warnings
from base64 import urlsafe_b64encode
from functools import cached_property
from pathlib import Path
from string import Template

from tests.services.base import (
    HOST,
    Service,
    ServiceFailed,
    ServiceUnavailable,
    cache_folder,
    free_ports,
    install_once,
    run,
)

VERSION = "4.1.1"
_HERE = Path(__file__).parent


class Kafka(Service):
    """`bootstrap_servers` is what clients want. Topics make themselves, with four partitions."""

    name = "kafka"
    _jars = cache_folder() / f"kafka-{VERSION}"

    def __init__(self, *, tied: bool = True, directory: Path | None = None, port: int | None = None) -> None:
        super().__init__(tied=tied, directory=directory, port=port)
        self.cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")

    @cached_property
    def controller_port(self) -> int:
        return free_ports(1)[0]

    @property
    def bootstrap_servers(self) -> str:
        return f"{HOST}:{self.port}"

    def environment(self) -> dict[str, str]:
        return {"KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers}

    def empty(self) -> None:
        """Forget all telemetry and predictions. Whoever reads a topic from its beginning pays for what is in it."""
        from confluent_kafka import OFFSET_END, TopicPartition
        from confluent_kafka.admin import AdminClient

        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers})
        parts = [
            TopicPartition(topic.topic, number, OFFSET_END)
            for topic in admin.list_topics(timeout=30).topics.values()
            if topic.topic in ("ev-telemetry", "ev-predictions")
            for number in topic.partitions
        ]
        for future in admin.delete_records(parts).values() if parts else ():
            future.result()

    @classmethod
    def install(cls) -> None:
        if shutil.which("java") is None:
            raise ServiceUnavailable("Kafka needs Java 17 or newer; install it with: apt-get install default-jre")
        pom = _HERE / "pom.xml"
        with install_once(cls._jars, pom.read_bytes()) as folder:
            if folder is None:
                return
            if shutil.which("mvn") is None:
                raise ServiceUnavailable("Kafka comes through Maven; install it with: apt-get install maven")
            goal = "dependency:copy-dependencies"
            try:
                run(["mvn", "-q", "-B", "-C", "-f", str(pom), goal, f"-DoutputDirectory={folder}"])
            except ServiceFailed as error:
                raise ServiceUnavailable(f"Kafka {VERSION} could not be fetched through Maven: {error}") from error

    @property
    def _config(self) -> Path:
        return self.directory / "server.properties"

    def _java(self, main: str, *flags: str) -> list[str]:
        logging = f"-Dlog4j2.configurationFile={_HERE / 'log4j2.properties'}"
        common = ["-XX:+UseSerialGC", "-Xshare:auto", "-Djava.net.preferIPv4Stack=true", logging]
        return ["java", *flags, *common, "-cp", f"{self._jars}/*", main]

    def _prepare(self) -> None:
        if self._config.exists():
            return
        data = self.directory / "data"
        template = Template((_HERE / "server.properties").read_text())
        text = template.substitute(port=self.port, controller_port=self.controller_port, data=data)
        self._config.write_text(self._written(text))
        quick = ("-XX:TieredStopAtLevel=1", "-Xmx128m")
        storage_tool = self._java("kafka.tools.StorageTool", *quick)
        run([*storage_tool, "format", f"--cluster-id={self.cluster}", "-c", str(self._config), *self._format()])

    def _written(self, text: str) -> str:
        """The configuration, of its usual text."""
        return text

    def _format(self) -> list[str]:
        """What the storage is formatted with besides."""
        return []

    def _command(self) -> list[str]:
        return [*self._java("kafka.Kafka", "-Xms128m", "-Xmx384m"), str(self._config)]

    def _check(self) -> None:
        """A topic list from a broker that the controller has let in."""
        with warnings.catch_warnings():
            # kafka-python 3.0 reads its protocol files by importlib.resources.read_text, deprecated in Python 3.12.
            warnings.filterwarnings("ignore", "(read|open)_text is deprecated", DeprecationWarning)
            from kafka import KafkaAdminClient

            admin = KafkaAdminClient(bootstrap_servers=self.bootstrap_servers, request_timeout_ms=3000)
            try:
                admin.list_topics()
                brokers = admin.describe_cluster()["brokers"]
            finally:
                admin.close()
        if not brokers:
            raise ServiceFailed("the broker is not registered yet")
