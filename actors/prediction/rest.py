"""The pool over REST: `POST /predict` (one object or a list), `GET /vehicles/EV-000042` (what a run last reported of
it), `/health`, `/ready`, `/model`, OpenAPI at `/docs`.

A request has the seven inputs of the reference system, and may have any other feature of the model that answers.
Single requests that come at the same time are predicted together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import GenericAlias
from typing import Annotated, Any, Protocol

import numpy as np
import numpy.typing as npt
from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi import Path as PathParameter
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model

from actors.prediction.plan import Known
from actors.secret import bears
from datasets.schema import MODEL_INPUTS, MODEL_OUTPUTS, VEHICLE_ID, vehicle_index

MAX_REST_ROWS = 10_000
MAX_REST_BYTES = 48 << 20  # what that many rows take with every feature and every digit of a double
_LARGEST = 1e12  # of a windowed feature; float32 holds it


class PredictRequest(BaseModel):
    """The seven inputs by the reference system's names. Pack level; positive current and power discharge."""

    # Strict: true and "0.5" are no numbers.
    model_config = ConfigDict(extra="allow", allow_inf_nan=False, strict=True)
    __pydantic_extra__: dict[str, Annotated[float, Field(ge=-_LARGEST, le=_LARGEST)] | None]

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


VehicleResponse = create_model(
    "VehicleResponse",
    __base__=PredictResponse,
    __doc__="The same of a vehicle of the run, from its newest record that was to be predicted, and its last months.",
    vehicle_id=(str, Field(description="As asked")),
    seq=(int, Field(description="Number of the record")),
    ts=(datetime, Field(description="Time of the record")),
)


class Failure(BaseModel):
    """What was wrong."""

    detail: str


class Health(BaseModel):
    """`notice`: what is wrong with where the model comes from, although it predicts; "" for nothing."""

    status: str
    model_version: str
    notice: str


_ONE_OR_MANY: Any = PredictResponse | GenericAlias(list, (PredictResponse,))
_ONE: TypeAdapter[PredictRequest] = TypeAdapter(PredictRequest)
_MANY: TypeAdapter[list[PredictRequest]] = TypeAdapter(
    Annotated[list[PredictRequest], Field(min_length=1, max_length=MAX_REST_ROWS)]
)
_ANSWER: TypeAdapter[Any] = TypeAdapter(_ONE_OR_MANY)


class Predictor(Protocol):
    """What answers: a replica."""

    notice: str

    @property
    def features(self) -> tuple[str, ...]:
        """The model's inputs; the first seven are `MODEL_INPUTS`."""

    @property
    def version(self) -> str:
        """The model's version."""

    def predict_batch(self, inputs: npt.NDArray[np.floating]) -> dict[str, Any]:
        """An array for each of the model's outputs, and `model_version`."""

    async def predict_row(self, inputs: npt.NDArray[np.floating]) -> dict[str, Any]:
        """The same for one row, shape (features,), with numbers for arrays."""

    async def known(self, vehicle: int) -> Known | None:
        """What the run knows of a vehicle."""

    def model(self) -> dict[str, Any]:
        """The manifest, and where the model is from."""


class _Rate:
    """Lets each address ask so often a second of this process; counts from its first request, as the app is pickled."""

    def __init__(self, most: int) -> None:
        self._most = RateLimitItemPerSecond(most)
        self._limiter: MovingWindowRateLimiter | None = None

    def admits(self, address: str) -> bool:
        """Whether it may ask now."""
        if self._limiter is None:
            self._limiter = MovingWindowRateLimiter(MemoryStorage())
        return self._limiter.hit(self._most, address)


def rest_api(token: str | None, pool: Callable[[], Predictor], rate: int | None = None) -> FastAPI:
    """The routes. `pool` gives the replica that answers. It is called per request, as Serve makes it after the app.
    `rate`: most requests a second of one address."""
    app = FastAPI(title="EV battery predictor pool", version="1")
    limit = _Rate(rate) if rate is not None else None

    async def in_time(request: Request) -> None:
        if limit is not None and not limit.admits(request.client.host if request.client else ""):
            raise HTTPException(
                429, f"expected at most {rate} requests a second from one address", headers={"Retry-After": "1"}
            )

    async def authorised(authorization: Annotated[str | None, Header(include_in_schema=False)] = None) -> None:
        if token is None:
            return
        # An empty one is a token that this node does not have (`actors/secret.py`).
        if not token or not bears(authorization or "", token):
            raise HTTPException(
                401, "expected the header 'Authorization: Bearer <token>'", headers={"WWW-Authenticate": "Bearer"}
            )

    later = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}}
    busy = {"model": Failure, "description": "All replicas are busy and the queue is full", "headers": later}
    refused: dict[int | str, dict[str, Any]] = {}
    if token is not None:
        refused[401] = {"model": Failure, "description": "The token is missing or wrong"}
    if limit is not None:
        refused[429] = {"model": Failure, "description": "This address asks too often", "headers": later}
    guards = [Depends(in_time), Depends(authorised)]

    @app.post(
        "/predict",
        dependencies=guards,
        response_model=_ONE_OR_MANY,
        responses={
            **refused,
            413: {"model": Failure, "description": f"The body is larger than {MAX_REST_BYTES:,} bytes"},
            422: {
                "description": "The body is not what was expected; `loc` says where",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/HTTPValidationError"}}},
            },
            503: busy,
        },
    )
    async def predict(request: Request) -> Response:
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
        replica = pool()
        inputs = _matrix(rows, replica.features, many=many)
        if many:
            answer = replica.predict_batch(inputs)
            columns = {name: answer[name].tolist() for name in _OUTPUTS}
            version = answer["model_version"]
            found: Any = [
                PredictResponse.model_construct(
                    model_version=version, **{name: values[i] for name, values in columns.items()}
                )
                for i in range(len(rows))
            ]
        else:
            found = PredictResponse.model_construct(**await replica.predict_row(inputs[0]))
        return Response(_ANSWER.dump_json(found), media_type="application/json")

    @app.get(
        "/vehicles/{vehicle_id}",
        dependencies=guards,
        response_model=VehicleResponse,
        responses={
            **refused,
            404: {"model": Failure, "description": "The run has no such vehicle, or it has not reported yet"},
            503: busy,
        },
    )
    async def vehicle(vehicle_id: Annotated[str, PathParameter(pattern=VEHICLE_ID)]) -> Any:
        """The prediction of one vehicle, from its last record and what it was like in its last 24 months."""
        replica = pool()
        known = await replica.known(vehicle_index(vehicle_id))
        if known is None:
            raise HTTPException(404, f"expected a vehicle that has reported to this run, got {vehicle_id}")
        answer = await replica.predict_row(known.inputs)
        ts = datetime.fromtimestamp(known.ts_us / 1e6, UTC)
        return VehicleResponse(vehicle_id=vehicle_id, seq=known.seq, ts=ts, **answer)

    @app.get("/health")
    async def health() -> Health:
        """Whether it predicts."""
        replica = pool()
        return Health(status="ok", model_version=replica.version, notice=replica.notice)

    @app.get("/ready", responses={503: busy})
    async def ready() -> dict[str, bool]:
        """Whether it would answer a request now: a replica has its model, and the queue has room for this question."""
        pool()
        return {"ready": True}

    @app.get("/model", dependencies=guards, responses=refused)
    async def model() -> dict[str, Any]:
        """The model's manifest; with a registry, the version there, its run, its data and vehicles."""
        return pool().model()

    def openapi() -> dict[str, Any]:
        return _described(app, pool().features, token is not None)

    app.openapi = openapi  # type: ignore[method-assign]
    return app


def _matrix(rows: Sequence[PredictRequest], features: tuple[str, ...], *, many: bool) -> npt.NDArray[np.float64]:
    """The rows as a model takes them, shape (n, features); what is missing is NaN. 422 for a name it does not have."""
    matrix = np.full((len(rows), len(features)), np.nan)
    matrix[:, : len(MODEL_INPUTS)] = [[getattr(row, name) for name in MODEL_INPUTS] for row in rows]
    places = {name: i for i, name in enumerate(features)}
    for i, row in enumerate(rows):
        for name, value in (row.model_extra or {}).items():
            if name not in places:
                known = ", ".join(features[len(MODEL_INPUTS) :]) or "none besides the seven"
                message = f"expected a feature of the model ({known})"
                where = ("body", i, name) if many else ("body", name)
                raise RequestValidationError([{"type": "extra_forbidden", "loc": where, "msg": message}])
            if value is not None:
                matrix[i, places[name]] = value
    return matrix


def _described(app: FastAPI, features: tuple[str, ...], guarded: bool) -> dict[str, Any]:
    """OpenAPI, with the inputs of the model that answers now."""
    described = get_openapi(title=app.title, version=app.version, routes=app.routes, servers=app.servers)
    row = _ONE.json_schema()
    row["additionalProperties"] = False
    for name in features[len(MODEL_INPUTS) :]:
        number = {"type": "number", "minimum": -_LARGEST, "maximum": _LARGEST}
        row["properties"][name] = {"anyOf": [number, {"type": "null"}], "description": "may be missing"}
    schemas = described["components"]["schemas"]
    schemas["PredictRequest"] = row
    one = {"$ref": "#/components/schemas/PredictRequest"}
    many = {"type": "array", "items": one, "minItems": 1, "maxItems": MAX_REST_ROWS}
    described["paths"]["/predict"]["post"]["requestBody"] = {
        "required": True,
        "content": {"application/json": {"schema": {"oneOf": [one, many]}}},
    }
    schemas.setdefault("HTTPValidationError", _COMPLAINTS)
    if guarded:
        described["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path, method in (("/predict", "post"), ("/model", "get"), ("/vehicles/{vehicle_id}", "get")):
            described["paths"][path][method]["security"] = [{"token": []}]
    return described


_COMPLAINTS = {
    "type": "object",
    "properties": {
        "detail": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "loc": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}},
                    "msg": {"type": "string"},
                    "type": {"type": "string"},
                },
                "required": ["loc", "msg", "type"],
            },
        }
    },
}


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
