"""The live page: does it stutter with thousands of vehicles, what does it cost, and what the run beside it?

python benchmarks/page.py [--vehicles 5000] [--minutes 2] [--quick]
First vehicles that only send (the real codec, a record every 2 s, a prediction every 4 s), `twin watch`, and a browser
without a graphics card that looks at the field, the table and one vehicle. Then a real run in real time with Kafka,
MQTT, PostgreSQL and the predictors: without the page, with it, and with somebody who looks, while metrics are asked for
every 5 s. Writes benchmarks/results/page.json.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

from actors.delivery.sinks import SinkOptions
from actors.delivery.sinks.mqtt import MqttTarget
from benchmarks import all_sinks, parser, results_of, server
from benchmarks.live import roles, usage
from tests.page import Sender
from tests.services import Chromium, Mosquitto
from tests.services.base import free_ports
from tests.support import family, wait_until
from twin import Fleet
from twin.page.process import Beside
from twin.settings import Page

_SCRAPE_S = 5.0
ROOT = Path(__file__).parents[1]
_GAPS = """() => { window.gaps = []; let last = performance.now();
(function frame(now) { window.gaps.push(now - last); last = now; requestAnimationFrame(frame); })(last); }"""


def send(port: int, vehicles: int, ready: Any, leave: Any) -> None:
    """A process of its own: what it costs is not the page's."""
    with Sender(port, vehicles, parts=40):
        ready.set()
        leave.wait()


def tree(root: int) -> list[int]:
    """A process and all that descend from it."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    return sorted(family(parents, root))


def spent(pids: list[int]) -> tuple[float, float]:
    """CPU seconds so far, and private bytes."""
    cpu, memory = usage(dict.fromkeys(pids, "all"))
    return cpu["all"], memory["all"]


@contextlib.contextmanager
def watched(broker: int) -> Iterator[tuple[int, str]]:
    """`twin watch`: its pid and its address."""
    [port] = free_ports(1)
    command = [sys.executable, "-m", "twin", "watch", "--mqtt", f"mqtt://127.0.0.1:{broker}", "--page-port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield process.pid, f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate()


def alone(vehicles: int, seconds: float) -> dict[str, Any]:
    """Frames and memory of a browser, cores and memory of the page's server."""
    context = multiprocessing.get_context("spawn")
    ready, leave = context.Event(), context.Event()
    with server(Mosquitto) as broker, watched(broker.port) as (pid, url), Chromium.started() as browser:
        sender = context.Process(target=send, args=(broker.port, vehicles, ready, leave))
        sender.start()
        ready.wait()
        page = browser.new_page(viewport={"width": 1920, "height": 1080})
        received = [0, 0]

        def count(message: str | bytes) -> None:
            received[0] += 1
            received[1] += len(message)

        page.on("websocket", lambda socket: socket.on("framereceived", count))
        page.goto(f"{url}/#vehicle=EV-000007")
        wait_until(lambda: page.locator("#vehicles").inner_text() == f"{vehicles:,}", look_s=0.2)
        page.wait_for_timeout(5000)
        page.evaluate(_GAPS)
        browsers = [p for p in tree(os.getpid()) if "chromium" in Path(f"/proc/{p}/cmdline").read_text()]
        began, (cpu, _), (drawn, _), bytes_before = time.monotonic(), spent([pid]), spent(browsers), received[1]
        heap = page.evaluate("performance.memory.usedJSHeapSize")
        page.wait_for_timeout(seconds * 1e3)
        gaps = sorted(page.evaluate("window.gaps"))[:]
        took = time.monotonic() - began
        (cpu_after, memory), (drawn_after, browser_memory) = spent([pid]), spent(browsers)
        found = {
            "vehicles": vehicles,
            "seconds": took,
            "records_per_s": page.locator("#records").inner_text(),
            "frames_per_s": len(gaps) / took,
            "frame_gap_p99_ms": gaps[int(0.99 * len(gaps))],
            "longest_frame_gap_ms": gaps[-1],
            "to_the_browser_bytes_per_s": (received[1] - bytes_before) / took,
            "browser_cores": (drawn_after - drawn) / took,
            "browser_memory_bytes": browser_memory,
            "browser_heap_bytes": [heap, page.evaluate("performance.memory.usedJSHeapSize")],
            "server_cores": (cpu_after - cpu) / took,
            "server_memory_bytes": memory,
        }
        leave.set()
        sender.join()
    return found


class Viewer:
    """Somebody who looks, without the cost of drawing, and a Prometheus that scrapes."""

    def __init__(self, url: str, metrics: str) -> None:
        self._socket = connect(url, max_size=None)
        self._metrics, self._closed = metrics, threading.Event()
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(target=self._scrape, daemon=True).start()

    def _scrape(self) -> None:
        while not self._closed.wait(_SCRAPE_S):
            urllib.request.urlopen(self._metrics).read()

    def _read(self) -> None:
        with contextlib.suppress(Exception):
            for _ in self._socket:
                pass

    def close(self) -> None:
        self._closed.set()
        self._socket.close()


def beside(vehicles: int, seconds: float, warm_up_s: float, *, predict: bool) -> dict[str, Any]:
    """Cores of a whole run, brokers included: without the page, with it, with somebody who looks."""
    rest, port, metrics = free_ports(3)
    ports: dict[str, Any] = {"rest_port": rest, "metrics_port": metrics}
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, all_sinks() as sinks:
        out = Path(folder) / "run"
        with Fleet(vehicles=vehicles, pace=1, out=out, predict=predict, **ports, **sinks.settings) as fleet:
            fleet.run(warm_up_s)

            def measure(name: str, pages: list[int]) -> None:
                # Only what is this run's, and lives all the time.
                ours = {*tree(os.getpid()), *(p for pid in sinks.pids.values() for p in tree(pid))}
                known = {pid: role for pid, role in roles(fleet, sinks.pids).items() if pid in ours}
                known |= dict.fromkeys(pages, "live page")
                each = {pid: str(pid) for pid in known}
                before, _ = usage(each)
                began, at = time.monotonic(), fleet.status().simulated_s
                fleet.run(seconds)
                wall = time.monotonic() - began
                after, memory = usage(each)
                cores: dict[str, float] = defaultdict(float)
                for pid, role in known.items():
                    if before.get(str(pid)) and after.get(str(pid)):
                        cores[role] += (after[str(pid)] - before[str(pid)]) / wall
                found[name] = {
                    "cores": sum(cores.values()),
                    "by_role": cores,
                    "page_memory_bytes": sum(memory[str(pid)] for pid in pages),
                    "real_time_factor": (fleet.status().simulated_s - at) / wall,
                }

            measure("without", [])
            target = MqttTarget.parse(sinks.settings["mqtt"], SinkOptions())
            page = Beside.start(target, Page(page_port=port))
            try:
                fleet.run(warm_up_s / 4)
                measure("with", [page.pid])
                viewer = Viewer(f"ws://127.0.0.1:{port}/live", f"http://127.0.0.1:{metrics}/metrics")
                measure("looked_at", [page.pid])
                viewer.close()
            finally:
                page.close()
            measure("without_again", [])
    without = (found["without"]["cores"] + found["without_again"]["cores"]) / 2
    for name in ("with", "looked_at"):
        found[name]["more"] = found[name]["cores"] / without - 1.0
    return found


def print_table(result: dict[str, Any]) -> None:
    """In words and figures."""
    page, run = result["alone"], result["beside"]
    print(f"{page['vehicles']:,} vehicles, {page['seconds']:.0f} s, {page['records_per_s']} records")
    print(
        f"browser  {page['frames_per_s']:.0f} frames a second, longest gap {page['longest_frame_gap_ms']:.0f} ms "
        f"(99 % below {page['frame_gap_p99_ms']:.0f} ms), {page['browser_cores']:.2f} cores, "
        f"{page['browser_memory_bytes'] / 1e6:.0f} MB in all its processes, heap "
        + " to ".join(f"{size / 1e6:.0f}" for size in page["browser_heap_bytes"])
        + f" MB, {page['to_the_browser_bytes_per_s'] / 1e3:.0f} kB/s"
    )
    print(f"server   {page['server_cores']:.3f} cores, {page['server_memory_bytes'] / 1e6:.0f} MB")
    for name, words in (
        ("without", "without the page"),
        ("with", "with it"),
        ("looked_at", "looked at, scraped"),
        ("without_again", "without it again"),
    ):
        row = run[name]
        more = f", {row['more']:+.1%}" if "more" in row else ""
        own = (
            f", of which the page's process {row['by_role']['live page']:.3f}" if "live page" in row["by_role"] else ""
        )
        print(f"a run {words:<18} {row['cores']:.3f} cores{more}{own}; real-time factor {row['real_time_factor']:.3f}")


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--vehicles", type=int)
    flags.add_argument("--minutes", type=float)
    arguments = flags.parse_args()
    vehicles = arguments.vehicles or (20 if arguments.quick else 5_000)
    seconds = 60.0 * (arguments.minutes or (0.05 if arguments.quick else 2.0))
    result = {
        "alone": alone(vehicles, seconds),
        "beside": beside(vehicles, seconds, 2.0 if arguments.quick else 90.0, predict=not arguments.quick),
    }
    print_table(result)
    results_of("page", arguments).write(result)


if __name__ == "__main__":
    main()
