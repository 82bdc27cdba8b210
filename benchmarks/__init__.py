"""Measurements: each file prints ratios from one run against a named peer and writes JSON to `benchmarks/results/`.

The servers they need are real (`tests.services`), started here for each of them, and share the machine with what is
measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.services import Kafka, Mosquitto, Postgres, Service


@contextmanager
def server[S: Service](kind: type[S]) -> Iterator[S]:
    """One that answers, gone afterwards."""
    service = kind()
    try:
        yield service.start().wait_ready()
    finally:
        service.remove()


@dataclass(frozen=True)
class AllSinks:
    """A server for each sink: the settings of `twin run` that lead to them, and their processes by name."""

    settings: dict[str, str]
    pids: dict[str, int]


@contextmanager
def all_sinks() -> Iterator[AllSinks]:
    """Kafka, Mosquitto and PostgreSQL at once."""
    with server(Kafka) as kafka, server(Mosquitto) as mosquitto, server(Postgres) as postgres:
        settings = {
            "kafka": kafka.bootstrap_servers,
            "mqtt": f"mqtt://127.0.0.1:{mosquitto.port}",
            "timescale": postgres.url(),
        }
        yield AllSinks(settings, {service.name: service.pid for service in (kafka, mosquitto, postgres)})
