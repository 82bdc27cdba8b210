"""The predictor pool beside its model in this process, and beside a bare FastAPI application with the same model.

python benchmarks/pool.py [--haproxy] [--quick]     --haproxy: Serve's HAProxy before the replicas, not its own proxy
Prints and writes benchmarks/results/pool.json or pool-haproxy.json. By handle, batches of 5,000 are asked as the feeder
does, four on their way. Where everything runs on two cores, whoever asks takes its share of them. A swap is a new
champion in a registry (a local database) while REST and batches go on.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import parser, results_of
from datasets.schema import MODEL_INPUTS
from models.bundle import BUNDLED, Bundle
from tests.services.base import free_ports

BATCH = 5_000
IN_FLIGHT = 4
ROW = {"SoC": 0.6, "SoH": 0.92, "Battery_Voltage": 355.0, "Battery_Current": 20.0, "Battery_Temperature": 24.0,
       "Charge_Cycles": 300.0, "Power_Consumption": 7.1}  # fmt: skip
BODY = json.dumps(ROW).encode()


@dataclass(frozen=True)
class Size:
    """Batches, single requests, requests of many callers, how many these are, rounds, seconds of load around a swap."""

    batches: int = 40
    singles: int = 600
    many: int = 1_600
    callers: int = 16
    rounds: int = 3
    swap_s: float = 5.0


QUICK = Size(batches=4, singles=10, many=40, callers=4, rounds=1, swap_s=0.5)


def rows() -> npt.NDArray[np.float32]:
    """Batches as they come from a fleet: all vehicles different."""
    rng = np.random.default_rng(1)
    low = [0, 0.75, 300, -100, -5, 0, -40]
    high = [1, 1.0, 400, 200, 45, 1500, 80]
    return rng.uniform(low, high, size=(BATCH, len(MODEL_INPUTS))).astype(np.float32)


def bare_app() -> Any:
    """What somebody writes in ten minutes: FastAPI, the model, nothing else. `uvicorn --factory` calls it."""
    from fastapi import FastAPI
    from pydantic import create_model

    bundle = Bundle.load()
    fields: dict[str, Any] = dict.fromkeys(MODEL_INPUTS, (float, ...))
    inputs = create_model("Inputs", **fields)
    app = FastAPI()

    async def predict(row: Any) -> dict[str, Any]:
        answer = bundle.predict(np.array([[getattr(row, name) for name in MODEL_INPUTS]]))
        return {name: float(values[0]) for name, values in vars(answer).items()}

    predict.__annotations__["row"] = inputs
    app.post("/predict")(predict)
    return app


@contextmanager
def bare_server() -> Iterator[int]:
    """The bare application in a process of its own; its port."""
    [port] = free_ports(1)
    command = [sys.executable, "-m", "uvicorn", "benchmarks.pool:bare_app", "--factory", "--port", str(port),
               "--no-access-log", "--log-level", "error"]  # fmt: skip
    process = subprocess.Popen(command, cwd=Path(__file__).parents[1])
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                ask(port, "/predict", 1)
                break
            except OSError:
                assert time.monotonic() < deadline
                assert process.poll() is None
                time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait()


def ask(port: int, path: str, count: int) -> list[float]:
    """Seconds of each of `count` requests, one after the other on one connection."""
    seconds = []
    with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        for _ in range(count):
            begun = time.perf_counter()
            connection.request("POST", path, BODY, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            seconds.append(time.perf_counter() - begun)
            assert answer.status == 200, content
    return seconds


def many_a_second(port: int, path: str, size: Size) -> float:
    """Requests a second of many callers at once."""
    each = size.many // size.callers
    begun = time.perf_counter()
    with ThreadPoolExecutor(size.callers) as callers:
        list(callers.map(lambda _: ask(port, path, each), range(size.callers)))
    return each * size.callers / (time.perf_counter() - begun)


def batches_a_second(predict: Callable[[], Any], size: Size) -> float:
    """Of calls that wait."""
    predict()
    begun = time.perf_counter()
    for _ in range(size.batches):
        predict()
    return size.batches / (time.perf_counter() - begun)


def asked_a_second(handle: Any, inputs: npt.NDArray[np.float32], count: int, in_flight: int) -> float:
    """Batches a second by handle, some on their way."""
    asked: deque[Any] = deque()
    begun = time.perf_counter()
    for _ in range(count):
        if len(asked) >= in_flight:
            asked.popleft().result(timeout_s=60)
        asked.append(handle.predict_batch.remote(inputs))
    while asked:
        asked.popleft().result(timeout_s=60)
    return count / (time.perf_counter() - begun)


@contextmanager
def pool(replicas: int, model: Any = None) -> Iterator[tuple[int, Any]]:
    """A pool of so many replicas; its port and its handle."""
    from ray import serve

    from actors.prediction.plan import PoolPlan
    from actors.prediction.pool import deploy, replicas_up, undeploy

    [port] = free_ports(1)
    plan = PoolPlan("predictor-bench", BUNDLED, model, replicas=(replicas, replicas), port=port)
    try:
        deploy(plan)
        while replicas_up(plan) < replicas:
            time.sleep(0.1)
        handle: Any = serve.get_app_handle(plan.name)
        for _ in range(20):
            handle.predict_batch.remote(rows()).result(timeout_s=60)
        yield port, handle
    finally:
        undeploy(plan)


def measured(size: Size) -> dict[str, Any]:
    """One replica, then two; the peers in turn with them, so that a machine's moods meet both."""
    inputs, bundle = rows(), Bundle.load()
    alone: list[float] = []
    one: list[float] = []
    two: list[float] = []
    latency: list[float] = []
    ours: list[float] = []
    bare: list[float] = []
    with bare_server() as bare_port:
        with pool(1) as (port, handle):
            ask(port, "/predict", 50)
            ask(bare_port, "/predict", 50)
            for _ in range(size.rounds):
                alone.append(batches_a_second(lambda: bundle.predict(inputs), size))
                one.append(asked_a_second(handle, inputs, size.batches, IN_FLIGHT))
                latency.append(1 / asked_a_second(handle, inputs, size.batches, 1))
                ours += ask(port, "/predict", size.singles // size.rounds)
                bare += ask(bare_port, "/predict", size.singles // size.rounds)
            ours_many = many_a_second(port, "/predict", size)
            bare_many = many_a_second(bare_port, "/predict", size)
        with pool(2) as (port, handle):
            two = [asked_a_second(handle, inputs, 2 * size.batches, 2 * IN_FLIGHT) for _ in range(size.rounds)]
    of_one, of_two, in_process = (statistics.median(values) for values in (one, two, alone))
    p50, bare_p50 = statistics.median(ours), statistics.median(bare)
    return {
        "batch": BATCH,
        "in_process_rows_per_s": BATCH * in_process,
        "handle_rows_per_s": {"1": BATCH * of_one, "2": BATCH * of_two},
        "handle_batch_latency_ms": 1e3 * statistics.median(latency),
        "share_of_in_process": of_one / in_process,
        "two_replicas_over_one": of_two / of_one,
        "rest_p50_ms": 1e3 * p50,
        "bare_fastapi_p50_ms": 1e3 * bare_p50,
        "rest_p50_over_bare": p50 / bare_p50,
        "rest_requests_per_s": ours_many,
        "bare_fastapi_requests_per_s": bare_many,
        "callers": size.callers,
    }


def swapped(size: Size) -> dict[str, Any]:
    """A new champion under load: requests that failed, and how long until all are answered by the new model."""
    from actors.prediction.plan import ModelPlan
    from training.registry import Registry, TrainingRun

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        registry = Registry(f"sqlite:///{folder}/mlflow.db")
        for version in ("one", "two"):
            bundle = Path(shutil.copytree(BUNDLED, folder / version))
            manifest = json.loads((bundle / "manifest.json").read_text()) | {"version": version}
            (bundle / "manifest.json").write_text(json.dumps(manifest))
            made = registry.register(registry.log(TrainingRun(bundle, "0" * 64, "benchmark", {})))
            if version == "one":
                registry.set_alias("champion", made, "the first")
        plan = ModelPlan(
            "models:/ev-battery-fleet@champion", registry.tracking_uri, folder / "cache", BUNDLED, poll_s=1.0
        )
        with pool(2, plan) as (port, handle):
            answers: Counter[str] = Counter()
            failures: list[str] = []
            over = threading.Event()

            def load(predict: Callable[[], str]) -> None:
                while not over.is_set():
                    try:
                        answers[predict()] += 1
                    except Exception as error:
                        failures.append(repr(error))

            def batch() -> str:
                version: str = handle.predict_batch.remote(rows()).result(timeout_s=60)["model_version"]
                return version

            threads = [threading.Thread(target=load, args=(work,)) for work in (partial_ask(port), batch)]
            for thread in threads:
                thread.start()
            time.sleep(size.swap_s)
            registry.set_alias("champion", made, "under load")
            begun = time.monotonic()
            while not answers["two"] and time.monotonic() < begun + 60:
                time.sleep(0.01)
            seconds = time.monotonic() - begun
            time.sleep(size.swap_s)
            over.set()
            for thread in threads:
                thread.join()
    return {"requests": answers.total(), "failed": len(failures), "by_version": dict(answers), "seconds": seconds}


def partial_ask(port: int) -> Callable[[], str]:
    """One request over REST; the version that answered."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)

    def predict() -> str:
        connection.request("POST", "/predict", BODY)
        answer = connection.getresponse()
        content = json.loads(answer.read())
        assert answer.status == 200, content
        version: str = content["model_version"]
        return version

    return predict


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--haproxy", action="store_true")
    arguments = flags.parse_args()
    # Ray gives its workers low priority; a fleet with a pace does not, and the peers have none.
    os.environ.setdefault("RAY_worker_niceness", "0")
    if arguments.haproxy:
        os.environ["RAY_SERVE_ENABLE_HA_PROXY"] = "1"
    import ray

    size = QUICK if arguments.quick else Size()
    ray.init("local", num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    load = os.getloadavg()[0]
    try:
        result = measured(size)
        result["swap"] = swapped(size)
    finally:
        ray.shutdown()
    result |= {"cores": os.cpu_count(), "load_before": load, "load_after": os.getloadavg()[0]}
    print(json.dumps(result, indent=2))
    results_of("pool-haproxy" if arguments.haproxy else "pool", arguments).write(result)


if __name__ == "__main__":
    main()
