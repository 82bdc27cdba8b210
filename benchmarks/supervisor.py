"""What supervising costs: shards at pace 1 on fifty nodes, with stand-ins for the actors, so only our side counts.

Prints and writes benchmarks/results/supervisor.json: cores used by the supervisor with its metrics scraped once a
second, and microseconds a block, for several numbers of shards. The stand-ins' own work is in it, Ray's is not.

python benchmarks/supervisor.py [--quick]
"""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from actors.delivery.sinks.kafka import KafkaTarget
from actors.delivery.sinks.mqtt import MqttTarget
from actors.delivery.sinks.timescale import TimescaleTarget
from actors.fleet.cluster import Pending
from actors.fleet.metrics import FleetCollector
from actors.fleet.plan import FleetPlan, PopulationPlan
from actors.fleet.supervisor import Supervisor
from actors.prediction.plan import PoolPlan
from benchmarks import parser, results_of
from tests.actors.cluster import InProcess

NODES = 50
VEHICLES_A_SHARD = 100
_TELEMETRY_S = 2.0


class Waiting(InProcess):
    """Waits as a cluster does where there is nothing to take."""

    def arrived(self, timeout_s: float) -> list[Pending[Any]]:
        if not self.asked:
            time.sleep(timeout_s)
        return super().arrived(timeout_s)


def supervise(shards: int, seconds: float, folder: Path) -> dict[str, Any]:
    """A fleet of so many shards for so long."""
    plan = FleetPlan(
        run_dir=folder,
        run_id="run",
        log_id="log",
        vehicles=shards * VEHICLES_A_SHARD,
        shards=shards,
        population=PopulationPlan(1, (("chen2020", 1.0),), None, 10.0, 0.02),
        start_s=0,
        step_s=1.0,
        telemetry_ticks=round(_TELEMETRY_S),
        predict_ticks=5,
        checkpoint_ticks=3600,
        pace=1.0,
        targets=(
            KafkaTarget(("127.0.0.1:9",)),
            MqttTarget("127.0.0.1", 9),
            TimescaleTarget(("127.0.0.1:9",), "twin", "twin"),
        ),
        pool=PoolPlan("predictor", Path("bundle")),
    )
    supervisor = Supervisor(plan, Waiting(nodes=tuple(f"node-{n}" for n in range(NODES))))
    supervisor.start()
    registry = CollectorRegistry()
    registry.register(FleetCollector(supervisor.status, Path()))
    ended = threading.Event()
    scraped: list[float] = []

    def scrape() -> None:
        while not ended.wait(1.0):
            begun = time.thread_time()
            generate_latest(registry)
            scraped.append(time.thread_time() - begun)

    scraper = threading.Thread(target=scrape)
    begun, begun_cpu = time.perf_counter(), time.process_time()
    scraper.start()
    supervisor.run(round(seconds), lambda status: None)
    wall_s, cpu_s = time.perf_counter() - begun, time.process_time() - begun_cpu
    ended.set()
    scraper.join()
    blocks = shards * seconds / _TELEMETRY_S
    begun = time.process_time()
    supervisor.drain(lambda status: None, patience_s=0.0)
    drain_s = time.process_time() - begun
    return {
        "shards": shards,
        "cores": cpu_s / wall_s,
        "real_time_factor": seconds / wall_s,
        "us_a_block": cpu_s / blocks * 1e6,
        "ms_a_scrape": max(scraped, default=0.0) * 1e3,
        "ms_of_draining": drain_s * 1e3,
    }


def main() -> None:
    """Measure, print, write."""
    arguments = parser(__doc__).parse_args()
    sizes, seconds = ((100, 1_000), 4.0) if arguments.quick else ((100, 1_000, 10_000), 30.0)
    rows = []
    print("shards   cores  real time  us/block  ms/scrape  ms to drain")
    for shards in sizes:
        with tempfile.TemporaryDirectory() as folder:
            row = supervise(shards, seconds, Path(folder))
        rows.append(row)
        print(
            f"{row['shards']:>6,} {row['cores']:>7.3f} {row['real_time_factor']:>10.3f} {row['us_a_block']:>9.1f} "
            f"{row['ms_a_scrape']:>10.1f} {row['ms_of_draining']:>12.1f}"
        )
    results_of("supervisor", arguments).write({"nodes": NODES, "pace": 1.0, "rows": rows})


if __name__ == "__main__":
    main()
