"""Pools on Serve whose model is in a registry: the champion changes under load, the registry goes and comes back."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray import serve

from actors.prediction.plan import PoolPlan
from actors.prediction.pool import deploy, undeploy
from models.bundle import BUNDLED
from tests.actors.test_source import Scene, template
from tests.models.test_bundle import ROW
from tests.support import HANG_S, records, wait_until
from twin import Fleet

__all__ = ["template"]

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(600)]

POLL_S = 0.3


@pytest.fixture
def scene(tmp_path: Path, template: Path) -> Scene:
    return Scene(tmp_path, template)


@pytest.fixture
def plan(scene: Scene, free_port: int) -> PoolPlan:
    model = replace(scene.plan, poll_s=POLL_S)
    return PoolPlan("predictor-test", BUNDLED, model, replicas=(2, 2), port=free_port, shared=True)


@contextmanager
def deployed(plan: PoolPlan) -> Iterator[None]:
    try:
        deploy(plan)
        yield
    finally:
        undeploy(plan)


def asked(plan: PoolPlan, what: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{plan.port}{plan.route}/{what}", timeout=HANG_S) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def all_predict_with(plan: PoolPlan, version: str, replicas: int = 2) -> bool:
    """Asked often enough that each replica was asked."""
    return {asked(plan, "health")["model_version"] for _ in range(8 * replicas)} == {version}


class Load:
    """Asks by REST and by handle, all the time, and counts what came back by version; whatever fails is kept."""

    def __init__(self, plan: PoolPlan) -> None:
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self._plan = plan
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=work) for work in (self._rest, self._rest, self._batches)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _rest(self) -> None:
        body = json.dumps(ROW)
        with closing(HTTPConnection("127.0.0.1", self._plan.port, timeout=HANG_S)) as connection:
            while not self._stop.is_set():
                try:
                    connection.request("POST", f"{self._plan.route}/predict", body)
                    answer = connection.getresponse()
                    content = json.loads(answer.read())
                    assert answer.status == 200, (answer.status, content)
                    self.answers[content["model_version"]] += 1
                except Exception as error:
                    self.failures.append(repr(error))

    def _batches(self) -> None:
        handle: Any = serve.get_app_handle(self._plan.name)
        rows = np.tile(np.array(list(ROW.values()), np.float32), (500, 1))
        while not self._stop.is_set():
            try:
                answer = handle.predict_batch.remote(rows).result(timeout_s=HANG_S)
                assert len(set(answer["rul"].tolist())) == 1
                self.answers[answer["model_version"]] += 1
            except Exception as error:
                self.failures.append(repr(error))


def follows(plan: PoolPlan, load: Load, version: str) -> None:
    """All replicas predict with this version, and the load is answered by it."""
    wait_until(lambda: all_predict_with(plan, version))
    before = load.answers[version]
    wait_until(lambda: load.answers[version] > before + 20, lambda: (load.answers, load.failures))


def test_a_swap_under_load_fails_no_request(plan: PoolPlan, scene: Scene) -> None:
    with deployed(plan), Load(plan) as load:
        wait_until(lambda: load.answers["4.0.1"] > 20, lambda: (load.answers, load.failures))
        for number in (2, 1, 2):
            follows(plan, load, scene.promote(number).bundle)
        assert not load.failures
        assert set(load.answers) == {"4.0.1", "4.0.2"}
        origin = asked(plan, "model")["origin"]
        assert origin["version"] == "ev-battery-fleet version 2"
        assert origin["data_sha256"] == "d" * 64
        assert origin["vehicles"] == "train 2, test 1"


def watchers() -> list[str]:
    found: Any = ray._private.state.actors()
    return [
        key for key, actor in found.items()
        if actor["State"] == "ALIVE" and "Watcher" in (actor.get("Name") or "")
    ]  # fmt: skip


def test_the_registry_goes_and_comes_back(plan: PoolPlan, scene: Scene, tmp_path: Path) -> None:
    """And so does the process that asks it."""
    with deployed(plan):
        assert asked(plan, "health") == {"status": "ok", "model_version": "4.0.1", "notice": ""}
        scene.away()
        wait_until(lambda: asked(plan, "health")["notice"].endswith("ev-battery-fleet version 1 is kept"))
        assert asked(plan, "health")["model_version"] == "4.0.1"
        [watcher] = watchers()
        controller: Any = ray.get_actor(ray._private.state.actors()[watcher]["Name"], namespace="serve")
        ray.kill(controller, no_restart=True)
        wait_until(lambda: watchers() not in ([], [watcher]))
        assert asked(plan, "health")["model_version"] == "4.0.1", "the cache has it"
        scene.back()
        scene.promote(2)
        wait_until(lambda: all_predict_with(plan, "4.0.2"))
        wait_until(lambda: asked(plan, "health")["notice"] == "")


def test_a_full_queue_says_when_to_come_again(plan: PoolPlan) -> None:
    """Some are answered, the others are told; nothing else happens, and then it answers as before."""
    narrow = replace(plan, model=None, replicas=(1, 1), queue=1)
    body = json.dumps([ROW] * 5000).encode()
    url = f"http://127.0.0.1:{plan.port}{plan.route}/predict"

    def ask(_: int) -> tuple[int, str | None]:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body), timeout=HANG_S) as answer:
                return answer.status, None
        except urllib.error.HTTPError as error:
            return error.code, error.headers["Retry-After"]

    with deployed(narrow), ThreadPoolExecutor(80) as callers:
        answers = Counter(callers.map(ask, range(160)))
        assert set(answers) == {(200, None), (503, "1")}
        assert ask(0) == (200, None)


def test_a_fleet_says_that_the_registry_is_away(scene: Scene, tmp_path: Path, free_port: int) -> None:
    """Its records carry the version they were predicted by, before and after."""
    run = tmp_path / "run"
    with Fleet(
        vehicles=4, shards=1, replicas=1, rest_port=free_port, out=run, tracking_uri=scene.registry.tracking_uri,
        predictor_cache=scene.plan.cache, predictor_poll="300ms", pace=20,
    ) as fleet:  # fmt: skip
        until = threading.Event()

        def run_until(holds: Any) -> None:
            until.clear()
            fleet.run("1d", lambda status: until.set() if holds(status) else None, until)

        run_until(lambda status: status.predictions > 0)
        assert fleet.status().notices == ()
        scene.away()
        run_until(lambda status: status.notices)
        assert fleet.status().notices[0].endswith("ev-battery-fleet version 1 is kept")
        scene.back()
        scene.promote(2)
        made = fleet.status().predictions
        run_until(lambda status: not status.notices and status.predictions > made + 200)
    assert not fleet.warnings
    assert json.loads((run / "run.json").read_text())["versions"]["model"] == "4.0.1"
    assert set(records(run, "predictions").column("model_version").to_pylist()) == {"4.0.1", "4.0.2"}


def test_a_fleet_begins_without_its_registry(tmp_path: Path, free_port: int) -> None:
    fleet = Fleet(
        vehicles=4, out=tmp_path / "run", tracking_uri=f"http://127.0.0.1:{free_port}", predictor_cache=tmp_path / "c"
    )
    [warning] = fleet.warnings
    assert "Connection refused" in warning
    assert warning.endswith("the bundled model is used")
