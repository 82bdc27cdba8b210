"""python -m tests.chaos [--seed N] [--minutes M]: faults at random, in an order that the seed decides, in a live run.

A fleet runs in real time on three nodes with disks of their own and delivers to Kafka, MQTT and PostgreSQL over links
that can be broken. Nodes, servers, replicas, links and disks fail; one may begin before the last is overcome.
At the end all is delivered and counted: exit code 0 if nothing is missing anywhere and nothing is twice in the store.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.faults.nodes import Nodes
from tests.faults.scene import Scene
from tests.services import Kafka, Mosquitto, Postgres
from tests.services.base import Service, free_ports
from tests.services.proxy import Proxy
from tests.support import HANG_S, wait_until

NODES = 3
_WARM_UP_S = 20.0
_BACKLOG = re.compile(r"^ev_sink_backlog_records\{[^}]*\} (\S+)$", re.MULTILINE)
_SIMULATED = re.compile(r"^ev_simulated_seconds (\S+)$", re.MULTILINE)
_LATE_S = 4.0  # two periods of telemetry


@dataclass(frozen=True)
class Fault:
    """One fault: what, of whom, how long it lasts, and how long until the next one begins, in seconds."""

    kind: str
    whom: int
    lasts: float
    pause: float


class Stage:
    """Everything that can fail, and how."""

    def __init__(self, stack: ExitStack, folder: Path, seed: int, vehicles: int, minutes: float) -> None:
        kafka, mosquitto, postgres = Kafka(), Mosquitto(), Postgres()
        self.servers: list[Service] = [kafka, mosquitto, postgres]
        for server in self.servers:
            stack.callback(server.remove)
            server.start().wait_ready()
        run_id = f"chaos-{seed}"
        self.scene = Scene(kafka, mosquitto, postgres.url(), folder, run_id, "json")
        stack.callback(self.scene.archive.stop)
        self.links = [stack.enter_context(Proxy(server.port)) for server in self.servers]
        urls = self.scene.urls
        for (name, url), server, link in zip(tuple(urls.items()), self.servers, self.links, strict=True):
            urls[name] = url.replace(f":{server.port}", f":{link.port}")
        self.nodes = stack.enter_context(Nodes(NODES, folder, self.scene.run))
        [self.metrics] = free_ports(1)
        command = [
            *(sys.executable, "-m", "twin", "run", "--vehicles", vehicles, "--shards", NODES, "--pace", 1, "--quiet"),
            *("--duration", f"{minutes:g}min", "--run-id", run_id, "--out", self.scene.run, "--no-report"),
            *("--metrics-port", self.metrics, "--rest-port", free_ports(1)[0], "--checkpoint-every", "20s"),
            *("--drain-timeout", "5min", "--address", self.nodes.address, *self.scene.sinks),
        ]
        self.log = folder / "twin.log"
        with open(self.log, "wb") as log:
            self.driver = subprocess.Popen(
                list(map(str, command)), stdout=log, stderr=log, env=self.nodes.environment, start_new_session=True
            )
        stack.callback(self.driver.kill)

    def look(self) -> tuple[float, float]:
        """The largest backlog of a sink, and what the last shard has simulated; nan while the run does not say."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics", timeout=5) as answer:
                said = answer.read().decode()
        except OSError:
            said = ""
        backlog = max(map(float, _BACKLOG.findall(said)), default=float("nan"))
        return backlog, min(map(float, _SIMULATED.findall(said)), default=float("nan"))

    # Each begins when it is entered and is mended when it is left.

    @contextmanager
    def node(self, whom: int) -> Iterator[None]:
        """A machine loses its power and its disk; another one comes."""
        self.nodes.kill(whom % NODES)
        yield
        self.nodes.renew(whom % NODES)

    @contextmanager
    def server(self, whom: int) -> Iterator[None]:
        """A broker or the database is killed, and starts with what it had on its disk."""
        server = self.servers[whom % len(self.servers)]
        server.kill()
        yield
        server.start().wait_ready()

    @contextmanager
    def silence(self, whom: int) -> Iterator[None]:
        """Packets vanish on the way to a server."""
        link = self.links[whom % len(self.links)]
        link.stall()
        yield
        link.cut()
        link.resume()

    @contextmanager
    def cut(self, whom: int) -> Iterator[None]:
        """Connections to a server are reset, again and again."""
        link, over = self.links[whom % len(self.links)], threading.Event()

        def again() -> None:
            while not over.wait(1.0):
                link.cut()

        thread = threading.Thread(target=again)
        thread.start()
        yield
        over.set()
        thread.join()

    @contextmanager
    def narrow(self, whom: int) -> Iterator[None]:
        """A link carries 20 kB a second."""
        link = self.links[whom % len(self.links)]
        link.throttle(20_000)
        yield
        link.resume()

    @contextmanager
    def replica(self, whom: int) -> Iterator[None]:
        """A predictor replica is killed."""
        self.nodes.on(whom % NODES, "pkill", "-9", "-f", "ray::ServeReplica")
        yield

    @contextmanager
    def shard(self, whom: int) -> Iterator[None]:
        """A shard's process is killed."""
        self.nodes.on(whom % NODES, "pkill", "-9", "-f", "ShardActor")
        yield

    @contextmanager
    def disk(self, whom: int) -> Iterator[None]:
        """A node's disk is full."""
        ballast = shlex.quote(str(self.scene.run / "ballast"))
        size = f"$(df --output=avail -B1 {shlex.quote(str(self.scene.run))} | tail -1)"
        self.nodes.on(whom % NODES, "sh", "-c", f"fallocate -l {size} {ballast}")
        yield
        self.nodes.on(whom % NODES, "rm", "-f", ballast.strip("'"))


KINDS = ("node", "server", "silence", "cut", "narrow", "replica", "shard", "disk")


def schedule(seed: int, seconds: float) -> list[Fault]:
    """The faults of a run of so long: the same for the same seed. Each kind comes before one comes again."""
    dice = random.Random(seed)
    faults: list[Fault] = []
    bag: list[str] = []
    at = _WARM_UP_S
    while True:
        bag = bag or dice.sample(KINDS, len(KINDS))
        fault = Fault(bag.pop(), dice.randrange(6), dice.uniform(3, 20), dice.uniform(5, 25))
        at += fault.lasts + fault.pause
        if at > seconds - _WARM_UP_S:
            return faults
        faults.append(fault)


def play(stage: Stage, faults: list[Fault], calm: float, say: Callable[[str], None]) -> list[tuple[str, float]]:
    """All faults, one after the other. Seconds from the end of each until no sink had more than `calm` records left and
    no shard was late."""
    seen: list[tuple[float, float, float]] = []
    over = threading.Event()
    _, simulated = stage.look()
    start = time.monotonic() - simulated

    def watch() -> None:
        while not over.wait(0.5):
            backlog, simulated = stage.look()
            seen.append((time.monotonic(), backlog, time.monotonic() - start - simulated))

    watcher = threading.Thread(target=watch)
    watcher.start()
    ended: list[tuple[str, float]] = []
    try:
        for fault in faults:
            began = time.monotonic()
            with getattr(stage, fault.kind)(fault.whom):
                time.sleep(fault.lasts)
            now = time.monotonic()
            ended.append((f"{fault.kind} {fault.whom}, {now - began:.0f} s", now))
            say(f"{ended[-1][0]}; backlog {stage.look()[0]:,.0f}")
            time.sleep(fault.pause)
            if stage.driver.poll() is not None:
                say(f"the run ended before its time, with {stage.driver.returncode}")
                break
        stage.driver.wait(4 * HANG_S)
    finally:
        over.set()
        watcher.join()
    well = [at for at, left, late in seen if left <= calm and late <= _LATE_S]
    last = seen[-1][0] if seen else 0.0
    return [(what, next((at for at in well if at > end), last) - end) for what, end in ended]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--vehicles", type=int, default=300)
    given = parser.parse_args()
    faults = schedule(given.seed, 60 * given.minutes)
    what = f"{len(faults)} faults in {given.minutes:g} minutes, {given.vehicles} vehicles"
    print(f"seed {given.seed}: {what}", flush=True)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, ExitStack() as stack:
        stage = Stage(stack, Path(folder), given.seed, given.vehicles, given.minutes)
        wait_until(lambda: stage.look()[0] >= 0 or stage.driver.poll() is not None, stage.log.read_text)
        time.sleep(_WARM_UP_S)
        # Two periods of telemetry and what is predicted meanwhile are always on their way.
        recoveries = play(stage, faults, 3.0 * given.vehicles, lambda line: print(line, flush=True))
        code = stage.driver.returncode
        print(*(f"{seconds:6.1f} s until calm after {what}" for what, seconds in recoveries), sep="\n")
        print(stage.log.read_text())
        if code:
            print(f"twin run ended with {code}")
            return 1
        ledger = stage.scene.balance()
        counts = json.loads((stage.scene.run / "run.json").read_text())["counts"]
        print(f"nothing missing, nothing twice in the store: {counts['telemetry']:,} telemetry", end="")
        peers = ", ".join(sorted({peer.sink for peer in ledger.verified} - {"log"}))
        print(f", {counts['predictions']:,} predictions at each of {peers}")
    return 0


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        sys.exit(main())
    sys.exit(130)
