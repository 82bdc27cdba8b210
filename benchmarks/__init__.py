"""Measurements. Each file compares us with a named peer in one run, prints ratios, and writes `benchmarks/results/`.

The servers are real (`tests.services`). Each benchmark starts its own, on the machine that is measured. Every file
takes `--quick`, which does everything once and small, to see that it runs. Its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.services import Kafka, Mosquitto, Postgres, Service

_RESULTS = Path(__file__).parent / "results"


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the flags that every benchmark has."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(
        "--quick", action="store_true", help="everything once and small, to see whether it runs, not how fast"
    )
    made.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="for the JSON [default: benchmarks/results; its folder quick with --quick]",
    )
    return made


@dataclass(frozen=True)
class Results:
    """The JSON file of a benchmark."""

    file: Path

    def earlier(self) -> dict[str, Any]:
        """What an earlier run left there; {} where none did."""
        found: dict[str, Any] = json.loads(self.file.read_text()) if self.file.exists() else {}
        return found

    def write(self, facts: Mapping[str, Any]) -> None:
        """Replace it, and say where it is."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(json.dumps(facts, indent=2) + "\n")
        print(f"written to {self.file}")


def results_of(name: str, arguments: argparse.Namespace) -> Results:
    """Where the results go, by the flags of `parser`. Quick results never overwrite real ones."""
    folder = arguments.out or (_RESULTS / "quick" if arguments.quick else _RESULTS)
    return Results(folder.absolute() / f"{name}.json")


@contextmanager
def server[S: Service](kind: type[S]) -> Iterator[S]:
    """A server that answers. It is stopped afterwards."""
    service = kind()
    try:
        yield service.start().wait_ready()
    finally:
        service.remove()


@dataclass(frozen=True)
class AllSinks:
    """One server for each sink: the settings of `twin run` that lead to it, and its processes by name."""

    settings: dict[str, Any]
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
