"""Settings: layers, units, and one clear line for each thing that does not fit."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from twin.errors import BadInput
from twin.settings import load_settings, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10min", 600), ("6h", 21600), ("30d", 30 * 86400), ("1h30min", 5400), ("500ms", 0.5), (7, 7)],
)
def test_durations(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "10", "ten minutes", "-5s", "0s", "5 parsecs", "1h foo", True, float("nan")])
def test_what_is_no_duration_says_what_is(text):
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(text)


def test_flags_beat_environment_beats_file_beats_defaults(tmp_path: Path):
    config = tmp_path / "run.yaml"
    config.write_text("vehicles: 10\nduration: 2h\nseed: 5\nkafka: file:1\n")
    environ = {"TWIN_VEHICLES": "20", "TWIN_SEED": "6", "KAFKA_BOOTSTRAP_SERVERS": "env:2"}
    settings = load_settings({"vehicles": "30", "seed": None}, config, environ)
    assert (settings.vehicles, settings.seed, settings.duration, settings.kafka) == (30, 6, 7200.0, "env:2")
    assert math.isinf(settings.pace)


def test_service_names_of_the_environment():
    environ = {"PG_HOST": "db", "PG_PORT": "6432", "PG_PASSWORD": "p@ss", "MQTT_HOST": "mq"}
    settings = load_settings({}, None, environ)
    assert settings.timescale == "postgresql://twin:p%40ss@db:6432/twin_data"
    assert settings.mqtt == "mqtt://mq:1883"
    assert "p%40ss" not in str(settings.shown())
    flag = load_settings({"timescale": "postgresql://me@other/x"}, None, environ)
    assert flag.timescale == "postgresql://me:p%40ss@other/x"
    off = load_settings({"mqtt": ""}, None, environ)
    assert off.mqtt == ""


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"vehicles": "0"}, "--vehicles: expected greater than or equal to 1, got '0'"),
        ({"vehicles": "-3"}, "--vehicles: expected greater"),
        ({"vehicles": "many"}, "--vehicles: expected a valid integer"),
        ({"pace": "fast"}, "--pace: expected max or a number above zero"),
        ({"pace": "0"}, "--pace: expected max"),
        ({"pace": "nan"}, "--pace: expected max"),
        ({"shards": "0"}, "--shards: expected auto or a whole number"),
        ({"shards": "1.5"}, "--shards: expected auto"),
        ({"duration": "1 fortnight"}, "--duration: expected a duration like 90s"),
        ({"telemetry_every": "2500ms"}, "expected telemetry_every as a whole number of steps"),
        ({"seed": "-1"}, "--seed: expected greater"),
        ({"run_id": "a b"}, "--run-id: "),
        ({"start": "yesterday"}, "--start: "),
        ({"rest_host": "0.0.0.0"}, "expected an api_token"),
        ({"rest_port": "99999"}, "--rest-port: expected less"),
        ({"cars": "3"}, "unknown setting cars; expected one of vehicles"),
        ({"log_max_size": "12"}, "--log-max-size: expected a size from 1MB up, like 500MB or 20GB, got '12'"),
        ({"log_max_size": "many"}, "--log-max-size: expected a size"),
        ({"log_max_age": "old"}, "--log-max-age: expected a duration"),
        ({"log_fsync": "never"}, "--log-fsync: expected 'checkpoint' or 'always', got 'never'"),
    ],
)
def test_bad_settings_are_one_line_with_their_name(flags, says):
    with pytest.raises(BadInput) as error:
        load_settings(flags, None, {})
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"), [("- 1\n- 2\n", "got a list"), ("a: [", "is not YAML"), ("vehicels: 3", "unknown setting")]
)
def test_bad_files(tmp_path: Path, text: str, says: str):
    config = tmp_path / "run.yaml"
    config.write_text(text)
    with pytest.raises(BadInput, match=says) as error:
        load_settings({}, config, {})
    assert "\n" not in str(error.value)
    with pytest.raises(BadInput, match="cannot read"):
        load_settings({}, tmp_path / "absent.yaml", {})


def test_identity_is_of_what_decides_the_records():
    base = load_settings({}, None, {})
    assert base.identity("v1") == load_settings({"shards": "7", "pace": "1", "kafka": "a:1"}, None, {}).identity("v1")
    assert base.identity("v1") != load_settings({"seed": "2"}, None, {}).identity("v1")
    assert base.identity("v1") != base.identity("v2")
    assert load_settings({"run_id": "mine"}, None, {}).identity("v1") == "mine"


def test_sizes():
    assert load_settings({"log_max_size": "1.5GB"}, None, {}).log_max_size == 3 << 29
    assert load_settings({"log_max_size": "500 mb"}, None, {}).log_max_size == 500 << 20
    assert load_settings({}, None, {}).log_max_size is None
