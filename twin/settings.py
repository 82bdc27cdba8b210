"""Defines every setting of every command once, in groups: its name, default, limits and meaning.

A value comes from the command line, else from the environment, else from a YAML file, else it is the default. It is
checked when its group is loaded (`Given.group`), and a command loads only the groups it takes. Options, help
(`twin/options.py`) and docs/settings.md are made from these groups.

Environment: every setting as TWIN_<NAME> (TWIN_VEHICLES=500), and the usual names of the services:
KAFKA_BOOTSTRAP_SERVERS; MQTT_HOST, MQTT_PORT, MQTT_PASSWORD; PG_HOST, PG_PORT, PG_USER, PG_PASSWORD, PG_DATABASE;
RAY_ADDRESS; MLFLOW_TRACKING_URI.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_args
from urllib.parse import quote, urlencode

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from actors.delivery.sinks.base import mask
from actors.prediction.plan import LOOPBACK
from datasets.names import REGISTERED_MODEL, Fsync, Payload, utc_text
from datasets.transmission import Transmission
from physics.default_fleet import CELL_SHARES, MODEL_SHARES, MODELS, MOST_FAULTY, OLDEST_YEARS, USE_SHARES, USES
from physics.sensors import DEFAULT_SENSORS, PROFILES, Sensors
from twin.errors import BadInput
from twin.say import LogFormat, LogLevel

_DAY_S = 86400.0
_YEAR_S = 365 * _DAY_S
_UNITS_S = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": _DAY_S, "w": 7 * _DAY_S, "y": _YEAR_S}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|h|d|w|y)")
_SIZES = {"MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}
_LAST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
ADDRESSES = ("kafka", "kafka_config", "mqtt", "timescale")
"""The settings that say where servers are, and how one gets in."""

PASSWORDS = {"mqtt": "MQTT_PASSWORD", "timescale": "PG_PASSWORD"}
"""Where the password of an address comes from that names only a user; on every node of a cluster."""

SECRETS = {"api_token": "TWIN_API_TOKEN", "metrics_token": "TWIN_METRICS_TOKEN", "page_token": "TWIN_PAGE_TOKEN"}
"""Settings of a run that are never written down, and where they come from instead."""

_OFF_WORDS = ("off", "no", "none", "false")


# ---- values


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


def _parse_age(value: object) -> float:
    return parse_duration(value, zero=True)


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


def _carried_by_a_header(token: str) -> str:
    if not re.fullmatch(r"[!-~]*", token):
        raise ValueError("expected ASCII letters, digits and signs without spaces, because a header has to carry it")
    return token


def _parse_clients(value: object) -> int:
    text = str(value).strip().lower()
    if text == "vehicle":
        return 0
    if not text.isdigit() or not 1 <= int(text) <= 1000:
        raise ValueError(f"expected vehicle (each has its own), or a number from 1 to 1000, got {value!r}")
    return int(text)


def parse_time(value: object) -> datetime:
    """The time in ISO 8601 text, or in what YAML makes of it, in UTC; without a zone it is UTC already."""
    moment: object = value
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError:
            moment = None
    elif isinstance(value, date) and not isinstance(value, datetime):
        moment = datetime.combine(value, time())
    if not isinstance(moment, datetime):  # a number, too: is it a year, or seconds since 1970?
        raise ValueError(f"expected a time like 2026-06-01T07:00Z, got {value!r}")
    try:
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:
        raise ValueError(f"expected a time in the years 1 to 9999, UTC, got {value!r}") from None


@dataclass(frozen=True)
class Form:
    """How a value is written, for help and completion."""

    metavar: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Off:
    """The words off, no, none and false mean this value. YAML gives some of them as False."""

    value: Any


def _parse_sensors(value: object) -> object:
    """A profile's name, or the figures of a YAML file or of a mapping that stands in the settings file itself."""
    figures = value
    if isinstance(value, str):
        if value in PROFILES:
            return value
        try:
            figures = _read_yaml(Path(value))
        except ValueError as error:
            raise ValueError(f"expected one of {', '.join(PROFILES)}, or a file of figures; {error}") from None
    if not isinstance(figures, Mapping):
        raise ValueError(f"expected one of {', '.join(PROFILES)}, or a file with figures, got {value!r}")
    return Sensors.of(figures).figures()


def _read_yaml(path: Path) -> object:
    """What a YAML file holds. A ValueError says in one line why it cannot be read."""
    import yaml

    try:
        return yaml.safe_load(path.read_text())
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8 ({error.reason})") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the last two: a day that no calendar has
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error


SensorProfile = Annotated[
    str | dict[str, Any], BeforeValidator(_parse_sensors), Form(f"{'|'.join(PROFILES)}|FILE", tuple(PROFILES))
]
Duration = Annotated[float, BeforeValidator(parse_duration), Form("DURATION")]
Age = Annotated[float, BeforeValidator(_parse_age), Form("DURATION")]
Size = Annotated[int, BeforeValidator(parse_size), Form("SIZE")]
Pace = Annotated[float, BeforeValidator(_parse_pace), Form("max|NUMBER")]
Clients = Annotated[int, BeforeValidator(_parse_clients), Form("INTEGER|vehicle")]
Time = Annotated[datetime, BeforeValidator(parse_time), Form("TIME")]
Shards = Annotated[int, BeforeValidator(_parse_shards), Form("auto|INTEGER")]
Port = Annotated[int, Field(ge=1, le=65535)]
PortOrOff = Annotated[int, Field(ge=0, le=65535), Off(0)]
KafkaServers = Annotated[str, Form("HOST:PORT[,HOST:PORT]"), Off("")]
MqttUrl = Annotated[str, Form("URL"), Off("")]
DatabaseUrl = Annotated[str, Form("URL"), Off("")]
Token = Annotated[str, AfterValidator(_carried_by_a_header)]
TopicName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,200}$"), Form("NAME")]


def _setting(
    default: Any,
    description: str,
    *,
    default_text: str = "",
    environment: str = "",
    option: bool = True,
    **limits: Any,
) -> Any:
    """A field of a group.

    `default_text` is the default in words, where the value does not say it. `environment` names other variables that
    set the field. `option` is False for secrets, because everybody on the machine sees command-line options.
    """
    extra: dict[str, Any] = {"default_text": default_text, "environment": environment, "option": option}
    return Field(default, description=description, json_schema_extra=extra, **limits)


# ---- groups


class Group(BaseModel):
    """Settings of one concern. `prefix` comes before their names in a file and in the environment."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
    title: ClassVar[str] = ""
    prefix: ClassVar[str] = ""


class Population(Group):
    """Who is in the fleet."""

    title = "Population"

    vehicles: int = _setting(1000, "vehicles in the fleet", ge=1, le=10_000_000)
    seed: int = _setting(1, "the same seed makes the same fleet", ge=0, lt=2**63)
    cell: Annotated[str, Form("NAME[:SHARE,..]")] = _setting(
        ",".join(f"{name}:{share:g}" for name, share in CELL_SHARES.items()),
        "one cell, or several with their shares of the fleet",
    )
    use: Annotated[str, Form("USE", USES)] = _setting(
        "",
        "one use for every vehicle",
        default_text="a mix: " + ", ".join(f"{share:.0%} {use}" for use, share in USE_SHARES.items()),
    )
    model: Annotated[str, Form("NAME[:SHARE,..]", MODELS)] = _setting(
        "",
        "one vehicle model, or several with their shares of the fleet",
        default_text="a mix: "
        + ", ".join(f"{share:.0%} {model}" for model, share in MODEL_SHARES.items())
        + "; most deliveries with a van",
    )
    oldest: Age | None = _setting(
        None,
        "highest age of a vehicle at the start",
        default_text=f"{OLDEST_YEARS:g}y; 0s where telemetry is daily or rarer",
    )
    fault_share: float | None = _setting(
        None,
        "share of vehicles that get a fault within ten years; training wants more than the field has",
        default_text="the rates of the field, some 5 %",
        ge=0,
        le=MOST_FAULTY,
    )
    drains: bool = _setting(True, "parked vehicles supply their 12 V side, and cells discharge themselves")

    @field_validator("use")
    @classmethod
    def _known_use(cls, use: str) -> str:
        if use and use not in USES:
            raise ValueError(f"expected one of {', '.join(USES)}, got {use!r}")
        return use

    @field_validator("cell")
    @classmethod
    def _named_cells(cls, cell: str) -> str:
        _shares(cell, "a cell's name")
        return cell

    @field_validator("model")
    @classmethod
    def _known_models(cls, model: str) -> str:
        for name, _ in _shares(model, "a model's name") if model else ():
            if name not in MODELS:
                raise ValueError(f"expected models of {', '.join(MODELS)}, got {name!r}")
        return model

    def cells(self) -> tuple[tuple[str, float], ...]:
        """(name, share) of each cell in the fleet."""
        return _shares(self.cell, "a cell's name")

    def models(self) -> tuple[tuple[str, float], ...] | None:
        """(name, share) of each vehicle model in the fleet; None for the mix."""
        return _shares(self.model, "a model's name") if self.model else None


def _shares(text: str, what: str) -> tuple[tuple[str, float], ...]:
    pairs: list[tuple[str, float]] = []
    for part in text.split(","):
        name, colon, share = part.strip().partition(":")
        try:
            value = float(share) if colon else 1.0
        except ValueError:
            value = math.nan
        if not name or not (math.isfinite(value) and value > 0):
            raise ValueError(f"expected {what}, or name:share[,name:share], got {text!r}")
        if name in dict(pairs):
            raise ValueError(f"expected each name once, got {name} twice in {text!r}")
        pairs.append((name, value))
    return tuple(pairs)


class Reporting(Group):
    """What vehicles report of what they are."""

    title = "Reporting"

    sensors: SensorProfile = _setting(
        DEFAULT_SENSORS, "how far sensors and battery management are off: a profile, or a YAML file of figures"
    )

    send_on_change: bool = _setting(False, "a vehicle sends a record only when something has changed")
    send_every: Duration = _setting(120.0, "longest silence of a vehicle that sends on change", default_text="2min")
    sleep_after: Duration | None = _setting(
        None, "a vehicle parked for so long sends nothing until it moves or charges", default_text="never sleeps"
    )
    drop: float = _setting(0.0, "share of records lost on the way for good", ge=0, le=1)
    late: float = _setting(0.0, "share of records that come late, so that others overtake them", ge=0, le=1)
    late_by: Duration = _setting(600.0, "longest delay of a late record", default_text="10min")
    repeat: float = _setting(0.0, "share of records sent twice", ge=0, le=1)
    clock_error: Age = _setting(
        0.0, "standard deviation, between vehicles, of what their clocks are off by", default_text="0s"
    )

    def transmission(self) -> Transmission:
        """How records leave a vehicle."""
        return Transmission(
            on_change=self.send_on_change,
            every_s=self.send_every,
            sleep_after_s=self.sleep_after,
            drop=self.drop,
            late=self.late,
            late_by_s=self.late_by,
            repeat=self.repeat,
            clock_error_s=self.clock_error,
        )

    def profile(self) -> Sensors:
        """The figures."""
        return PROFILES[self.sensors] if isinstance(self.sensors, str) else Sensors.of(self.sensors)


class Clock(Group):
    """Simulated time. Seconds."""

    title = "Clock"

    duration: Duration | None = _setting(3600.0, "simulated time: 90s, 10min, 6h, 30d, 10y", default_text="1h")
    step: Duration = _setting(1.0, "simulation step", default_text="1s")
    telemetry_every: Duration | None = _setting(
        None,
        "period of telemetry; from a day up, most days are extrapolated, so whole lives take seconds",
        default_text="2s; 1d for runs of 30d or more",
    )
    predict_every: Duration | None = _setting(
        None, "period of predictions", default_text="5s; 30d where telemetry is daily or rarer"
    )
    checkpoint_every: Duration = _setting(
        600.0,
        "simulated time between checkpoints",
        default_text="10min",
    )
    pace: Pace = _setting(
        math.inf, "simulated seconds per real second: 1 is real time, max is as fast as possible", default_text="max"
    )
    start: Time = _setting(
        datetime(2026, 6, 1, 7, tzinfo=UTC), "simulated time at the start, UTC", default_text="2026-06-01T07:00Z"
    )

    @property
    def telemetry_s(self) -> float:
        """Period of telemetry [s]."""
        if self.telemetry_every is not None:
            return self.telemetry_every
        return _DAY_S if self.duration is not None and self.duration >= 30 * _DAY_S else 2.0

    @property
    def prediction_s(self) -> float:
        """Period of predictions [s]."""
        if self.predict_every is not None:
            return self.predict_every
        return 30 * _DAY_S if self.fast_forward else 5.0

    @property
    def fast_forward(self) -> bool:
        """Whether only some days are simulated in full."""
        return self.telemetry_s >= _DAY_S

    def ticks(self, seconds: float) -> int:
        """The number of steps in `seconds`."""
        return round(seconds / self.step)

    def check_end(self, seconds: float) -> None:
        """ValueError where a run of so many simulated seconds would leave the calendar."""
        if seconds > (_LAST - self.start).total_seconds():
            raise ValueError(
                f"expected start and duration to end in the year 9999 at the latest, got {utc_text(self.start)}"
                f" and {seconds:g} s"
            )

    @field_validator("start")
    @classmethod
    def _whole(cls, start: datetime) -> datetime:
        if start.microsecond:
            raise ValueError(f"expected whole seconds, got {start.isoformat()}")
        return start

    @model_validator(mode="after")
    def _periods(self) -> Clock:
        self.check_end(self.duration or 0.0)
        for name, value in (
            ("telemetry_every", self.telemetry_s),
            ("predict_every", self.prediction_s),
            ("duration", self.duration),
        ):
            if value is not None and abs(value / self.step - round(value / self.step)) > 1e-9:
                raise ValueError(f"expected {name} as a whole number of steps of {self.step:g} s, got {value:g} s")
        if self.fast_forward:
            for name, value in (("telemetry_every", self.telemetry_s), ("duration", self.duration)):
                if value is not None and value % _DAY_S:
                    raise ValueError(
                        f"expected {name} as whole days where telemetry is daily or rarer, got {value:g} s"
                    )
        return self


class Servers(Group):
    """Where records go. An empty address means off."""

    title = "Servers"

    kafka: KafkaServers = _setting(
        "",
        "Kafka servers, host:port[,host:port][/prefix of topics]",
        default_text="off",
        environment="KAFKA_BOOTSTRAP_SERVERS",
    )
    kafka_config: Path | None = _setting(
        None,
        "file of properties for Kafka's clients, in librdkafka's names, on each node: security.protocol=SASL_SSL ..",
        default_text="none",
    )
    kafka_partitions: int | None = _setting(
        None, "partitions of a Kafka topic that is not there yet", default_text="the broker's", ge=1, le=10_000
    )
    kafka_replication: int | None = _setting(
        None, "replicas of a Kafka topic that is not there yet", default_text="the broker's", ge=1, le=100
    )
    mqtt: MqttUrl = _setting(
        "",
        "MQTT broker, mqtt://[user:password@]host[:port][/root of topics]; with TLS "
        "mqtts://..[?cafile=FILE&certfile=FILE&keyfile=FILE]",
        default_text="off",
        environment="MQTT_HOST, MQTT_PORT, MQTT_USER, MQTT_PASSWORD, MQTT_CAFILE, MQTT_CERTFILE, MQTT_KEYFILE",
    )
    mqtt_retain: bool = _setting(False, "the MQTT broker keeps each vehicle's last record for late subscribers")
    mqtt_clients: Clients = _setting(
        1, "MQTT connections of a node for each stream; vehicle: one for each vehicle's telemetry"
    )
    timescale: DatabaseUrl = _setting(
        "",
        "TimescaleDB or PostgreSQL, postgresql://user[:password]@host[:port][,host:port]/database",
        default_text="off",
        environment="PG_HOST, PG_PORT, PG_USER, PG_PASSWORD, PG_DATABASE",
    )
    timescale_connections: int = _setting(
        90, "most database connections of a run; every node needs one, and takes two if it may", ge=1, le=10_000
    )
    payload: Payload = _setting("json", "encoding of the messages to Kafka and MQTT")
    drain_timeout: Duration = _setting(
        60.0, "longest wait at the end for a sink that makes no progress", default_text="60s"
    )


class Log(Group):
    """The run directory and its log."""

    title = "Run directory and log"

    out: Path | None = _setting(None, "run directory, new or empty", default_text="runs/<time>")
    run_id: Annotated[str, Form("NAME")] | None = _setting(
        None,
        "name of the run in every record",
        default_text="made from its settings",
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
    )
    log_fsync: Fsync = _setting("checkpoint", "when the log is forced to the disk")
    log_max_age: Annotated[Duration | None, Off(None)] = _setting(
        None, "drop delivered segments older than this", default_text="keep all"
    )
    log_max_size: Annotated[Size | None, Off(None)] = _setting(
        None, "drop the oldest delivered segments when the run's log exceeds this size", default_text="keep all"
    )
    accept_loss: bool = _setting(
        False, "go on without records that the log does not hold any more, and count them as lost"
    )


class Pool(Group):
    """The predictor pool."""

    title = "Predictor pool"

    predict: bool = _setting(True, "run the predictor pool")
    predictor_model: Annotated[str, Form("FOLDER|URI")] = _setting(
        "",
        "the pool's model: a bundle's folder, models:/NAME@ALIAS, models:/NAME/NUMBER or runs:/RUN_ID/PATH",
        default_text="the champion of the registry, where tracking_uri names one; else the bundled model",
    )
    bundle: Path | None = _setting(None, "folder of a model bundle; the same as predictor_model", default_text="none")
    predictor_poll: Duration = _setting(10.0, "how often the registry is asked for another model", default_text="10s")
    predictor_cache: Path | None = _setting(
        None, "where fetched models are kept", default_text="ev-battery-fleet-twin/models in the user's cache folder"
    )
    min_replicas: int = _setting(1, "smallest number of replicas in the pool", ge=1, le=256)
    replicas: int = _setting(2, "largest number of replicas in the pool", ge=1, le=256)
    rest_queue: int = _setting(
        128, "most requests that wait for a replica; one more is answered with 503 and Retry-After", ge=1, le=100_000
    )
    rest_rate: Annotated[int | None, Off(None)] = _setting(
        None,
        "most requests a second that a replica takes from one address; one more is answered with 429 and Retry-After",
        default_text="off",
        ge=1,
    )
    rest_host: Annotated[str, Form("ADDRESS")] = _setting("127.0.0.1", "address of the REST interface")
    rest_port: Port = _setting(8000, "port of the REST interface")
    api_token: Token = _setting(
        "",
        "token that REST callers must send; required unless rest_host is loopback",
        default_text="none",
        option=False,
    )

    @property
    def cache(self) -> Path:
        """Where fetched models are kept."""
        user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return (self.predictor_cache or user / "ev-battery-fleet-twin" / "models").absolute()

    @model_validator(mode="after")
    def _one_model(self) -> Pool:
        if self.bundle is not None and self.predictor_model:
            raise ValueError("expected either a bundle or a predictor_model, got both")
        if self.min_replicas > self.replicas:
            raise ValueError(f"expected min_replicas up to replicas ({self.replicas}), got {self.min_replicas}")
        return self

    @model_validator(mode="after")
    def _token(self) -> Pool:
        if self.rest_host not in LOOPBACK and not self.api_token:
            raise ValueError(
                f"expected an api_token (TWIN_API_TOKEN) where rest_host is {self.rest_host}; without one, anybody on "
                "the network could call the predictor"
            )
        return self


class ModelRegistry(Group):
    """Where models are registered."""

    title = "Model registry"

    tracking_uri: Annotated[str, Form("URI"), Off("")] = _setting(
        "",
        "MLflow's tracking server or database: http://HOST:PORT, sqlite:///FILE",
        default_text="off",
        environment="MLFLOW_TRACKING_URI",
    )
    registry_model: Annotated[str, Form("NAME")] = _setting(
        REGISTERED_MODEL, "name of the registered model", pattern=r"^[A-Za-z0-9._-]{1,100}$"
    )


_LOG_FORMAT = "form of the messages on stderr; json has a line of time, level, run_id, logger and message each"
_LOG_LEVEL = "messages from this level on"
_METRICS_TOKEN = "token that those who scrape must send; required unless metrics_host is loopback"


def _expect_token(host: str, token: str, variable: str) -> None:
    if host not in LOOPBACK and not token:
        raise ValueError(f"expected a metrics_token ({variable}) where metrics_host is {host}")


class Processes(Group):
    """Ray, and the driver's metrics."""

    title = "Processes"

    shards: Shards = _setting("auto", "number of Ray actors that hold the vehicles; auto is one per core")
    address: Annotated[str, Form("auto|ray://HOST:PORT")] = _setting(
        "", "address of the Ray cluster", default_text="a local one", environment="RAY_ADDRESS"
    )
    metrics_host: Annotated[str, Form("ADDRESS")] = _setting("127.0.0.1", "address of the Prometheus metrics")
    metrics_port: PortOrOff = _setting(9100, "port of the Prometheus metrics, 0 for off")
    metrics_token: Token = _setting("", _METRICS_TOKEN, default_text="none", option=False)
    log_format: LogFormat = _setting("text", _LOG_FORMAT)
    log_level: LogLevel = _setting("warning", _LOG_LEVEL)

    @model_validator(mode="after")
    def _guarded(self) -> Processes:
        _expect_token(self.metrics_host, self.metrics_token, "TWIN_METRICS_TOKEN")
        return self


class Encryption(Group):
    """TLS of what a run serves itself: the REST interface, the metrics with health, the live page."""

    title = "TLS of our own addresses"

    tls_cert: Annotated[Path | None, Off(None)] = _setting(
        None,
        "certificate with its chain (PEM) of the REST interface, the metrics and the live page; REST needs it on "
        "every node",
        default_text="none: HTTP without encryption",
    )
    tls_key: Annotated[Path | None, Off(None)] = _setting(
        None, "private key of tls_cert (PEM, without a passphrase)", default_text="none"
    )

    @property
    def scheme(self) -> str:
        """How our addresses begin."""
        return "https" if self.tls_cert else "http"

    @model_validator(mode="after")
    def _both(self) -> Encryption:
        if (self.tls_cert is None) != (self.tls_key is None):
            given, missing = ("tls_cert", "tls_key") if self.tls_cert else ("tls_key", "tls_cert")
            raise ValueError(f"expected {missing}, because {given} is given")
        return self


class Page(Group):
    """The live page, beside a run or of its own (`twin watch`)."""

    title = "Live page"

    page_host: Annotated[str, Form("ADDRESS")] = _setting("127.0.0.1", "address of the live page")
    page_port: PortOrOff = _setting(
        0,
        "port of the live page, which shows what the MQTT broker carries; 0 for off",
        default_text="off; 8050 for twin watch",
    )
    page_token: Token = _setting(
        "",
        "token that those who look must give; required unless page_host is loopback",
        default_text="none",
        option=False,
    )
    page_silent: Duration = _setting(30.0, "a vehicle is silent after so long without a record", default_text="30s")
    page_vehicles: int = _setting(20_000, "most vehicles on the page, about 6 kB each", ge=1, le=1_000_000)

    @property
    def place(self) -> str:
        """Its host and port as a browser wants them."""
        host = f"[{self.page_host}]" if ":" in self.page_host else self.page_host
        return f"{host}:{self.page_port}"

    @model_validator(mode="after")
    def _guarded(self) -> Page:
        if self.page_host not in LOOPBACK and not self.page_token:
            raise ValueError(
                f"expected a page_token (TWIN_PAGE_TOKEN) where page_host is {self.page_host}; without one, anybody on "
                "the network could see the fleet"
            )
        return self


class Consumer(Group):
    """What `twin consume` takes besides the servers."""

    title = "Consumer"
    prefix = "consume_"

    group: TopicName = _setting("ev-twin-consume", "consumer group")
    topic: TopicName = _setting("ev-telemetry", "topic to read telemetry from")
    output: TopicName = _setting("ev-fleet-minute", "topic to write aggregates to")
    lateness: Duration = _setting(
        10.0, "how long a minute stays open for late records, in simulated time", default_text="10s"
    )
    idle_timeout: Duration = _setting(30.0, "a minute without new records closes after this", default_text="30s")
    until_idle: Annotated[Duration | None, Off(None)] = _setting(
        None, "end when nothing has come for this long", default_text="never"
    )
    max_open: int = _setting(1_000_000, "most vehicles in open minutes, about 200 bytes each", ge=1)
    metrics_host: Annotated[str, Form("ADDRESS")] = _setting("127.0.0.1", "address of the Prometheus metrics")
    metrics_port: PortOrOff = _setting(9101, "port of the Prometheus metrics, 0 for off")
    metrics_token: Token = _setting("", _METRICS_TOKEN, default_text="none", option=False)
    log_format: LogFormat = _setting("text", _LOG_FORMAT)
    log_level: LogLevel = _setting("warning", _LOG_LEVEL)

    @model_validator(mode="after")
    def _guarded(self) -> Consumer:
        _expect_token(self.metrics_host, self.metrics_token, "TWIN_CONSUME_METRICS_TOKEN")
        return self


RUN_GROUPS: tuple[type[Group], ...] = (
    Population, Reporting, Clock, Servers, Log, Pool, ModelRegistry, Processes, Page, Encryption,
)  # fmt: skip
GROUPS: tuple[type[Group], ...] = (*RUN_GROUPS, Consumer)


@dataclass(frozen=True)
class RunSettings:
    """What `twin run` takes."""

    population: Population
    reporting: Reporting
    clock: Clock
    servers: Servers
    log: Log
    pool: Pool
    registry: ModelRegistry
    processes: Processes
    page: Page
    encryption: Encryption

    @property
    def groups(self) -> tuple[Group, ...]:
        """All groups, in the order of `RUN_GROUPS`."""
        return (
            self.population, self.reporting, self.clock, self.servers, self.log, self.pool, self.registry,
            self.processes, self.page, self.encryption,
        )  # fmt: skip

    @property
    def oldest_years(self) -> float:
        """Highest age of a vehicle at the start."""
        if self.population.oldest is not None:
            return self.population.oldest / _YEAR_S
        return 0.0 if self.clock.fast_forward else OLDEST_YEARS

    def identity(self, physics: str) -> str:
        """The given run_id, or one made from what decides the records: some settings and the version of the physics."""
        if self.log.run_id:
            return self.log.run_id
        who, clock = self.population, self.clock
        deciding: dict[str, Any] = {
            name: str(getattr(group, name))
            for group, names in ((who, ("vehicles", "seed", "cell")), (clock, ("duration", "step", "start")))
            for name in names
        }
        deciding |= {
            "physics": physics,
            "periods": [clock.telemetry_s, clock.prediction_s],
            "fleet": [who.use, who.model, self.oldest_years, who.fault_share, who.drains],
            "reporting": self.reporting.model_dump(mode="json"),
        }
        return "run-" + hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:12]

    def shown(self) -> dict[str, Any]:
        """Plain values by name with secrets masked, for --print-config and run.json."""
        values = {
            name: mask(value) if isinstance(getattr(group, name), str) else value  # a path is no address
            for group in self.groups
            for name, value in group.model_dump(mode="json").items()
        }
        values["pace"] = "max" if math.isinf(self.clock.pace) else self.clock.pace
        values["mqtt_clients"] = self.servers.mqtt_clients or "vehicle"
        values["shards"] = self.processes.shards or "auto"
        values |= {name: "***" if values[name] else "" for name in SECRETS}
        return values


# ---- loading


class Given:
    """What a command was given, not checked yet. Options beat the environment, then come the file and `base`.

    `flags`: by option name, None for not given. `base`: the settings of a run to go on with, instead of the defaults.
    """

    def __init__(
        self,
        flags: Mapping[str, Any],
        config: Path | None = None,
        environ: Mapping[str, str] = os.environ,
        base: Mapping[str, Any] | None = None,
    ) -> None:
        self.flags = {name: value for name, value in flags.items() if value is not None}
        self._file = dict(base or {}) | _from_file(config)
        self._environ = environ

    def group[G: Group](self, kind: type[G], only: Collection[str] = ()) -> G:
        """The checked settings of one group. With `only`, all others keep their defaults. BadInput in one line."""
        values = {}
        services = _from_services(self._environ)
        for name, field in kind.model_fields.items():
            if only and name not in only:
                continue
            key = kind.prefix + name
            found = [
                *([self.flags[name]] if name in self.flags else []),
                *([self._environ[f"TWIN_{key.upper()}"]] if f"TWIN_{key.upper()}" in self._environ else []),
                *([services[name]] if name in services and not kind.prefix else []),
                *([self._file[key]] if key in self._file else []),
            ]
            if found:
                values[name] = _plain(name, field, found[0])
        for name, variable in PASSWORDS.items():
            if isinstance(values.get(name), str):
                values[name] = _with_password(values[name], self._environ.get(variable))
        try:
            return kind(**values)
        except ValidationError as error:
            raise BadInput(_one_line(kind, error)) from None

    def run(self) -> RunSettings:
        """All settings that a run takes."""
        return RunSettings(
            population=self.group(Population),
            reporting=self.group(Reporting),
            clock=self.group(Clock),
            servers=self.group(Servers),
            log=self.group(Log),
            pool=self.group(Pool),
            registry=self.group(ModelRegistry),
            processes=self.group(Processes),
            page=self.group(Page),
            encryption=self.group(Encryption),
        )


def load_settings(
    flags: Mapping[str, Any],
    config: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    base: Mapping[str, Any] | None = None,
) -> RunSettings:
    """The settings of a run. BadInput names the setting that does not fit, in one line."""
    unknown = [name for name in flags if not any(name in kind.model_fields for kind in RUN_GROUPS)]
    if unknown:
        raise BadInput(_unknown(unknown[0]))
    return Given(flags, config, environ, base).run()


def setting_names() -> Iterator[str]:
    """The names of all settings, as in a file. In the environment they are TWIN_<NAME>."""
    for kind in GROUPS:
        for name in kind.model_fields:
            yield kind.prefix + name


def form_of(field: FieldInfo) -> Form:
    """How a value of the field is written."""
    for note in _notes(field):
        if isinstance(note, Form):
            return note
    kinds = {kind for kind in (field.annotation, *get_args(field.annotation)) if isinstance(kind, type)}
    if choices := [str(choice) for choice in get_args(field.annotation) if isinstance(choice, str)]:
        return Form("|".join(choices), tuple(choices))
    named: dict[type, str] = {bool: "BOOLEAN", int: "INTEGER", float: "NUMBER", Path: "PATH", str: "TEXT"}
    form = next((metavar for kind, metavar in named.items() if kind in kinds), "TEXT")
    low = next((value.ge for value in field.metadata if hasattr(value, "ge")), None)
    high = next((value.le for value in field.metadata if hasattr(value, "le")), None)
    if low is not None and high is not None:
        return Form(f"{form} {low:g}..{high:,}" if isinstance(high, int) else f"{form} {low:g}..{high:g}")
    return Form(form)


def extra_of(field: FieldInfo) -> dict[str, Any]:
    """What `_setting` noted on the field."""
    extra = field.json_schema_extra
    return dict(extra) if isinstance(extra, dict) else {}


def default_of(field: FieldInfo) -> str:
    """The default in words."""
    default = field.default
    if text := str(extra_of(field).get("default_text", "")):
        return text
    if isinstance(default, bool):
        return "on" if default else "off"
    return f"{default}"


def _notes(field: FieldInfo) -> Iterator[Any]:
    """Everything noted beside a field's type, also inside a union."""
    yield from field.metadata
    for kind in get_args(field.annotation):
        yield from getattr(kind, "__metadata__", ())


def _plain(name: str, field: FieldInfo, value: Any) -> Any:
    """The value as its field's type can take it. Handles words for off, and booleans that YAML made of words."""
    off = next((note for note in _notes(field) if isinstance(note, Off)), None)
    if off is not None and (value is False or (isinstance(value, str) and value.strip().lower() in _OFF_WORDS)):
        return off.value
    if isinstance(value, bool) and field.annotation is not bool:
        said = "on, yes or true" if value else "off, no or false"
        raise BadInput(
            f"--{name.replace('_', '-')}: expected {form_of(field).metavar}, got {said}"
            " (YAML reads these words as a switch; put them in quotes if you mean the word itself)"
        )
    return value


def _from_file(config: Path | None) -> dict[str, Any]:
    if config is None:
        return {}
    try:
        values = _read_yaml(config)
    except ValueError as error:
        raise BadInput(f"--config: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise BadInput(f"--config: expected settings as 'name: value' lines in {config}, got a {type(values).__name__}")
    named = {str(name).replace("-", "_"): value for name, value in values.items()}
    known = set(setting_names())
    for name in named:
        if name not in known:
            raise BadInput(_unknown(name))
    return named


def _unknown(name: str) -> str:
    return f"unknown setting {name.replace('_', '-')}; expected one of {', '.join(setting_names())}"


def _from_services(environ: Mapping[str, str]) -> dict[str, str]:
    """Addresses from the environment variables that the services' other clients use."""
    values: dict[str, str] = {}
    if address := environ.get("RAY_ADDRESS"):  # this is how a job of `ray job submit` finds its cluster
        values["address"] = address
    if registry := environ.get("MLFLOW_TRACKING_URI"):
        values["tracking_uri"] = registry
    if servers := environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        values["kafka"] = servers
    if host := environ.get("MQTT_HOST"):
        names = ("cafile", "certfile", "keyfile")
        files = urlencode({name: path for name in names if (path := environ.get(f"MQTT_{name.upper()}"))})
        scheme, usual = ("mqtts", 8883) if files else ("mqtt", 1883)
        user = f"{quote(environ['MQTT_USER'], safe='')}@" if environ.get("MQTT_USER") else ""
        values["mqtt"] = f"{scheme}://{user}{host}:{environ.get('MQTT_PORT') or usual}{'?' if files else ''}{files}"
    if host := environ.get("PG_HOST"):
        user, database = environ.get("PG_USER") or "twin", environ.get("PG_DATABASE") or "twin_data"
        port = environ.get("PG_PORT") or 5432
        values["timescale"] = f"postgresql://{quote(user, safe='')}@{host}:{port}/{quote(database, safe='')}"
    return values


def _with_password(url: str, password: str | None) -> str:
    """Add the password to an address that names a user but no password."""
    place, question, query = url.partition("?")
    scheme, slashes, rest = place.partition("://")
    user, at, where = rest.rpartition("@")
    if not (password and slashes and at) or ":" in user:
        return url
    return f"{scheme}{slashes}{user}:{quote(password, safe='')}@{where}{question}{query}"


def _one_line(kind: type[Group], error: ValidationError) -> str:
    """The first complaint, with the setting's name as the command line spells it, and without secrets."""
    first = error.errors(include_url=False)[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    message = str(first["msg"]).removeprefix("Value error, ")
    if not message.startswith("expected"):
        message = message.replace("Input should be", "expected")
        if name not in kind.model_fields or extra_of(kind.model_fields[name]).get("option", True):
            message += f", got {mask(repr(first['input']))}"
    return f"--{name.replace('_', '-')}: {message}" if name else message


def checked[T](flag: str, parse: Callable[[str], T], text: str) -> T:
    """`parse(text)`. A ValueError becomes BadInput for the option."""
    try:
        return parse(text)
    except ValueError as error:
        raise BadInput(f"{flag}: {error}") from None
