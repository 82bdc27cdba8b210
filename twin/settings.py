"""The settings of a run: defaults, then a YAML file, then the environment, then flags; checked once, here.

Environment: every setting as TWIN_<NAME> (TWIN_VEHICLES=500), and the usual names of the services:
KAFKA_BOOTSTRAP_SERVERS; MQTT_HOST, MQTT_PORT; PG_HOST, PG_PORT, PG_USER, PG_PASSWORD, PG_DATABASE.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from actors.sinks.base import mask
from datasets.log import Fsync
from datasets.schema import Payload
from physics.duty import USES
from twin.errors import BadInput

_DAY_S = 86400.0
_UNITS_S = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "y": 365 * 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|h|d|w|y)")


def parse_duration(value: object, *, zero: bool = False) -> float:
    """Seconds of `90s`, `10min`, `6h`, `30d`, `2y`, `1h30min`; a bare number counts as seconds."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
    else:
        text = str(value).strip().lower()
        parts = _DURATION.findall(text)
        if _DURATION.sub("", text).strip() or not parts:
            raise ValueError(f"expected a duration like 90s, 10min, 6h or 30d, got {value!r}")
        seconds = sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    if not (math.isfinite(seconds) and (seconds > 0 or (zero and seconds == 0))):
        raise ValueError(f"expected a duration above zero, got {value!r}")
    return seconds


def _parse_pace(value: object) -> float:
    if str(value).strip().lower() == "max":
        return math.inf
    try:
        pace = float(str(value))
    except ValueError:
        pace = math.nan
    if not pace > 0:
        raise ValueError(f"expected max or a number above zero (1 is real time), got {value!r}")
    return pace


_SIZES = {"MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}


def parse_size(value: object) -> int:
    """Bytes of `500MB`, `20GB`, `1TB`; a bare number counts as bytes."""
    text = str(value).strip()
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(MB|GB|TB)?", text, re.IGNORECASE)
    size = float(match[1]) * _SIZES.get((match[2] or "").upper(), 1) if match else 0.0
    if size < 1 << 20:
        raise ValueError(f"expected a size from 1MB up, like 500MB or 20GB, got {value!r}")
    return int(size)


def _parse_shards(value: object) -> int:
    if str(value).strip().lower() == "auto":
        return 0
    if not str(value).isdigit() or int(str(value)) < 1:
        raise ValueError(f"expected auto or a whole number from 1 up, got {value!r}")
    return int(str(value))


Duration = Annotated[float, BeforeValidator(parse_duration)]


class RunSettings(BaseModel):
    """What `twin run` takes. Times in seconds. An empty sink URL means: off."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    vehicles: int = Field(1000, ge=1, le=10_000_000, description="vehicles in the fleet")
    duration: float | None = Field(3600.0, description="simulated time")
    step: Duration = Field(1.0, description="simulation step")
    telemetry_every: float | None = Field(
        None, description="period of telemetry; default 2s, from a month on 1d; a day or more: whole lives in seconds"
    )
    predict_every: float | None = Field(None, description="period of predictions; default 5s, 30d for whole lives")
    checkpoint_every: Duration = Field(600.0, description="simulated time between checkpoints")
    pace: Annotated[float, BeforeValidator(_parse_pace)] = Field(math.inf, description="simulated over real time")
    seed: int = Field(1, ge=0, lt=2**63, description="same seed, same fleet")
    shards: Annotated[int, BeforeValidator(_parse_shards)] = Field("auto", description="Ray actors; auto: one a core")
    cell: str = Field("chen2020:0.75,prada2013:0.25", description="cell, or cells with their shares of the fleet")
    use: str = Field("", description="commuter, delivery, taxi or long_distance for all; default: a mix")
    oldest: float | None = Field(None, description="vehicles are between new and this old; default 10y, new for years")
    fault_share: float = Field(0.02, ge=0, le=1, description="share of vehicles that get a fault within ten years")
    start: datetime = Field(datetime(2026, 6, 1, 7, tzinfo=UTC), description="simulated time of the start, UTC")
    out: Path | None = Field(None, description="run directory; default runs/<time>")
    run_id: str | None = Field(None, pattern=r"^[A-Za-z0-9._-]{1,64}$", description="default: from the settings")
    kafka: str = Field("", description="host:port[,host:port]")
    mqtt: str = Field("", description="mqtt://[user:password@]host[:port]")
    mqtt_retain: bool = Field(
        False, description="the MQTT broker keeps each vehicle's last record for late subscribers"
    )
    timescale: str = Field("", description="postgresql://user[:password]@host[:port]/database")
    payload: Payload = Field("json", description="what a message of Kafka and MQTT is: json or avro")
    predict: bool = Field(True, description="run the predictor pool")
    bundle: Path | None = Field(None, description="model bundle; default: the one that ships")
    replicas: int = Field(2, ge=1, le=256, description="most replicas of the predictor pool")
    rest_host: str = Field("127.0.0.1", description="address of the predictor's REST interface")
    rest_port: int = Field(8000, ge=1, le=65535, description="its port")
    api_token: str = Field("", description="what REST callers must bear; needed beyond loopback")
    metrics_port: int = Field(9100, ge=0, le=65535, description="Prometheus port, 0 for off")
    address: str = Field("", description="Ray cluster (auto, ray://host:port); default: a local one")
    log_fsync: Fsync = Field("checkpoint", description="the log reaches the disk: at each checkpoint, or always")
    log_max_age: float | None = Field(None, description="drop delivered segments older than this; default: keep all")
    log_max_size: int | None = Field(None, description="drop delivered segments beyond this size of the run's log")
    drain_timeout: Duration = Field(60.0, description="longest wait at the end without progress of a sink")

    @field_validator("log_max_size", mode="before")
    @classmethod
    def _size(cls, value: object) -> object:
        return None if value is None else parse_size(value)

    @field_validator("duration", "telemetry_every", "predict_every", "log_max_age", mode="before")
    @classmethod
    def _no_duration(cls, value: object) -> object:
        return None if value is None else parse_duration(value)

    @field_validator("oldest", mode="before")
    @classmethod
    def _age(cls, value: object) -> object:
        return None if value is None else parse_duration(value, zero=True)

    @property
    def period(self) -> float:
        """Period of telemetry [s]."""
        if self.telemetry_every is not None:
            return self.telemetry_every
        return _DAY_S if self.duration is not None and self.duration >= 30 * _DAY_S else 2.0

    @property
    def prediction_period(self) -> float:
        """Period of predictions [s]."""
        if self.predict_every is not None:
            return self.predict_every
        return 30 * _DAY_S if self.fast_forward else 5.0

    @property
    def fast_forward(self) -> bool:
        """Whether days are lived in full only now and then."""
        return self.period >= _DAY_S

    @property
    def oldest_years(self) -> float:
        """Age of the oldest vehicle at the start."""
        if self.oldest is not None:
            return self.oldest / (365 * _DAY_S)
        return 0.0 if self.fast_forward else 10.0

    def cells(self) -> tuple[tuple[str, float], ...]:
        """(name, share) of each cell in the fleet."""
        pairs = []
        for part in self.cell.split(","):
            name, colon, share = part.strip().partition(":")
            try:
                value = float(share) if colon else 1.0
            except ValueError:
                value = math.nan
            if not name or not (math.isfinite(value) and value > 0):
                raise ValueError(f"expected a cell's name, or name:share[,name:share], got {self.cell!r}")
            pairs.append((name, value))
        return tuple(pairs)

    @field_validator("start")
    @classmethod
    def _utc(cls, start: datetime) -> datetime:
        return (start if start.tzinfo else start.replace(tzinfo=UTC)).astimezone(UTC)

    @model_validator(mode="after")
    def _periods(self) -> RunSettings:
        for name, value in (
            ("telemetry_every", self.period),
            ("predict_every", self.prediction_period),
            ("duration", self.duration),
        ):
            if value is not None and abs(value / self.step - round(value / self.step)) > 1e-9:
                raise ValueError(f"expected {name} as a whole number of steps of {self.step:g} s, got {value:g} s")
        if self.use and self.use not in USES:
            raise ValueError(f"expected use as one of {', '.join(USES)}, got {self.use}")
        self.cells()
        if self.fast_forward:
            for name, value in (("telemetry_every", self.period), ("duration", self.duration)):
                if value is not None and value % _DAY_S:
                    raise ValueError(
                        f"expected {name} as whole days where telemetry is daily or rarer, got {value:g} s"
                    )
        if self.rest_host not in ("127.0.0.1", "::1", "localhost") and not self.api_token:
            raise ValueError(
                f"expected an api_token (TWIN_API_TOKEN) where rest_host is {self.rest_host}: beyond loopback anybody "
                "could call the predictor"
            )
        return self

    def ticks(self, seconds: float) -> int:
        """Steps in so many seconds."""
        return round(seconds / self.step)

    def identity(self, physics: str) -> str:
        """The run_id: given, or the same for the same records (settings that decide them, and the physics' version)."""
        if self.run_id:
            return self.run_id
        names = ("vehicles", "duration", "step", "seed", "cell", "start")
        deciding = {name: str(getattr(self, name)) for name in names} | {
            "physics": physics,
            "periods": [self.period, self.prediction_period],
            "fleet": [self.use, self.oldest_years, self.fault_share],
        }
        return "run-" + hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:12]

    def shown(self) -> dict[str, Any]:
        """Plain values with secrets masked, for --print-config and run.json."""
        values = self.model_dump(mode="json")
        values["pace"] = "max" if math.isinf(self.pace) else self.pace
        values["shards"] = self.shards or "auto"
        values["api_token"] = "***" if self.api_token else ""
        for name in ("mqtt", "timescale"):
            values[name] = mask(values[name])
        return values


def load_settings(
    flags: Mapping[str, Any],
    config: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    base: Mapping[str, Any] | None = None,
) -> RunSettings:
    """Merge the layers and check them. BadInput in one line, with the name of the setting, where one does not fit.

    `base`: what lies under them all instead of the defaults, the settings of a run to resume.
    """
    layers = dict(base or {}) | _from_file(config) | _from_environment(environ)
    layers |= {name: value for name, value in flags.items() if value is not None}
    if layers.get("timescale"):
        layers["timescale"] = _with_password(str(layers["timescale"]), environ)
    try:
        return RunSettings(**layers)
    except ValidationError as error:
        raise BadInput(one_line(error)) from None


def _from_file(config: Path | None) -> dict[str, Any]:
    if config is None:
        return {}
    try:
        values = yaml.safe_load(config.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"--config: cannot read {config}: {error}") from error
    except yaml.YAMLError as error:
        raise BadInput(f"--config: {config} is not YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise BadInput(f"--config: expected settings as 'name: value' lines in {config}, got a {type(values).__name__}")
    return {str(name).replace("-", "_"): value for name, value in values.items()}


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if servers := environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        values["kafka"] = servers
    if host := environ.get("MQTT_HOST"):
        values["mqtt"] = f"mqtt://{host}:{environ.get('MQTT_PORT') or 1883}"
    if host := environ.get("PG_HOST"):
        user, database = environ.get("PG_USER") or "twin", environ.get("PG_DATABASE") or "twin_data"
        port = environ.get("PG_PORT") or 5432
        values["timescale"] = f"postgresql://{quote(user, safe='')}@{host}:{port}/{quote(database, safe='')}"
    for name in RunSettings.model_fields:
        if (value := environ.get(f"TWIN_{name.upper()}")) is not None:
            values[name] = value
    return values


def _with_password(url: str, environ: Mapping[str, str]) -> str:
    """PG_PASSWORD belongs to a database URL that names a user and no password."""
    password = environ.get("PG_PASSWORD")
    scheme, slashes, rest = url.partition("://")
    user, at, where = rest.rpartition("@")
    if not (password and slashes and at) or ":" in user:
        return url
    return f"{scheme}{slashes}{user}:{quote(password, safe='')}@{where}"


def one_line(error: ValidationError) -> str:
    """The first complaint, with the setting's name as the command line spells it."""
    first = error.errors(include_url=False)[0]
    name = str(first["loc"][0]).replace("_", "-") if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        known = ", ".join(RunSettings.model_fields)
        return f"unknown setting {name}; expected one of {known}"
    message = str(first["msg"]).removeprefix("Value error, ")
    if not message.startswith("expected"):
        message = message.replace("Input should be", "expected") + f", got {first['input']!r}"
    return f"--{name}: {message}" if name else message
