"""Weak scaling: as many vehicles a node on one, two and four nodes of a Ray cluster; what does a vehicle cost?

Nodes share the cores of this machine, so work is counted, not time: the processor time of all processes of the cluster
and the driver, over the records delivered meanwhile. Vehicles are live (pace 1), and their records go to Kafka, MQTT
and PostgreSQL. Prints and writes benchmarks/results/cluster.json: microseconds of work a record on the nodes, and with
head and driver; both against one node; and simulated over real time, by what reached the database.

python benchmarks/cluster.py [--vehicles N] [--seconds S] [--quick]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from benchmarks import parser, results_of
from tests.command import environment
from tests.faults.nodes import Nodes
from tests.services import Kafka, Mosquitto, Postgres
from tests.services.base import free_ports
from tests.support import records_in, wait_until

_PERIOD_S = 2.0
_WARM_UP_RECORDS = 10


def _work_s(pids: list[int]) -> float:
    """Processor time so far of these processes and all below them."""
    found = 0.0
    for pid in pids:
        first = psutil.Process(pid)
        for process in (first, *first.children(recursive=True)):
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            found += times.user + times.system
    return found


def live(nodes: int, a_node: int, seconds: float) -> dict[str, Any]:
    """A live fleet on so many nodes; what it cost once it is under way."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cluster-")))
        kafka, mosquitto, postgres = servers = (Kafka(), Mosquitto(), Postgres())
        for server in servers:
            stack.callback(server.remove)
            server.start().wait_ready()
        run, vehicles = folder / "run", nodes * a_node
        cluster = stack.enter_context(Nodes(nodes, folder, run))
        command = [
            *(sys.executable, "-m", "twin", "run", "--vehicles", vehicles, "--shards", nodes, "--pace", 1, "--quiet"),
            *("--duration", "1h", "--out", run, "--no-report", "--no-predict", "--metrics-port", 0),
            *("--rest-port", free_ports(1)[0], "--address", cluster.address, "--kafka", kafka.bootstrap_servers),
            *("--mqtt", f"mqtt://127.0.0.1:{mosquitto.port}", "--timescale", postgres.url()),
        ]
        log = folder / "twin.log"
        with open(log, "wb") as said:
            driver = subprocess.Popen(
                list(map(str, command)), stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                env=environment() | {name: cluster.environment[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")},
                start_new_session=True,
            )  # fmt: skip
        stack.callback(driver.kill)
        wait_until(
            lambda: records_in(postgres.url()) > _WARM_UP_RECORDS * vehicles or driver.poll() is not None,
            log.read_text,
            look_s=0.5,
        )
        if driver.poll() is not None:
            raise SystemExit(log.read_text())
        began, records = time.monotonic(), records_in(postgres.url())
        workers, rest = _work_s(cluster.workers), _work_s([cluster.head, driver.pid])
        time.sleep(seconds)
        took, records = time.monotonic() - began, records_in(postgres.url()) - records
        workers, rest = _work_s(cluster.workers) - workers, _work_s([cluster.head, driver.pid]) - rest
    return {
        "nodes": nodes,
        "vehicles": vehicles,
        "us_a_record_on_nodes": 1e6 * workers / records,
        "us_a_record": 1e6 * (workers + rest) / records,
        "cores": (workers + rest) / took,
        "real_time_factor": _PERIOD_S * records / vehicles / took,
    }


def main() -> None:
    """Measure, print, write."""
    options = parser(__doc__)
    options.add_argument("--vehicles", type=int, default=1250, help="a node [default: 1250]")
    options.add_argument("--seconds", type=float, default=60.0, help="measured, of each [default: 60]")
    arguments = options.parse_args()
    sizes: tuple[int, ...] = (1, 2, 4)
    vehicles, seconds = arguments.vehicles, arguments.seconds
    if arguments.quick:
        sizes, vehicles, seconds = (1,), 20, 4.0
    rows: list[dict[str, Any]] = []
    print("nodes  vehicles  us/record on nodes     in all  against one node  cores  real time")
    for nodes in sizes:
        row = live(nodes, vehicles, seconds)
        rows.append(row)
        ratio = row["us_a_record"] / rows[0]["us_a_record"]
        print(
            f"{nodes:5} {row['vehicles']:9,} {row['us_a_record_on_nodes']:19.0f} {row['us_a_record']:10.0f}"
            f" {ratio:17.2f} {row['cores']:6.2f} {row['real_time_factor']:9.2f}x",
            flush=True,
        )
    results_of("cluster", arguments).write({"rows": rows})


if __name__ == "__main__":
    main()
