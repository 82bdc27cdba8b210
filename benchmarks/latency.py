"""Latency in real time, from when a record is due to where it is needed. 1,000 vehicles, all on this machine.

python benchmarks/latency.py [--minutes 3] [--quick]
Measures twice: with the machine otherwise idle, and with one busy process per core. Prints p50 and p99 of each, from
the histograms that are exported as metrics. Writes benchmarks/results/latency.json.

Linux may schedule each session as one group (kernel.sched_autogroup_enabled, for desktops). Beside busy processes a
server's backend then waits up to seconds for a core, which decides p99; so the setting is printed with the figures.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from pathlib import Path

import numpy as np

from actors.fleet.status import FleetStatus
from actors.latency import BUCKETS_S
from benchmarks import all_sinks, parser, results_of
from tests.services.base import free_ports
from twin import Fleet

VEHICLES, QUICK_VEHICLES = 1_000, 20
SETTLE_S, QUICK_SETTLE_S = 10.0, 1.0
AUTOGROUP = Path("/proc/sys/kernel/sched_autogroup_enabled")
TARGETS = {"kafka": (0.05, 0.3), "timescale": (0.1, 0.5)}


def quantile(counts: np.ndarray, q: float) -> float:
    """The quantile [s], interpolated in the bucket that holds it, as Prometheus' histogram_quantile does."""
    cumulative = np.cumsum(counts)
    bucket = int(np.searchsorted(cumulative, q * cumulative[-1]))
    if bucket >= len(BUCKETS_S):
        return float("inf")
    below = cumulative[bucket - 1] if bucket else 0
    low = BUCKETS_S[bucket - 1] if bucket else 0.0
    return float(low + (BUCKETS_S[bucket] - low) * (q * cumulative[-1] - below) / counts[bucket])


def histograms(status: FleetStatus) -> dict[str, np.ndarray]:
    """The counts so far, for each sink and for predictions."""
    found = {sink.name: np.array(sink.latencies.counts) for sink in status.sinks}
    return found | {"prediction": np.array(status.prediction_latencies.counts)}


def burn() -> None:
    """Keep one core busy, as another program would."""
    while True:
        pass


def measured(fleet: Fleet, minutes: float, settle_s: float) -> dict[str, dict[str, float]]:
    """Quantiles of what is acknowledged in the next minutes, once the fleet has settled."""
    fleet.run(settle_s)
    before = histograms(fleet.status())
    fleet.run(minutes * 60.0)
    new = {name: counts - before[name] for name, counts in histograms(fleet.status()).items()}
    return {
        name: {"records": int(counts.sum()), "p50_s": quantile(counts, 0.5), "p99_s": quantile(counts, 0.99)}
        for name, counts in new.items()
    }


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--minutes", type=float)
    arguments = flags.parse_args()
    quick = arguments.quick
    minutes = arguments.minutes or (0.1 if quick else 3.0)
    vehicles, settle_s = (QUICK_VEHICLES, QUICK_SETTLE_S) if quick else (VEHICLES, SETTLE_S)
    result: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder, all_sinks() as sinks:
        out = Path(folder) / "run"
        [port] = free_ports(1)
        with Fleet(vehicles=vehicles, pace=1, out=out, rest_port=port, **sinks.settings) as fleet:
            if quick:
                while not fleet.run("2s").predictions:
                    pass
            else:
                fleet.run("90s")  # until the pool is up and has caught up
            result["idle"] = measured(fleet, minutes, settle_s)
            burners = [
                multiprocessing.get_context("spawn").Process(target=burn, daemon=True)
                for _ in range(os.cpu_count() or 1)
            ]
            for burner in burners:
                burner.start()
            result["busy"] = measured(fleet, minutes, settle_s)
            for burner in burners:
                burner.kill()
    grouped = AUTOGROUP.read_text().strip() if AUTOGROUP.exists() else "0"
    print(f"kernel.sched_autogroup_enabled = {grouped}")
    for machine, found in result.items():
        print(f"machine otherwise {machine}")
        for name, row in found.items():
            goal = TARGETS.get(name)
            aim = f"  (aim {goal[0] * 1e3:.0f}, {goal[1] * 1e3:.0f})" if goal else ""
            p50, p99 = row["p50_s"] * 1e3, row["p99_s"] * 1e3
            print(f"  due to {name:<11} p50 {p50:7.1f} ms  p99 {p99:7.1f} ms{aim}  {row['records']:,} records")
    results_of("latency", arguments).write(result | {"sched_autogroup_enabled": int(grouped)})


if __name__ == "__main__":
    main()
