"""The predictor pool: Ray Serve replicas of one model. Feeders ask it in batches by handle, anyone else over REST.

A model of a registry is replaced while the pool answers: one `Watcher` asks the registry, fetches and verifies, and
each replica loads what it has beside the model that predicts, then changes over between two batches.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
from ray import serve
from ray.serve.config import BackpressureConfig
from ray.serve.context import _get_global_client  # Serve's public functions do not say where it listens
from ray.serve.handle import DeploymentHandle

from actors.prediction.plan import LOOPBACK, NAMESPACE, Known, ModelPlan, PoolPlan, feeders_of
from actors.prediction.rest import rest_api
from actors.prediction.source import ModelSource, Offered
from datasets.schema import MODEL_OUTPUTS
from models.bundle import Bundle

_log = logging.getLogger(__name__)
_started_by_us = threading.Event()

REPLICAS = "Predictor"
"""The deployment's name with Serve."""
# Requests in one replica at a time: single ones of REST are predicted together. More wait in the caller's queue.
_ONGOING = 32
_RETRY_AFTER_S = 1.0
_FOLLOW_S = 1.0
_KNOWN_S = 5.0
"""For feeders to say what they know of a vehicle."""


class Pool:
    """One replica: a model that answers batches, until another takes its place. `name`: of its pool, if it has feeders
    that know the run's vehicles."""

    def __init__(self, bundle: Path | Bundle, name: str = "") -> None:
        self.notice = ""
        self._feeders = Feeders(name)
        self._asked: list[tuple[npt.NDArray[np.floating], asyncio.Future[dict[str, Any]]]] = []
        self.swap(bundle if isinstance(bundle, Bundle) else Bundle.load(bundle), {})

    def swap(self, bundle: Bundle, origin: dict[str, str]) -> None:
        """Predict with this model from now on. What was asked of the one before, with its inputs, it still answers.

        Called on the event loop, like all that predicts: so nothing comes between.
        """
        self._answer()
        self._model = bundle, origin

    @property
    def features(self) -> tuple[str, ...]:
        """The model's inputs; the first seven are `MODEL_INPUTS`."""
        return self._model[0].manifest.features

    @property
    def version(self) -> str:
        """The model's version, which its predictions carry."""
        return self._model[0].manifest.version

    def predict_batch(self, inputs: npt.NDArray[np.floating]) -> dict[str, Any]:
        """Predictions for the rows of `inputs`, shape (n, 7) or (n, features): float32 arrays (n,), and the model's
        version. Windowed features that are not there are NaN."""
        bundle, _ = self._model
        missing = len(bundle.manifest.features) - inputs.shape[1]
        if missing > 0:
            inputs = np.pad(inputs, ((0, 0), (0, missing)), constant_values=np.nan)
        elif missing < 0:
            # Asked for one model and answered by the next, which has fewer inputs.
            inputs = inputs[:, : len(bundle.manifest.features)]
        predictions = bundle.predict(inputs)
        arrays = {name: values.astype(np.float32) for name, values in vars(predictions).items()}
        return arrays | {"model_version": bundle.manifest.version, "notice": self.notice}

    async def predict_row(self, inputs: npt.NDArray[np.floating]) -> dict[str, Any]:
        """The prediction of one row, shape (features,): numbers. Rows asked for in one turn of the event loop, which is
        as long as a prediction takes where many ask, are predicted together; nobody waits for others to come."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[dict[str, Any]] = loop.create_future()
        self._asked.append((inputs, answer))
        if len(self._asked) == 1:
            loop.call_soon(self._answer)
        return await answer

    def _answer(self) -> None:
        asked, self._asked = self._asked, []
        if not asked:
            return
        try:
            found = self.predict_batch(np.stack([inputs for inputs, _ in asked]))
        except Exception as error:
            for _, answer in asked:
                if not answer.done():
                    answer.set_exception(error)
            return
        version = found["model_version"]
        columns = {field.name: found[field.name].tolist() for field in MODEL_OUTPUTS}
        for i, (_, answer) in enumerate(asked):
            if not answer.done():  # its caller may have gone
                answer.set_result({name: values[i] for name, values in columns.items()} | {"model_version": version})

    async def known(self, vehicle: int) -> Known | None:
        """What the run's feeders know of a vehicle."""
        return await self._feeders.known(vehicle)

    def model(self) -> dict[str, Any]:
        """The manifest; where the model is from, if from a registry; and what is wrong with that."""
        bundle, origin = self._model
        return asdict(bundle.manifest) | {"origin": origin, "notice": self.notice}


class Feeders:
    """The feeders of a run, wherever they are, found by the name of its pool."""

    def __init__(self, pool: str) -> None:
        self._pool = pool
        self._there: list[Any] = []

    async def known(self, vehicle: int) -> Known | None:
        """What one of them knows of a vehicle. They are looked for anew where none of those that are known knows it."""
        found = await self._ask(vehicle)
        if found is None and self._pool:
            self._there = await asyncio.to_thread(self._find)
            found = await self._ask(vehicle)
        return found

    def _find(self) -> list[Any]:
        names = [entry["name"] for entry in ray.util.list_named_actors(all_namespaces=True)]
        return [ray.get_actor(name, NAMESPACE) for name in names if name.startswith(feeders_of(self._pool))]

    async def _ask(self, vehicle: int) -> Known | None:
        asked = [asyncio.wrap_future(feeder.vehicle.remote(vehicle).future()) for feeder in self._there]
        if not asked:
            return None
        answered, _ = await asyncio.wait(asked, timeout=_KNOWN_S)
        told = [answer.result() for answer in answered if answer.exception() is None]  # one may be gone, with its node
        return max((known for known in told if known is not None), key=lambda known: known.seq, default=None)


class Watcher:
    """Asks the registry, in one process for all replicas: MLflow would take 200 MB of each, and seconds."""

    def __init__(self, plan: ModelPlan) -> None:
        self._source = ModelSource(plan)
        self._source.begin()
        self._every_s = plan.poll_s
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def _watch(self) -> None:
        while True:
            time.sleep(self._every_s)
            try:
                self._source.look()
            except Exception:  # ours to mend; the model stays
                _log.exception("the registry could not be asked")

    def current(self, known: str) -> tuple[Offered | None, str]:
        """The model of the moment, None where its key is `known`; and what is wrong with the registry."""
        offered = self._source.offered
        return None if offered.key == known else offered, self._source.notice


class Replica(Pool):
    """A pool's replica on Serve. With a `watcher` its model is the watcher's, looked at every `every_s`."""

    async def __init__(  # type: ignore[misc]
        self, name: str, bundle: Path, watcher: DeploymentHandle[Any] | None, every_s: float
    ) -> None:
        self._every_s = every_s
        if watcher is None:
            super().__init__(bundle, name)
            return
        offered, notice = await watcher.current.remote("")
        super().__init__(await asyncio.to_thread(offered.load), name)
        self.swap(self._model[0], offered.origin)
        self._known, self.notice = offered.key, notice
        self._following = asyncio.create_task(self._follow(watcher))

    async def _follow(self, watcher: DeploymentHandle[Any]) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            try:
                offered, notice = await watcher.current.remote(self._known)
                if offered is not None:
                    self.swap(await asyncio.to_thread(offered.load), offered.origin)
                    self._known = offered.key
                self.notice = notice
            except Exception as error:  # whatever it is, the replica has a model
                self.notice = f"nobody watches the registry ({error!r:.120}); model {self.version} is kept"


def application(plan: PoolPlan) -> serve.Application:
    """What Serve runs: the replicas, each with the REST routes, and who watches the registry for them."""
    least, most = plan.replicas

    def this_replica() -> Pool:
        pool = serve.get_replica_context().servable_object
        assert isinstance(pool, Pool)
        return pool

    watcher: Any = None
    if plan.model is not None:
        watching: Any = serve.deployment(
            name="Watcher", max_ongoing_requests=100, ray_actor_options={"num_cpus": 0}, graceful_shutdown_timeout_s=1
        )
        watcher = watching(Watcher).bind(plan.model)
    deployment: Any = serve.deployment(
        name=REPLICAS,
        max_ongoing_requests=_ONGOING,
        max_queued_requests=plan.queue,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=_RETRY_AFTER_S),
        autoscaling_config={"min_replicas": least, "max_replicas": most, "target_ongoing_requests": 2},
        ray_actor_options={"num_cpus": 1},
        health_check_period_s=5,
    )
    follow_s = min(_FOLLOW_S, plan.model.poll_s) if plan.model else 0.0
    routed = serve.ingress(rest_api(plan.token, this_replica, plan.rate))(Replica)
    bound: serve.Application = deployment(routed).bind(plan.name, plan.bundle, watcher, follow_s)
    return bound


def deploy(plan: PoolPlan) -> None:
    """Start Serve and the pool; returns when the replicas answer. A bad bundle raises BundleError before the start.

    Serve of a cluster has one address for all: whoever starts it first decides. PermissionError where that one is open
    to others and the plan has no token.
    """
    if plan.model is None:
        Bundle.load(plan.bundle)
    for name in ("ray", "ray.serve"):  # importing Serve makes both log each step to the terminal
        logging.getLogger(name).setLevel(logging.ERROR)
    if _get_global_client(raise_if_no_controller_running=False) is None:
        _started_by_us.set()
    certificate, key = plan.tls or (None, None)
    serve.start(http_options={"host": plan.host, "port": plan.port, "ssl_keyfile": key, "ssl_certfile": certificate})
    _check_address(plan)
    serve.run(application(plan), name=plan.name, route_prefix=plan.route)


def _check_address(plan: PoolPlan) -> None:
    client = _get_global_client()
    assert client is not None
    there = client.http_config
    if there.host not in LOOPBACK and not plan.token:
        raise PermissionError(
            f"expected an api_token (TWIN_API_TOKEN), because Ray Serve of this cluster listens on {there.host}"
        )
    if plan.tls and not there.ssl_certfile:
        raise PermissionError(
            "expected Ray Serve of this cluster to have TLS, but it was started without; end it (serve shutdown), or "
            "leave tls_cert and tls_key out"
        )
    if (there.host, there.port) != (plan.host, plan.port):
        _log.warning(
            "Ray Serve of this cluster listens on %s:%d already, and not on %s:%d",
            there.host, there.port, plan.host, plan.port,
        )  # fmt: skip


def replicas_up(plan: PoolPlan) -> int:
    """How many replicas of the pool answer."""
    app = serve.status().applications.get(plan.name)
    if app is None or REPLICAS not in app.deployments:
        return 0
    # Typed as members of ReplicaState, which is a str, too; in fact plain text.
    return sum(n for state, n in app.deployments[REPLICAS].replica_states.items() if state == "RUNNING")


def undeploy(plan: PoolPlan) -> None:
    """Remove the pool from a cluster that keeps running, and Serve where it was started for a pool and has no other."""
    if _get_global_client(raise_if_no_controller_running=False) is None:
        return
    serve.delete(plan.name)
    if _started_by_us.is_set() and not serve.status().applications:
        serve.shutdown()  # type: ignore[no-untyped-call]
        _started_by_us.clear()
