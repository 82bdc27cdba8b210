"""A fleet under load on all three sinks, with an archive listening; a fault in the middle; the books at the end."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from actors.delivery.sinks import SinkOptions
from actors.delivery.sinks.mqtt import MqttTarget
from actors.fleet.status import FleetStatus, SinkStatus
from datasets.names import Payload
from tests.services import Kafka, Mosquitto
from tests.services.base import free_ports
from tests.services.replicated import KafkaCluster
from tests.support import HANG_S
from twin import Fleet
from twin.books.archive import Archive
from twin.books.ledger import Books, Ledger, table, verify

VEHICLES = 60
PACE = 30.0
RECORDS_A_SECOND = VEHICLES * PACE / 2.0
_POLL_S = 0.05


class Running:
    """A fleet that runs in the background while the test breaks things."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self._failed: list[BaseException] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.fleet.run("1d", stop=self._stop)
        except BaseException as error:
            self._failed.append(error)

    def stop(self) -> None:
        """Make no more records."""
        self._stop.set()
        self._thread.join()
        if self._failed:
            raise self._failed[0]

    def until(self, what: str, holds: Callable[[FleetStatus], bool]) -> None:
        """Wait for a state of the fleet; a failure that says what did not come."""
        deadline = time.monotonic() + HANG_S
        while not holds(status := self.fleet.status()):
            if self._failed:
                raise self._failed[0]
            assert time.monotonic() < deadline, f"{what} did not come; the fleet: {status}"
            time.sleep(_POLL_S)

    def on(self, seconds: float = 60.0) -> None:
        """Until so much more is simulated."""
        goal = self.fleet.status().simulated_s + seconds
        self.until(f"simulated time {goal:.0f} s", lambda status: status.simulated_s >= goal)

    def waiting(self, part: str) -> None:
        """Until `part` says that it waits: the fault is felt."""
        self.until(f"a wait of {part}", lambda status: part in status.waiting)

    def piling_up(self, sink: str) -> None:
        """Until records of half a second and more wait for this sink."""
        self.until(f"a backlog of {sink}", lambda status: _backlog(status, sink) > RECORDS_A_SECOND / 2)

    def cut_off(self, sink: str, retries: int) -> None:
        """Until more than so many connections to this sink were given up."""
        self.until(f"a lost connection to {sink}", lambda status: _sink(status, sink).retries > retries)

    def flowing(self, sink: str) -> None:
        """Until this sink has taken all that is made by now, and waits for nothing."""
        made = sum(_sink(self.fleet.status(), sink).made.values())

        def flows(status: FleetStatus) -> bool:
            taken = sum(log.cursor.position for log in _sink(status, sink).logs)
            return sink not in status.waiting and taken >= made

        self.until(f"{sink} in flow", flows)

    def predicting(self) -> None:
        """Until the predictor has read all that is made by now."""
        made = self.fleet.status().records
        self.until("predictions", lambda status: status.records - status.predictor_backlog >= made)


def _sink(status: FleetStatus, name: str) -> SinkStatus:
    return next(sink for sink in status.sinks if sink.name == name)


def _backlog(status: FleetStatus, name: str) -> int:
    return sum(_sink(status, name).backlog.values())


class Scene:
    """Servers, an archive that has listened from the beginning, a run directory."""

    def __init__(
        self,
        kafka: Kafka | KafkaCluster,
        mosquitto: Mosquitto,
        database: str,
        folder: Path,
        run_id: str,
        payload: Payload,
    ) -> None:
        self.payload, self._rest_port = payload, free_ports(1)[0]
        self.kafka, self.mosquitto, self.database = kafka, mosquitto, database
        self.run = folder / "run"
        self.archive_folder = folder / "archive"
        self.urls = {
            "kafka": kafka.bootstrap_servers,
            "mqtt": f"mqtt://127.0.0.1:{mosquitto.port}",
            "timescale": database,
        }
        self.run_id = run_id
        self.recoveries: list[tuple[str, float]] = []
        self.archive = Archive(
            MqttTarget.parse(self.urls["mqtt"], SinkOptions()), self.archive_folder, f"archive-{run_id}", 0
        )
        self.archive.start()

    @property
    def settings(self) -> dict[str, Any]:
        """Of a fleet on all three sinks."""
        return {
            "vehicles": VEHICLES, "shards": 2, "pace": PACE, "checkpoint_every": "1min", "run_id": self.run_id,
            "out": str(self.run), "rest_port": self._rest_port, "payload": self.payload,
        } | self.urls  # fmt: skip

    @contextmanager
    def fleet(self, *, patience_s: float = 30.0, **settings: Any) -> Iterator[Running]:
        """Simulates in the background, all sinks in flow; leaving the block ends it, delivers, seals.

        `patience_s`: how long a sink waits for a peer that says nothing; a test need not wait for the real half minute.
        """
        whole = Fleet(**(self.settings | settings))
        whole._targets = tuple(replace(target, patience_s=patience_s) for target in whole._targets)  # type: ignore[type-var]
        with whole as fleet:
            running = Running(fleet)
            try:
                running.until(
                    "the first records at every sink",
                    lambda status: all(sink.delivered["telemetry"] for sink in status.sinks),
                )
                yield running
            finally:
                running.stop()

    @property
    def sinks(self) -> list[str]:
        """Options with the addresses, which hold a password that run.json does not."""
        return [part for name, url in self.urls.items() for part in (f"--{name}", url)]

    def command(self, *options: str) -> list[str]:
        """`twin run` of such a fleet."""
        return [
            sys.executable, "-m", "twin", "run", "--vehicles", f"{VEHICLES}", "--shards", "2", "--run-id", self.run_id,
            "--out", str(self.run), "--rest-port", f"{self._rest_port}", "--payload", self.payload,
            "--metrics-port", "0", "--quiet", "--no-report", *self.sinks, *options,
        ]  # fmt: skip

    def write_run(self, vehicles: int, seed: int) -> None:
        """run.json of a run whose parts the test starts itself."""
        settings = {"vehicles": vehicles, "seed": seed, "shards": 1, "duration": 600.0}
        run = {"run_id": self.run_id, "state": "finished", "settings": settings, "versions": {}, "period_s": 2.0}
        (self.run / "run.json").write_text(json.dumps(run))

    @contextmanager
    def recovery(self, what: str) -> Iterator[None]:
        """Times its block: from the fault's end (or the fault, where nothing is mended by hand) to normal flow."""
        began = time.monotonic()
        yield
        self.recoveries.append((what, time.monotonic() - began))

    def balance(self, **flags: Any) -> Ledger:
        """The ledger, verified: made is delivered, nothing is missing, nothing twice in the store."""
        deadline = time.monotonic() + HANG_S
        while True:
            ledger = verify(Books(self.run, self.urls | flags), self.archive_folder)
            # The broker may still be handing the last messages to the archive.
            late = [v for v in ledger.verified if not v.complete and v.sink == "mqtt" and not v.error]
            if not late or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        assert ledger.complete, "\n" + table(ledger)
        assert {peer.sink for peer in ledger.verified} - {"log"} == {"kafka", "mqtt", "timescale"}
        stored = next(peer for peer in ledger.verified if peer.sink == "timescale")
        assert all(count.repeated == 0 for count in stored.counts.values())
        return ledger

    def close(self) -> None:
        """Stop listening, and leave the broker as it was found."""
        self.archive.stop()
        self.kafka.empty()
