"""A live fleet with all brokers on the same machine: does it keep up, where does the time go, does memory grow?

python benchmarks/live.py [--vehicles 5000] [--minutes 10] [--soak] [--quick]     --soak: 1,000 vehicles, an hour
Prints one table. Writes benchmarks/results/live.json or soak.json.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from sys import intern
from typing import Any

from benchmarks import all_sinks, parser, results_of
from tests.services.base import free_ports
from tests.support import family
from twin import Fleet

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_RAY = ("raylet", "gcs_server", "dashboard", "log_monitor", "DashboardAgent", "RuntimeEnvAgent", "ray::IDLE")


def roles(fleet: Fleet, servers: dict[str, int]) -> dict[int, str]:
    """What each process of this run does, by pid."""
    known = {os.getpid(): "driver and supervisor"}
    names = {"shard": "shards (physics, log)", "predictor": "feeder of the predictor pool", "page": "live page"}
    for name, pids in fleet.processes().items():
        known |= dict.fromkeys(pids, names.get(name, f"shipper to {name}"))
    parents: dict[int, int] = {}
    commands: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
                commands[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    for name, root in servers.items():
        known |= dict.fromkeys(family(parents, root), f"{name} (server)")
    for pid, command in commands.items():
        if pid in known:
            continue
        if "ServeReplica" in command:
            known[pid] = "predictor replicas (XGBoost)"
        elif "ServeController" in command or "ProxyActor" in command:
            known[pid] = "Ray Serve controller and proxy"
        elif "ray" in command and any(word in command for word in _RAY):
            known[pid] = "Ray (raylet, GCS, agents)"
    return known


def usage(known: dict[int, str]) -> tuple[dict[str, float], dict[str, float]]:
    """CPU seconds and resident bytes (private and shared) so far, by role."""
    cpu: dict[str, float] = defaultdict(float)
    memory: dict[str, float] = defaultdict(float)
    for pid, role in known.items():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[1:3]
        except OSError:
            continue
        cpu[role] += (int(fields[11]) + int(fields[12])) / _TICKS
        # File-backed pages come and go with the kernel's cache, so only anonymous memory shows growth.
        memory[role] += (int(resident) - int(shared)) * _PAGE
    return cpu, memory


def run(vehicles: int, minutes: float, warm_up_s: float, *, predict: bool = True) -> dict[str, Any]:
    """Start everything, wait until the pool predicts without a backlog, measure for `minutes`."""
    [port] = free_ports(1)
    with tempfile.TemporaryDirectory() as folder, all_sinks() as sinks:
        samples: list[dict[str, float]] = []
        with Fleet(
            vehicles=vehicles, pace=1, out=Path(folder) / "run", rest_port=port, predict=predict, **sinks.settings
        ) as fleet:
            fleet.run(warm_up_s)
            known = roles(fleet, sinks.pids)
            before, _ = usage(known)
            began, started = time.monotonic(), fleet.status().simulated_s

            def sample(status: object) -> None:
                now = fleet.status()
                if samples and time.monotonic() - began - samples[-1]["s"] < 5.0:
                    return
                # Each name once in memory: the driver's is measured, too.
                backlog = {intern(sink.name): float(sum(sink.backlog.values())) for sink in now.sinks}
                memory = {intern(f"memory {role}"): size for role, size in usage(known)[1].items()}
                samples.append({"s": time.monotonic() - began, "predictor": now.predictor_backlog} | backlog | memory)

            fleet.run(minutes * 60.0, sample)
            wall, simulated = time.monotonic() - began, fleet.status().simulated_s - started
            after, memory = usage(known)
    cores = os.cpu_count() or 1
    return {
        "vehicles": vehicles,
        "minutes": minutes,
        "real_time_factor": simulated / wall,
        "behind_s": wall - simulated,
        "cores": cores,
        "cpu_s_per_s": {role: (after[role] - before[role]) / wall for role in after},
        "memory_bytes": memory,
        "samples": samples,
    }


def print_table(result: dict[str, Any]) -> None:
    """Real-time factor, backlog over time, where the time goes."""
    samples: list[dict[str, float]] = result["samples"]
    cpu: dict[str, float] = result["cpu_s_per_s"]
    memory: dict[str, float] = result["memory_bytes"]
    factor, behind_s = result["real_time_factor"], result["behind_s"]
    print(
        f"{result['vehicles']:,} vehicles for {result['minutes']:g} min: real-time factor {factor:.3f}, "
        f"{behind_s * 1e3:.0f} ms behind the clock at the end (a paced fleet is never ahead of it)"
    )
    third = len(samples) // 3
    for name in ("kafka", "mqtt", "timescale", "predictor"):
        parts = [samples[:third], samples[third : 2 * third], samples[2 * third :]]
        mean = [sum(s[name] for s in part) / max(1, len(part)) for part in parts]
        print(f"backlog {name:<10} mean of each third {mean[0]:8,.0f} {mean[1]:8,.0f} {mean[2]:8,.0f} records")
    print(f"{'where the time goes':<34} cores   MB")
    for role, used in sorted(cpu.items(), key=lambda item: -item[1]):
        print(f"  {role:<32} {used:5.3f} {memory[role] / 1e6:5.0f}")
    print(f"  {'all':<32} {sum(cpu.values()):5.3f} of {result['cores']}")
    for what, growth in result.get("memory_growth", {}).items():
        print(f"memory after 5 min to the end, {what:<34} {growth:+.2%}")


def _mean(samples: list[dict[str, float]], names: list[str]) -> float:
    return sum(sample[name] for sample in samples for name in names) / len(samples)


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--vehicles", type=int)
    flags.add_argument("--minutes", type=float)
    flags.add_argument("--soak", action="store_true")
    arguments = flags.parse_args()
    if arguments.quick:
        result = run(20, 0.05, 1.0, predict=False)
    else:
        vehicles = arguments.vehicles or (1_000 if arguments.soak else 5_000)
        minutes = arguments.minutes or (60.0 if arguments.soak else 10.0)
        result = run(vehicles, minutes, 90.0)
    samples: list[dict[str, float]] = result["samples"]
    settled = [s for s in samples if s["s"] >= 300.0]
    if settled:
        # Means over a minute at each end, because a single sample depends on the moment.
        first, last = settled[:12], settled[-12:]
        roles = [name for name in settled[0] if name.startswith("memory ")]
        ours = [name for name in roles if not name.endswith("(server)")]
        result["memory_growth"] = {
            what: _mean(last, names) / _mean(first, names) - 1.0
            for what, names in [("all but the servers", ours), *((name[7:], [name]) for name in roles)]
        }
    print_table(result)
    results_of("soak" if arguments.soak else "live", arguments).write(result)


if __name__ == "__main__":
    main()
