"""Servers that survive the loss of one: three Kafka brokers; PostgreSQL with a synchronous standby under Patroni."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import urllib.request
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import psycopg2
import yaml
from confluent_kafka import ElectionType, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.services.base import HOST, Service, ServiceFailed, apt_install, free_ports
from tests.services.kafka import Kafka
from tests.services.postgres import Postgres
from tests.support import wait_until

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


class _Broker(Kafka):
    """One of several; topics that make themselves have a replica on each, and want two that have taken a record."""

    number = 1
    voters = ""

    def _written(self, text: str) -> str:
        own = {"node.id": f"{self.number}", "controller.quorum.voters": self.voters}
        lines = [line for line in text.splitlines() if line.partition("=")[0] not in own and "replication" not in line]
        more = {
            "default.replication.factor": "3", "min.insync.replicas": "2", "offsets.topic.replication.factor": "3",
            "transaction.state.log.replication.factor": "3", "auto.leader.rebalance.enable": "false",
            "replica.lag.time.max.ms": "5000",
        }  # fmt: skip
        return "\n".join([*lines, *(f"{name}={value}" for name, value in (own | more).items())]) + "\n"


class KafkaCluster:
    """Three brokers, each a controller too; `bootstrap_servers` names all."""

    def __init__(self) -> None:
        self.brokers = [_Broker() for _ in range(3)]
        for number, broker in enumerate(self.brokers, 1):
            broker.number, broker.cluster = number, self.brokers[0].cluster
            broker.voters = ",".join(
                f"{other}@{HOST}:{voter.controller_port}" for other, voter in enumerate(self.brokers, 1)
            )

    install = _Broker.install

    def __enter__(self) -> Self:
        for broker in self.brokers:
            broker.start()
        for broker in self.brokers:
            broker.wait_ready()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for broker in self.brokers:
            broker.kill()
            broker.remove()

    @property
    def bootstrap_servers(self) -> str:
        return ",".join(broker.bootstrap_servers for broker in self.brokers)

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap_servers})

    def leaders(self, topic: str) -> dict[int, int]:
        """The leading broker of each partition, by their numbers."""
        found = self._admin().list_topics(topic, timeout=30).topics[topic]
        return {number: partition.leader for number, partition in found.partitions.items()}

    def moved(self, topic: str, lost: _Broker) -> None:
        """Wait until others lead all that `lost` led: a record may get through to the rest before that."""
        wait_until(
            lambda: lost.number not in self.leaders(topic).values(), lambda: f"{self.leaders(topic)}", look_s=0.2
        )

    def settle(self, topic: str) -> None:
        """Let each partition be led by the first of its replicas again, once all have caught up."""

        admin = self._admin()

        def whole() -> bool:
            found = admin.list_topics(topic, timeout=30).topics[topic].partitions.values()
            return all(len(partition.isrs) == 3 for partition in found)

        wait_until(whole, lambda: f"replicas of {topic} did not come back", look_s=0.2)
        first = {
            number: partition.replicas[0]
            for number, partition in admin.list_topics(topic, timeout=30).topics[topic].partitions.items()
        }
        admin.elect_leaders(ElectionType.PREFERRED, [TopicPartition(topic, number) for number in first]).result()
        wait_until(lambda: self.leaders(topic) == first, lambda: f"{self.leaders(topic)}, not {first}", look_s=0.2)

    def empty(self) -> None:
        """Nothing to do: it ends with its test."""


class Etcd(Service):
    """What Patroni keeps its leader in."""

    name = "etcd"

    @classmethod
    def install(cls) -> None:
        if shutil.which("etcd") is None:
            apt_install("etcd-server", "etcd")

    def environment(self) -> dict[str, str]:
        return {}

    def _prepare(self) -> None:
        [self._peers] = free_ports(1)

    def _command(self) -> list[str]:
        own, peers = f"http://{HOST}:{self.port}", f"http://{HOST}:{self._peers}"
        return [
            "etcd", "--data-dir", str(self.directory / "data"), "--listen-client-urls", own,
            "--advertise-client-urls", own, "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers,
            "--initial-cluster", f"default={peers}", "--unsafe-no-fsync",
        ]  # fmt: skip

    def _check(self) -> None:
        with urllib.request.urlopen(f"http://{HOST}:{self.port}/health", timeout=5) as answer:
            if json.load(answer)["health"] != "true":
                raise ServiceFailed("etcd is not healthy")


class Patroni(Postgres):
    """One PostgreSQL and the Patroni that starts, promotes and demotes it."""

    name = "patroni"
    stop_signal = signal.SIGTERM

    def __init__(self, number: int, etcd: int, password: str) -> None:
        super().__init__()
        self._number, self._etcd, self._password = number, etcd, password
        [self.rest] = free_ports(1)

    @property
    def password(self) -> str:
        return self._password

    @classmethod
    def install(cls) -> None:
        Postgres.install()
        if shutil.which("patroni") is None:
            apt_install("patroni", "Patroni")
            apt_install("python3-psycopg2", "Patroni's driver")

    def _prepare(self) -> None:
        roles = {"superuser": "postgres", "replication": "replicator", "rewind": "rewinder"}
        config: dict[str, Any] = {
            "scope": "ev-twin",
            "name": f"member{self._number}",
            "restapi": {"listen": f"{HOST}:{self.rest}", "connect_address": f"{HOST}:{self.rest}"},
            "etcd3": {"host": f"{HOST}:{self._etcd}"},
            "bootstrap": {
                "dcs": {
                    "ttl": 20, "loop_wait": 2, "retry_timeout": 5, "synchronous_mode": True,
                    "postgresql": {"use_pg_rewind": True},
                },
                "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}],
            },
            "postgresql": {
                "listen": f"{HOST}:{self.port}",
                "connect_address": f"{HOST}:{self.port}",
                "data_dir": str(self._data),
                "bin_dir": str(Path(self._program("postgres")).parent),
                "pgpass": str(self.directory / "pgpass"),
                "authentication": {kind: {"username": name, "password": self.password} for kind, name in roles.items()},
                "parameters": {"unix_socket_directories": str(self.directory), "max_connections": 100},
                "pg_hba": [f"host {what} {HOST}/32 scram-sha-256" for what in ("replication replicator", "all all")],
            },
        }  # fmt: skip
        path = self.directory / "patroni.yml"
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(config))
        self._own(path)

    def _command(self) -> list[str]:
        return ["patroni", str(self.directory / "patroni.yml")]

    def _check(self) -> None:
        if self.role() not in ("leader", "sync_standby", "replica"):
            raise ServiceFailed("it has no role yet")

    def _settle(self) -> None:
        """What Patroni has made is all; users are the pair's."""

    def role(self) -> str:
        """What Patroni says it is; "" while it does not."""
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.rest}/cluster", timeout=5) as answer:
                members = json.load(answer)["members"]
        except (OSError, ValueError, KeyError):
            return ""
        return next((str(of["role"]) for of in members if of["name"] == f"member{self._number}" and
                     of["state"] in ("running", "streaming")), "")  # fmt: skip

    def kill(self) -> None:
        """Power off: Patroni, which would mend it, and PostgreSQL, which has a session of its own."""
        postmaster = self._data / "postmaster.pid"
        first = postmaster.read_text().split()[0] if postmaster.exists() else ""
        super().kill()
        children = Path(f"/proc/{first}/task/{first}/children")
        for pid in [first, *children.read_text().split()] if first and children.exists() else []:
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        wait_until(lambda: not (first and children.exists()), lambda: f"{first} survived")


class PostgresPair:
    """Two members, one of which leads and the other takes each commit before it is answered; their etcd."""

    def __init__(self) -> None:
        self._etcd = Etcd()
        password = secrets.token_urlsafe(18)
        self.members = [Patroni(number, self._etcd.port, password) for number in (1, 2)]

    @classmethod
    def install(cls) -> None:
        """What it is made of; ServiceUnavailable when that cannot be had."""
        for kind in (Etcd, Patroni):
            kind.install()

    def __enter__(self) -> Self:
        self._etcd.start().wait_ready()
        for member in self.members:
            member.start()
        wait_until(self.whole, lambda: [member.log.read_text()[-2000:] for member in self.members], look_s=0.2)
        with closing(self._admin()) as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE ROLE {Postgres.user} LOGIN CREATEDB PASSWORD %s", (self.password,))
            cursor.execute(f"CREATE DATABASE {Postgres.database} OWNER {Postgres.user}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for server in (*self.members, self._etcd):
            server.kill()
            server.remove()

    @property
    def password(self) -> str:
        return self.members[0].password

    @property
    def url(self) -> str:
        """Both members; who connects gets the one that takes writes."""
        servers = ",".join(f"{HOST}:{member.port}" for member in self.members)
        user = f"{Postgres.user}:{self.password}"
        return f"postgresql://{user}@{servers}/{Postgres.database}?target_session_attrs=read-write"

    def _admin(self) -> Connection:
        url = self.url.replace(f"{Postgres.user}:", "postgres:", 1).replace(f"/{Postgres.database}?", "/postgres?")
        connection = psycopg2.connect(url)
        connection.autocommit = True
        return connection

    def whole(self) -> bool:
        """Whether one leads and the other follows in step."""
        return sorted(member.role() for member in self.members) == ["leader", "sync_standby"]

    def leader(self) -> Patroni | None:
        """The member that leads, None while there is none."""
        return next((member for member in self.members if member.role() == "leader"), None)
