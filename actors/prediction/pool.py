"""The predictor pool: Ray Serve replicas of one bundle. Feeders ask it in batches by handle, anyone else over REST.

REST: `POST /predict` (one object or a list of the seven inputs), `GET /health`, `GET /model`, OpenAPI at `/docs`.
"""

from __future__ import annotations

import hmac
import logging
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import GenericAlias
from typing import Annotated, Any

import numpy as np
from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from ray import serve
from ray.serve.context import _get_global_client  # Serve's public functions do not say where it listens

from actors.prediction.plan import LOOPBACK, PoolPlan
from datasets.schema import MODEL_OUTPUTS
from models.bundle import Bundle
from models.features import FEATURES

_log = logging.getLogger(__name__)
_started_by_us = threading.Event()

MAX_REST_ROWS = 10_000
MAX_REST_BYTES = 8 << 20  # twice what that many rows take, indented and with every digit of a double


class PredictRequest(BaseModel):
    """The seven inputs by the reference system's names. Pack level; positive current and power discharge."""

    # Strict: true and "0.5" are no numbers.
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)

    SoC: float = Field(ge=0, le=1, description="State of charge")
    SoH: float = Field(gt=0, le=1.2, description="State of health, capacity over fresh capacity")
    Battery_Voltage: float = Field(gt=0, le=1500, description="V")
    Battery_Current: float = Field(ge=-5000, le=5000, description="A, positive discharges")
    Battery_Temperature: float = Field(ge=-60, le=150, description="degC")
    Charge_Cycles: float = Field(ge=0, le=100_000, description="Equivalent full cycles")
    Power_Consumption: float = Field(ge=-2000, le=2000, description="kW, positive discharges")


_OUTPUTS: dict[str, Any] = {field.name: (float, Field(description=field.described)) for field in MODEL_OUTPUTS}
PredictResponse = create_model(
    "PredictResponse",
    __doc__="What the model predicts for one vehicle: the model's columns of predictions.",
    model_version=(str, Field(description="Version of the bundle that predicted")),
    **_OUTPUTS,
)

_ONE_OR_MANY: Any = PredictResponse | GenericAlias(list, (PredictResponse,))

_ONE: TypeAdapter[PredictRequest] = TypeAdapter(PredictRequest)
_MANY: TypeAdapter[list[PredictRequest]] = TypeAdapter(
    Annotated[list[PredictRequest], Field(min_length=1, max_length=MAX_REST_ROWS)]
)


class Pool:
    """One replica: a loaded bundle that answers batches."""

    def __init__(self, bundle: Path) -> None:
        self._bundle = Bundle.load(bundle)

    def predict_batch(self, inputs: np.ndarray) -> dict[str, Any]:
        """Predictions for the rows of `inputs`, shape (n, 7): float32 arrays (n,) and the model's version."""
        predictions = self._bundle.predict(inputs)
        arrays = {name: values.astype(np.float32) for name, values in vars(predictions).items()}
        return arrays | {"model_version": self._bundle.manifest.version}

    def predict_rows(self, rows: list[PredictRequest]) -> list[BaseModel]:
        """Predictions for REST rows."""
        inputs = np.array([[getattr(row, name) for name in FEATURES] for row in rows])
        answer = self.predict_batch(inputs)
        version = answer.pop("model_version")
        return [
            PredictResponse(model_version=version, **{name: float(values[i]) for name, values in answer.items()})
            for i in range(len(rows))
        ]

    def model(self) -> dict[str, Any]:
        """The manifest."""
        return asdict(self._bundle.manifest)


def rest_api(token: str | None, pool: Callable[[], Pool]) -> FastAPI:
    """The routes. `pool` gives the replica that answers. It is called per request, as Serve makes it after the app."""
    app = FastAPI(title="EV battery predictor pool", version="1")

    def authorised(authorization: Annotated[str | None, Header()] = None) -> None:
        if token is None:
            return
        # An empty one is a token that this node does not have (`actors/secret.py`). Bytes are compared, because
        # Starlette decodes a header as Latin-1, and text beyond ASCII cannot be compared.
        if not token or not hmac.compare_digest((authorization or "").encode("latin-1"), f"Bearer {token}".encode()):
            raise HTTPException(401, "expected the header 'Authorization: Bearer <token>'")

    @app.post(
        "/predict",
        dependencies=[Depends(authorised)],
        response_model=_ONE_OR_MANY,
        responses={413: {"description": f"The body is larger than {MAX_REST_BYTES:,} bytes"}},
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {"oneOf": [_ONE.json_schema(), {"type": "array", "items": _ONE.json_schema()}]}
                    }
                },
            }
        },
    )
    async def predict(request: Request) -> BaseModel | list[BaseModel]:
        body = await _limited_body(request)
        many = body.lstrip()[:1] == b"["
        try:
            rows = _MANY.validate_json(body) if many else [_ONE.validate_json(body)]
        except ValidationError as error:
            # Inputs are shown as text: NaN and broken UTF-8 would not survive as JSON.
            details = [
                {"type": d["type"], "loc": ("body", *d["loc"]), "msg": d["msg"], "input": repr(d["input"])[:200]}
                for d in error.errors(include_url=False, include_context=False)
            ]
            raise RequestValidationError(details) from error
        answers = pool().predict_rows(rows)
        return answers if many else answers[0]

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/model", dependencies=[Depends(authorised)])
    async def model() -> dict[str, Any]:
        return pool().model()

    return app


async def _limited_body(request: Request) -> bytes:
    """The body; 413 as soon as it is known to be larger than `MAX_REST_BYTES`, of which no more is kept."""
    too_large = HTTPException(413, f"expected a body of at most {MAX_REST_BYTES:,} bytes; send fewer rows at a time")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > MAX_REST_BYTES:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():  # a chunked body has no length, so count what comes
        body += chunk
        if len(body) > MAX_REST_BYTES:
            raise too_large
    return bytes(body)


def application(plan: PoolPlan) -> serve.Application:
    """What Serve runs: the replicas, each with the REST routes."""
    least, most = plan.replicas

    def this_replica() -> Pool:
        pool = serve.get_replica_context().servable_object
        assert isinstance(pool, Pool)
        return pool

    deployment: Any = serve.deployment(
        name="Predictor",
        max_ongoing_requests=8,
        autoscaling_config={"min_replicas": least, "max_replicas": most, "target_ongoing_requests": 2},
        ray_actor_options={"num_cpus": 1},
        health_check_period_s=5,
    )
    bound: serve.Application = deployment(serve.ingress(rest_api(plan.token, this_replica))(Pool)).bind(plan.bundle)
    return bound


def deploy(plan: PoolPlan) -> None:
    """Start Serve and the pool; returns when the replicas answer. A bad bundle raises BundleError before the start.

    Serve of a cluster has one address for all: whoever starts it first decides. PermissionError where that one is open
    to others and the plan has no token.
    """
    Bundle.load(plan.bundle)
    for name in ("ray", "ray.serve"):  # importing Serve makes both log each step to the terminal
        logging.getLogger(name).setLevel(logging.ERROR)
    if _get_global_client(raise_if_no_controller_running=False) is None:
        _started_by_us.set()
    serve.start(http_options={"host": plan.host, "port": plan.port})
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
    if (there.host, there.port) != (plan.host, plan.port):
        _log.warning(
            "Ray Serve of this cluster listens on %s:%d already, and not on %s:%d",
            there.host, there.port, plan.host, plan.port,
        )  # fmt: skip


def replicas_up(plan: PoolPlan) -> int:
    """How many replicas of the pool answer."""
    app = serve.status().applications.get(plan.name)
    states = [] if app is None else [deployment.replica_states for deployment in app.deployments.values()]
    return sum(count for counts in states for state, count in counts.items() if state.value == "RUNNING")


def undeploy(plan: PoolPlan) -> None:
    """Remove the pool from a cluster that keeps running, and Serve where it was started for a pool and has no other."""
    if _get_global_client(raise_if_no_controller_running=False) is None:
        return
    serve.delete(plan.name)
    if _started_by_us.is_set() and not serve.status().applications:
        serve.shutdown()  # type: ignore[no-untyped-call]
        _started_by_us.clear()
