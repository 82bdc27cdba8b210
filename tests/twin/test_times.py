"""Every time that enters or leaves: from year 1 to year 9999 in UTC, in four digits, never a number."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow as pa
import pytest

from actors.aggregates.consumer import _key, _value
from actors.aggregates.windows import Window
from datasets.codec import decode, encode
from datasets.log import Cursor, CursorFile
from datasets.names import PAYLOADS
from datasets.schema import json_schema
from tests.command import Twin
from tests.support import make_batch, records
from twin import Fleet
from twin.books.ledger import Books, as_json, table
from twin.errors import BadInput
from twin.settings import load_settings

OLD = Path(__file__).parents[1] / "data" / "run-of-a268f8c"
FIRST, LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
TIMES = [FIRST, datetime(999, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(1969, 12, 31, tzinfo=UTC), LAST]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--start", "0001-01-01T00:00:00+14:00"], "--start: expected a time in the years 1 to 9999, UTC"),
        (["--start", "9999-12-31T23:59:59-01:00"], "--start: expected a time in the years 1 to 9999, UTC"),
        (["--start", "9999-12-31T23:59:00Z", "--duration", "2min"], "expected start and duration to end"),
        (["--start", "2026-06-01", "--duration", "9000y"], "expected start and duration to end"),
        (["--start", "2026-06-01T07:00:00.5Z"], "--start: expected whole seconds"),
        (["--start", "5"], "--start: expected a time like 2026-06-01T07:00Z, got '5'"),
        (["--start", "1780300800"], "--start: expected a time like"),
        (["--start", "2026-02-30"], "--start: expected a time like"),
        (["--start", ""], "--start: expected a time like"),
    ],
)
def test_a_start_that_does_not_fit_is_one_line(arguments: list[str], says: str, twin: Twin) -> None:
    twin("run", "--print-config", *arguments).complaint(2, says)


@pytest.mark.parametrize(
    "arguments",
    [("--from", "9999-12-31T23:59:59-01:00"), ("--to-time", "0001-01-01T00:00+14:00"), ("--from", "5")],
)
def test_a_bound_of_a_replay_that_does_not_fit_is_one_line(
    arguments: tuple[str, str], twin: Twin, tmp_path: Path
) -> None:
    twin("replay", OLD, "--to", "parquet", "--out", tmp_path / "out", *arguments).complaint(2, arguments[0])


@pytest.mark.parametrize(
    "content", ["start: 2026-02-30", "start: 0001-01-01T00:00:00+14:00", "start: 5", "start: 1.5", "start: [1]"]
)
def test_a_start_in_a_file_that_does_not_fit_is_one_line(content: str, tmp_path: Path) -> None:
    config = tmp_path / "fleet.yaml"
    config.write_text(content)
    with pytest.raises(BadInput) as caught:
        load_settings({}, config, environ={})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("0001-01-01", FIRST),
        ("0001-01-01T14:00:00+14:00", FIRST),
        ("9999-12-31T22:59:58-01:00", LAST - timedelta(seconds=1)),
        ("2026-06-01T07:00", datetime(2026, 6, 1, 7, tzinfo=UTC)),
    ],
)
def test_a_start_that_fits(text: str, start: datetime, tmp_path: Path) -> None:
    config = tmp_path / "fleet.yaml"
    for written in (f"start: {text}", f"start: '{text}'"):
        config.write_text(f"{written}\nstep: 1ms\ntelemetry_every: 1ms\npredict_every: 1ms\nduration: 1ms\n")
        assert load_settings({}, config, environ={}).clock.start == start
    again = load_settings({}, config, environ={}).shown()
    assert load_settings({"start": again["start"]}, config, environ={}).clock.start == start


def at(batch: pa.RecordBatch, times: list[datetime]) -> pa.RecordBatch:
    place = batch.schema.get_field_index("ts")
    return batch.set_column(place, batch.schema.field(place), pa.array(times, batch.schema.field(place).type))


@pytest.mark.parametrize("payload", PAYLOADS)
def test_messages_carry_every_time(payload: Any) -> None:
    batch = at(make_batch(1, range(len(TIMES))), TIMES)
    values = encode(batch, "telemetry", payload).values
    assert [decode(value, "telemetry")["ts"] for value in values] == TIMES


def test_times_in_json_are_what_our_own_schema_wants() -> None:
    validator = jsonschema.Draft202012Validator(json_schema("telemetry"))
    for value in encode(at(make_batch(1, range(len(TIMES))), TIMES), "telemetry").values:
        validator.validate(json.loads(value))


@pytest.mark.parametrize("time", TIMES)
def test_a_window_names_its_minute_in_four_digits(time: datetime) -> None:
    window = Window("run", time.replace(second=0), 0)
    assert datetime.fromisoformat(json.loads(_value(window, "topic"))["minute"]) == window.minute
    assert re.fullmatch(rb"run/[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:00Z/0", _key(window))


def test_a_run_of_the_first_minute_and_one_of_the_last(tmp_path: Path, ray_cluster: None, twin: Twin) -> None:
    """From the simulation to the page, the messages and the ledger."""
    for start in (FIRST, LAST - timedelta(seconds=60)):
        out = tmp_path / f"{start.year}"
        answer = twin(
            "run", "--start", start.isoformat(), "--duration", "1min", "--vehicles", "4", "--no-predict", "--shards",
            "1", "--out", out, "--metrics-port", "0", "--quiet",
        )  # fmt: skip
        assert answer.code == 0, answer.err
        made = records(out)
        expected = [start + timedelta(seconds=2 * number) for number in range(1, 31)]
        assert made.column("ts").to_pylist()[:30] == expected
        assert f"to {expected[-1].isoformat(' ', 'minutes')[:16]} UTC" in (out / "report.html").read_text()
        CursorFile(out, "kafka", "telemetry", 0).save(Cursor(4))
        books = Books(out).ledger()
        assert expected[1].isoformat(" ")[:19] in table(books)
        assert as_json(books)["lines"][0]["oldest_waiting"] == expected[1].isoformat()


def test_a_fleet_in_python_ends_with_the_calendar(tmp_path: Path, ray_cluster: None) -> None:
    start = (LAST - timedelta(days=1)).isoformat()
    with Fleet(
        vehicles=1, start=start, predict=False, shards=1, telemetry_every="1h", out=tmp_path / "run"
    ) as fleet:  # fmt: skip
        fleet.run("20h")
        with pytest.raises(BadInput, match="end in the year 9999"):
            fleet.run("5h")
        fleet.run("4h")
    assert records(tmp_path / "run").column("ts").to_pylist()[-1] == LAST
