"""Settings: layers, forms, limits, and one line for what does not fit."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from actors.delivery.sinks import LIVE_SINKS
from actors.delivery.sinks.base import mask, unmasked
from physics import draw_population
from physics.default_fleet import CELL_SHARES, OLDEST_YEARS
from twin.errors import BadInput
from twin.servers import targets_of
from twin.settings import (
    GROUPS,
    RUN_GROUPS,
    SECRETS,
    Clock,
    Consumer,
    Given,
    Population,
    RunSettings,
    Servers,
    extra_of,
    load_settings,
    parse_duration,
    setting_names,
)


def load(environ: Any = None, config: Any = None, **flags: Any) -> RunSettings:
    return load_settings(flags, config, environ=environ or {})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("10min", 600),
        ("6h", 21600),
        ("30d", 2592000),
        ("1h30min", 5400),
        ("250ms", 0.25),
        (7, 7),
        ("2y", 63072000),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "10",
        "0s",
        "-5s",
        "1h garbage",
        "nan",
        "inf",
        None,
        0,
        -1,
        True,
        "5 parsecs",
        "1h foo",
        float("nan"),
        "ten minutes",
    ],
)
def test_no_durations(text: object) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(text)


def test_layers(tmp_path: Path) -> None:
    config = tmp_path / "fleet.yaml"
    config.write_text("vehicles: 10\nseed: 3\nkafka: file:1\nduration: 2h\n")
    settings = load(
        {"TWIN_VEHICLES": "20", "TWIN_SEED": "4", "KAFKA_BOOTSTRAP_SERVERS": "env:1"}, config, vehicles="30"
    )
    who, clock, servers = settings.population, settings.clock, settings.servers
    assert (who.vehicles, who.seed, clock.duration, servers.kafka) == (30, 4, 7200.0, "env:1")
    assert clock.pace == math.inf


def test_the_names_of_the_services(tmp_path: Path) -> None:
    environ = {
        "MQTT_HOST": "broker", "PG_HOST": "db", "PG_USER": "me", "PG_PASSWORD": "s@/cret", "PG_DATABASE": "data",
    }  # fmt: skip
    settings = load(environ)
    assert settings.servers.timescale == "postgresql://me:s%40%2Fcret@db:5432/data"
    assert settings.servers.mqtt == "mqtt://broker:1883"
    assert settings.shown()["timescale"] == "postgresql://me:***@db:5432/data"
    own = load(environ | {"TWIN_TIMESCALE": "postgresql://me@other/data"})
    assert own.servers.timescale == "postgresql://me:s%40%2Fcret@other/data", "a password belongs to the user, anywhere"
    assert load(environ, mqtt="").servers.mqtt == ""
    assert load({"RAY_ADDRESS": "10.0.0.1:6379"}).processes.address == "10.0.0.1:6379"
    assert load({"TWIN_MQTT": "mqtt://mine"} | environ).servers.mqtt == "mqtt://mine"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"vehicles": "0"}, "--vehicles: expected greater than or equal to 1, got '0'"),
        ({"vehicles": "-3"}, "--vehicles: expected greater"),
        ({"vehicles": "many"}, "--vehicles: expected a valid integer"),
        ({"pace": "fast"}, "--pace: expected max or a number above zero"),
        ({"pace": "nan"}, "--pace: expected max"),
        ({"shards": "1.5"}, "--shards: expected auto"),
        ({"duration": "1 fortnight"}, "--duration: expected a duration like 90s"),
        ({"telemetry_every": "2500ms"}, "expected telemetry_every as a whole number of steps"),
        ({"seed": "-1"}, "--seed: expected greater"),
        ({"start": "yesterday"}, "--start: "),
        ({"rest_port": "99999"}, "--rest-port: expected less"),
        ({"log_max_size": "12"}, "--log-max-size: expected a size from 1MB up, like 500MB or 20GB, got '12'"),
        ({"log_max_size": "many"}, "--log-max-size: expected a size"),
        ({"log_max_age": "old"}, "--log-max-age: expected a duration"),
        ({"duration": "soon"}, "--duration: expected a duration"),
        ({"telemetry_every": "1.5s"}, "expected telemetry_every as a whole number of steps of 1 s"),
        ({"telemetry_every": "1d", "duration": "36h"}, "expected duration as whole days"),
        ({"pace": "0"}, "--pace: expected max or a number above zero"),
        ({"shards": "0"}, "--shards: expected auto or a whole number"),
        ({"use": "racing"}, "--use: expected one of commuter, delivery, taxi, long_distance, got 'racing'"),
        ({"cell": "chen2020:x"}, "--cell: expected a cell's name, or name:share"),
        ({"cell": "chen2020:1,chen2020:2"}, "--cell: expected each name once, got chen2020 twice"),
        ({"model": "limousine"}, "--model: expected models of small, medium, large, van, got 'limousine'"),
        ({"model": "small:0"}, "--model: expected a model's name, or name:share"),
        ({"fault_share": "1.5"}, "--fault-share"),
        ({"log_max_size": "5"}, "--log-max-size: expected a size from 1MB up"),
        ({"log_fsync": "never"}, "--log-fsync: expected 'checkpoint' or 'always', got 'never'"),
        ({"payload": "xml"}, "--payload: expected 'json', 'avro' or 'vss', got 'xml'"),
        ({"run_id": "a b"}, "--run-id"),
        ({"rest_host": "0.0.0.0"}, "expected an api_token"),
        ({"metrics_host": "0.0.0.0"}, "expected a metrics_token (TWIN_METRICS_TOKEN) where metrics_host is"),
        ({"no_such": 1}, "unknown setting no-such; expected one of vehicles"),
    ],
)
def test_what_does_not_fit_is_one_line(flags: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput) as caught:
        load(**flags)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("vehicles: [1", "is not YAML"),
        ("- 1", "got a list"),
        ("no_such: 1", "unknown setting no-such"),
        ("vehicles: 0", "--vehicles"),
        # YAML 1.1 reads these words as booleans.
        ("kafka: on", "--kafka: expected HOST:PORT[,HOST:PORT], got on, yes or true"),
        ("vehicles: yes", "--vehicles: expected INTEGER 1..10,000,000, got on, yes or true"),
        ("use: no", "--use: expected USE, got off, no or false"),
        ("duration: off", "--duration: expected DURATION, got off, no or false"),
    ],
)
def test_files_that_do_not_fit(tmp_path: Path, content: str, says: str) -> None:
    config = tmp_path / "fleet.yaml"
    config.write_text(content)
    with pytest.raises(BadInput) as caught:
        load(config=config)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--config: cannot read"):
        load(config=tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("word", ["off", "no", "false", "OFF", '"off"', "none"])
def test_off_is_off_in_a_file(tmp_path: Path, word: str) -> None:
    """As YAML gives it, a boolean or text: what can be switched off is off."""
    config = tmp_path / "fleet.yaml"
    names = ("kafka", "mqtt", "timescale", "log_max_age", "log_max_size", "metrics_port")
    config.write_text("".join(f"{name}: {word}\n" for name in names))
    settings = load({"PG_PASSWORD": "x"}, config)
    assert (settings.servers.kafka, settings.servers.mqtt, settings.servers.timescale) == ("", "", "")
    assert (settings.log.log_max_age, settings.log.log_max_size, settings.processes.metrics_port) == (None, None, 0)


def test_off_switches_off_what_the_environment_switches_on() -> None:
    assert load({"KAFKA_BOOTSTRAP_SERVERS": "env:1"}, kafka="off").servers.kafka == ""
    assert load({"KAFKA_BOOTSTRAP_SERVERS": "env:1", "TWIN_KAFKA": "off"}).servers.kafka == ""


def test_switches(tmp_path: Path) -> None:
    config = tmp_path / "fleet.yaml"
    config.write_text("predict: off\nmqtt_retain: yes\n")
    settings = load(config=config)
    assert (settings.pool.predict, settings.servers.mqtt_retain) == (False, True)
    assert load({"TWIN_PREDICT": "off"}).pool.predict is False


def test_a_command_checks_only_what_it_takes() -> None:
    given = Given({}, environ={"TWIN_VEHICLES": "0", "TWIN_DURATION": "soon", "MQTT_HOST": "broker"})
    assert given.group(Servers).mqtt == "mqtt://broker:1883"
    assert given.group(Clock, only=("pace",)).pace == math.inf
    with pytest.raises(BadInput, match="--vehicles"):
        given.group(Population)


def test_the_consumer_has_names_of_its_own(tmp_path: Path) -> None:
    """So that the port of a run's metrics and that of a consumer can be set side by side."""
    config = tmp_path / "twin.yaml"
    config.write_text("metrics_port: 1\nconsume_metrics_port: 2\nconsume_topic: mine\n")
    given = Given({}, config, environ={"TWIN_CONSUME_GROUP": "g", "TWIN_GROUP": "wrong"})
    found = given.group(Consumer)
    assert (found.metrics_port, found.topic, found.group) == (2, "mine", "g")
    assert given.run().processes.metrics_port == 1
    assert Given({"topic": "flag"}, config, environ={}).group(Consumer).topic == "flag"


def test_periods_follow_from_the_duration() -> None:
    hour, month, decade = load().clock, load(duration="30d").clock, load(duration="10y").clock
    assert (hour.telemetry_s, hour.prediction_s, hour.fast_forward) == (2.0, 5.0, False)
    assert (month.telemetry_s, decade.prediction_s, decade.fast_forward) == (86400.0, 30 * 86400.0, True)
    assert (load().oldest_years, load(duration="10y").oldest_years, load(oldest="8y").oldest_years) == (10.0, 0.0, 8.0)


def test_start_is_utc() -> None:
    expected = datetime(2026, 1, 12, 6, tzinfo=UTC)
    for text in ("2026-01-12T06:00Z", "2026-01-12T06:00", "2026-01-12T07:00+01:00"):
        assert load(start=text).clock.start == expected


def test_identity_is_of_what_decides_the_records() -> None:
    base = load().identity("physics")
    assert base.startswith("run-")
    for same in ({"pace": "60"}, {"shards": "4"}, {"kafka": "h:1"}, {"out": "elsewhere"}, {"drain_timeout": "5s"}):
        assert load(**same).identity("physics") == base
    others = [
        {"vehicles": "999"}, {"seed": "2"}, {"duration": "2h"}, {"step": "0.5s"}, {"telemetry_every": "4s"},
        {"predict_every": "10s"}, {"cell": "chen2020"}, {"use": "taxi"}, {"model": "van"}, {"oldest": "5y"},
        {"fault_share": "0.1"}, {"start": "2026-06-02T07:00Z"},
    ]  # fmt: skip
    assert len({load(**other).identity("physics") for other in others} | {base}) == len(others) + 1
    assert load().identity("other") != base
    assert load(run_id="mine").identity("physics") == "mine"


def test_what_is_shown_can_be_loaded_again() -> None:
    settings = load(vehicles="7", pace="60", shards="3", log_max_size="20GB", mqtt="mqtt://me:hush@broker")
    shown = settings.shown()
    assert shown["mqtt"] == "mqtt://me:***@broker"
    again = load(**{name: value for name, value in shown.items() if value is not None and name != "mqtt"})
    assert again.shown() | {"mqtt": ""} == shown | {"mqtt": ""}
    assert load(log_max_size="1.5GB").log.log_max_size == 3 << 29
    assert load(log_max_size="500 mb").log.log_max_size == 500 << 20


def test_a_fact_stands_once() -> None:
    """The defaults of the population are the physics' own; every sink a run can have is a setting; names are unique."""
    assert load().population.cells() == tuple(CELL_SHARES.items())
    defaults = draw_population.__kwdefaults__ or {}
    assert (defaults["oldest_years"], defaults["fault_share"]) == (OLDEST_YEARS, None)
    assert set(LIVE_SINKS) <= set(Servers.model_fields)
    names = list(setting_names())
    assert len(names) == len(set(names))
    assert set(RUN_GROUPS) < set(GROUPS)
    assert {type(group) for group in load().groups} == set(RUN_GROUPS)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:hush@h:1/d?sslmode=require", "postgresql://me:***@h:1/d?sslmode=require"),
        ("postgresql://me@h:1/d?password=hush", "postgresql://me@h:1/d?password=***"),
        ("postgresql://me@h/d?sslmode=require&sslpassword=hush&a=b", "postgresql://me@h/d?sslmode=require&sslpassword=***&a=b"),
        ("postgresql://me@h/d?PassWord=hush", "postgresql://me@h/d?PassWord=***"),
        ("postgresql://me@h/d?%70assword=hush", "postgresql://me@h/d?%70assword=***"),
        ("postgresql://me@h/d?password=hush@hush:hush", "postgresql://me@h/d?password=***"),
        ("postgresql://me@h/d?oauth_client_secret=hush", "postgresql://me@h/d?oauth_client_secret=***"),
        ("postgresql://me@h/d?passfile=/etc/pass&sslkey=/k", "postgresql://me@h/d?passfile=/etc/pass&sslkey=/k"),
        ("postgresql://me:hu?password=hush@h/d", "postgresql://me:***@h/d"),
        ("postgresql://me:hu@sh@h/d", "postgresql://me:***@h/d"),
        ("u:hush@h:9092,v:hush@i:9092", "u:***@i:9092"),
        ("h:9092,i:9092", "h:9092,i:9092"),
    ],
)  # fmt: skip
def test_no_secret_of_an_address_is_shown(url: str, shown: str) -> None:
    assert mask(url) == shown
    assert load(timescale=url).shown()["timescale"] == shown


def test_what_was_masked_is_left_out_where_a_run_goes_on() -> None:
    for url in ("postgresql://me:hush@h:1/d", "postgresql://me@h:1/d?password=hush"):
        assert unmasked(mask(url)) == "postgresql://me@h:1/d"
    url = "postgresql://me@h/d?sslmode=require&sslpassword=hush&a=b"
    assert unmasked(mask(url)) == "postgresql://me@h/d?sslmode=require&a=b"
    assert unmasked(mask("mqtt://me:hush@broker")) == "mqtt://me@broker"
    assert unmasked("postgresql://me@h/d?sslmode=require") == "postgresql://me@h/d?sslmode=require"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"timescale": "postgresql://me@h/d?password=hu%sh"}, "%25"),
        ({"timescale": "postgresql://me@h/d?password=hu#sh"}, "%23"),
        ({"kafka": "kafka://me:hush@h"}, "host:port"),
        ({"kafka": "me:hush@h:9092"}, "host:port"),
        ({"mqtt": "tcp://me:hush@h"}, "mqtt://"),
    ],
)
def test_no_complaint_tells_a_secret(flags: dict[str, str], says: str) -> None:
    with pytest.raises(BadInput) as caught:
        targets_of(load(**flags).servers)
    assert says in str(caught.value)
    assert "hu" not in str(caught.value)


@pytest.mark.parametrize("content", ["api_token: 20261", "api_token: [hush, 20261]", "timescale: [a:20261@b]"])
def test_no_complaint_about_a_file_tells_a_secret(tmp_path: Path, content: str) -> None:
    config = tmp_path / "fleet.yaml"
    config.write_text(content)
    with pytest.raises(BadInput, match="expected a valid string") as caught:
        load(config=config)
    assert "20261" not in str(caught.value)


@pytest.mark.parametrize("token", ["schlüssel", "two words", "line\n", "\tmurmur", "a\x00"])
def test_a_token_that_no_header_carries_is_refused(token: str) -> None:
    for name in ("api", "metrics"):
        with pytest.raises(BadInput, match=f"--{name}-token: expected") as caught:
            load({f"TWIN_{name.upper()}_TOKEN": token})
        assert token.strip() not in str(caught.value)


def test_no_secret_is_shown() -> None:
    """For each that there is: one that is not masked would be in run.json."""
    secrets = {
        name
        for group in RUN_GROUPS
        for name, field in group.model_fields.items()
        if not extra_of(field).get("option", True)
    }
    assert secrets == set(SECRETS)
    shown = load(dict.fromkeys(SECRETS.values(), "murmur")).shown()
    assert {shown[name] for name in secrets} == {"***"}
    assert "murmur" not in str(shown)


def test_a_password_is_added_where_it_belongs() -> None:
    found = load({"PG_PASSWORD": "hush"}, timescale="postgresql://me@h/d?sslpassword=a@b").servers.timescale
    assert found == "postgresql://me:hush@h/d?sslpassword=a@b"
    assert load({"MQTT_PASSWORD": "hush"}, mqtt="mqtt://me@broker").servers.mqtt == "mqtt://me:hush@broker"
    assert load({"MQTT_PASSWORD": "hush"}, mqtt="mqtt://broker").servers.mqtt == "mqtt://broker"
