"""Messages: forms with the same values, whole valid records or a reason, versions that read each other."""

from __future__ import annotations

import dataclasses
import json
import struct
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker

from datasets.codec import Malformed, Reader, decode, decode_columns, encode
from datasets.schema import FIELDS, PAYLOADS, SCHEMA_VERSION, STREAMS, Field, Payload, Stream, json_schema
from datasets.vss import SIGNALS
from tests.support import make_batch

FORMS: tuple[Payload, ...] = ("json", "avro")
"""Those with a definition of their own; 'vss' is 'json' under other names."""
GOLDEN = Path(__file__).parents[1] / "data"
NEW = Field("insulation_resistance", pa.float32(), "kOhm", "Of a hypothetical version 3", 1, since=3, default=500.0)


def messages(stream: Stream, payload: Payload) -> list[bytes]:
    return encode(make_batch(3, range(2, 5), stream=stream), stream, payload).values


@pytest.mark.parametrize("stream", STREAMS)
def test_all_forms_give_the_same_values(stream: Stream) -> None:
    batch = make_batch(3, range(2, 5), stream=stream)
    for row, text, binary, vss in zip(batch.to_pylist(), *(messages(stream, p) for p in PAYLOADS), strict=True):
        record = decode(text, stream)
        assert record == decode(binary, stream) == decode(vss, stream)
        assert list(record) == ["schema", *(f.name for f in FIELDS[stream])]
        assert {k: record[k] for k in ("run_id", "vehicle_id", "seq")} == {
            k: row[k] for k in ("run_id", "vehicle_id", "seq")
        }
        assert record["ts"] == row["ts"]
        for field in FIELDS[stream]:
            if field.decimals is not None:
                assert record[field.name] == pytest.approx(row[field.name], abs=0.5 * 10**-field.decimals, rel=1e-7)


def with_values(**values: float) -> pa.RecordBatch:
    batch = make_batch(1, range(1))
    for name, value in values.items():
        at = batch.schema.get_field_index(name)
        batch = batch.set_column(at, batch.schema.field(at), pa.array([value], batch.schema.field(at).type))
    return batch


@given(st.floats(-1e4, 1e4, width=32), st.floats(-1e6, 1e6))
def test_any_value_is_the_same_in_both_forms(narrow: float, wide: float) -> None:
    batch = with_values(soc=narrow, distance_traveled=wide)
    text, binary = (decode(encode(batch, "telemetry", p).values[0], "telemetry") for p in FORMS)
    assert text == binary


@given(st.floats(-1e4, 1e4, width=32), st.integers(-(10**10), 10**10))
def test_any_value_of_a_sensor_comes_back_from_vss(narrow: float, tenths_of_a_metre: int) -> None:
    """Of its column's resolution, as all values of the log are."""
    km = tenths_of_a_metre / 1e4
    batch = with_values(soc=narrow, battery_current=narrow, power_consumption=narrow, distance_traveled=km)
    text, vss = (decode(encode(batch, "telemetry", p).values[0], "telemetry") for p in ("json", "vss"))
    assert text == vss


def test_vss_has_its_names_units_and_signs() -> None:
    """State of charge in percent, current and power into the battery positive, power in W, distance in m."""
    batch = with_values(soc=0.812345, battery_current=12.5, power_consumption=4.375, distance_traveled=1234.5678)
    record = orjson.loads(encode(batch, "telemetry", "vss").values[0])
    pack = "Vehicle.Powertrain.TractionBattery"
    assert record["Vehicle.VehicleIdentification.VIN"] == batch.column("vehicle_id")[0].as_py()
    assert record[f"{pack}.StateOfCharge.Current"] == 81.2345
    assert record[f"{pack}.CurrentCurrent"] == -12.5
    assert record[f"{pack}.CurrentPower"] == -4375
    assert record["Vehicle.TraveledDistance"] == 1234567.8
    assert record["Vehicle.Private.Mode"] == batch.column("mode")[0].as_py()
    assert {key for key in record if not key.startswith("Vehicle.")} == {"schema", "run_id", "seq", "ts"}
    jsonschema.validate(record, json_schema("telemetry", tuple(signal.field for signal in SIGNALS["telemetry"])))


def test_a_current_of_nothing_has_no_sign_under_vss() -> None:
    assert b'CurrentCurrent":0,' in encode(with_values(battery_current=0.0), "telemetry", "vss").values[0]


@pytest.mark.parametrize(("bad", "says"), [("0.5", "in soc, got '0.5'"), (True, "in soc, got True"), (None, "in soc")])
def test_vss_values_that_are_no_numbers_are_refused(bad: Any, says: str) -> None:
    record = orjson.loads(messages("telemetry", "vss")[0])
    record["Vehicle.Powertrain.TractionBattery.StateOfCharge.Current"] = bad
    with pytest.raises(Malformed, match=says):
        decode(orjson.dumps(record), "telemetry")
    del record["Vehicle.Powertrain.TractionBattery.StateOfCharge.Current"]
    with pytest.raises(Malformed, match="the field soc, got none"):
        decode(orjson.dumps(record), "telemetry")


# Many at once


def plain(columns: dict[str, Any]) -> dict[str, list[Any]]:
    """As Python values, as `decode` gives them."""
    found = {name: column if isinstance(column, list) else column.tolist() for name, column in columns.items()}
    if "ts" in found:
        found["ts"] = [time.replace(tzinfo=UTC) for time in found["ts"]]
    return found


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("stream", STREAMS)
def test_columns_of_many_messages_are_those_of_each(stream: Stream, payload: Payload) -> None:
    values, names = messages(stream, payload), [field.name for field in FIELDS[stream]]
    columns, wrong = decode_columns(values, stream, names)
    assert not wrong
    assert plain(columns) == {name: [decode(value, stream)[name] for value in values] for name in names}
    quickly = Reader(stream, FIELDS[stream], SCHEMA_VERSION).plain_columns(values, names)
    assert (quickly is not None) == (payload in FORMS), "others are read one by one"


def test_columns_of_none_are_empty() -> None:
    columns, wrong = decode_columns([], "telemetry", ["soc", "ts"])
    assert (plain(columns), wrong) == ({"soc": [], "ts": []}, [])


def test_a_malformed_message_costs_no_other() -> None:
    good, old = messages("telemetry", "json"), (GOLDEN / "telemetry-v1.avro").read_bytes()
    values = [good[0], b"{", messages("telemetry", "avro")[1], changed(soc=True), old, changed(soc=1, seq=3.0)]
    columns, wrong = decode_columns(values, "telemetry", ["soc", "diagnostics"])
    assert columns["soc"].tolist() == [decode(values[at], "telemetry")["soc"] for at in (0, 2, 4, 5)]
    assert columns["diagnostics"][2] == 0
    assert [str(error).partition(",")[0] for error in wrong] == [
        "expected a JSON object or an Avro record", "expected a finite number in soc"
    ]  # fmt: skip


@pytest.mark.parametrize("payload", PAYLOADS)
@settings(max_examples=400)
@given(data=st.data())
def test_damage_among_many_is_found_as_in_one(payload: Payload, data: st.DataObject) -> None:
    good = messages("telemetry", payload)
    value = bytearray(good[0])
    for _ in range(data.draw(st.integers(1, 3))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    values, names = [good[1], bytes(value)], [field.name for field in FIELDS["telemetry"]]
    columns, wrong = decode_columns(values, "telemetry", names)
    try:
        expected = [decode(value, "telemetry") for value in values]
    except Malformed:
        expected = [decode(good[1], "telemetry")]
    assert plain(columns) == {name: [record[name] for record in expected] for name in names}
    assert len(expected) + len(wrong) == 2


# Versions


@pytest.mark.parametrize("payload", FORMS)
@pytest.mark.parametrize("stream", STREAMS)
def test_messages_of_version_1_are_read_for_good(stream: Stream, payload: Payload) -> None:
    """The files are never made anew: they are what version 1 once wrote."""
    value = (GOLDEN / f"{stream}-v1.{payload}").read_bytes()
    expected = json.loads((GOLDEN / f"{stream}-v1.json").read_text())
    expected["ts"] = datetime.fromisoformat(expected["ts"])
    expected |= {field.name: field.default for field in FIELDS[stream] if field.since > 1}
    assert decode(value, stream) == expected


def version_3(stream: Stream) -> Reader:
    return Reader(stream, (*FIELDS[stream], NEW), 3)


def of_version_3(stream: Stream, payload: Payload) -> bytes:
    record: dict[str, Any] = orjson.loads(messages(stream, "json")[0]) | {"schema": 3, NEW.name: 123.5}
    if payload == "json":
        return orjson.dumps(record)
    return version_3(stream).to_avro(record | {"ts": datetime.fromisoformat(record["ts"])})


@pytest.mark.parametrize("payload", FORMS)
@pytest.mark.parametrize("stream", STREAMS)
def test_old_reads_new(stream: Stream, payload: Payload) -> None:
    old = decode(messages(stream, payload)[0], stream)
    assert decode(of_version_3(stream, payload), stream) == old | {"schema": 3}


@pytest.mark.parametrize("payload", FORMS)
@pytest.mark.parametrize("stream", STREAMS)
def test_new_reads_old_and_new(stream: Stream, payload: Payload) -> None:
    reader = version_3(stream)
    read = reader.from_json if payload == "json" else reader.from_avro
    old = messages(stream, payload)[0]
    assert read(old) == decode(old, stream) | {NEW.name: 500.0}
    assert read(of_version_3(stream, payload))[NEW.name] == 123.5


def test_a_version_3_message_without_its_field_is_malformed() -> None:
    record = orjson.loads(messages("telemetry", "json")[0]) | {"schema": 3}
    with pytest.raises(Malformed, match="insulation_resistance, got none"):
        version_3("telemetry").from_json(orjson.dumps(record))


# What is refused


def changed(**values: Any) -> bytes:
    """A good telemetry message with other values; ... leaves the field out."""
    record = orjson.loads(messages("telemetry", "json")[0]) | values
    return json.dumps({k: v for k, v in record.items() if v is not ...}).encode()


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (b"", "expected a JSON object or an Avro record"),
        (b"{", "expected a JSON object or an Avro record"),
        (b"\xff\xfe", "expected a JSON object or an Avro record"),
        (b"[1]", r"expected a JSON object, got \[1\]"),
        (b"null", "expected a JSON object, got None"),
        (changed(soc=...), "the field soc, got none"),
        (changed(schema=...), "schema version"),
        (changed(schema=0), "schema version from 1 up in schema, got 0"),
        (changed(schema="1"), "schema version"),
        (changed(schema=True), "schema version"),
        (changed(soc="0.5"), "finite number in soc, got '0.5'"),
        (changed(soc=None), "finite number in soc, got None"),
        (changed(soc=True), "finite number in soc, got True"),
        (changed(soc=float("nan")), "JSON"),
        (changed(soc=float("inf")), "JSON"),
        (changed(soc=1e39), "finite number in soc"),
        (changed(seq=-1), "whole number from 0 to 9223372036854775807 in seq, got -1"),
        (changed(seq=2**63), "whole number"),
        (changed(seq=1.5), "whole number"),
        (changed(flags=2**31), "in flags"),
        (changed(run_id=""), "in run_id, got ''"),
        (changed(run_id="a\0b"), "in run_id"),
        (changed(vehicle_id="a/b"), "in vehicle_id"),
        (changed(vehicle_id="EV-000001\n"), "in vehicle_id"),
        (changed(vehicle_id=7), "in vehicle_id, got 7"),
        (changed(mode="flying"), "in mode, got 'flying'"),
        (changed(mode=[]), "in mode"),
        (changed(ts="yesterday"), "a time like"),
        (changed(ts="2026-02-30T00:00:00Z"), "a time like .* in ts, got '2026-02-30T00:00:00Z'"),
        (changed(ts="2026-06-01T07:00:02"), "a time like"),
        (changed(ts="2026-06-01T07:00:02Z\n"), "a time like"),
        (changed(ts=1780297202), "a time like"),
        (b"\xc3\x01", "cut off after 2 bytes"),
        (b"\xc3\x01" + bytes(100), "unknown schema fingerprint 0000000000000000|garbage"),
        (messages("telemetry", "avro")[0][:-1], "cut off after"),
        (messages("telemetry", "avro")[0] + b"x", "the end of the Avro record, got 1 more"),
        (messages("predictions", "avro")[0], "got one of predictions"),
        (messages("predictions", "json")[0], "the field soc, got none"),
    ],
)
def test_malformed_with_a_reason_in_one_line(value: bytes, says: str) -> None:
    with pytest.raises(Malformed, match=says) as caught:
        decode(value, "telemetry")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("expected ")


def test_avro_with_a_number_that_is_none() -> None:
    good = messages("telemetry", "avro")[0]
    soc = struct.pack("<f", decode(good, "telemetry")["soc"])
    assert good.count(soc) == 1
    for wrong in ("nan", "inf", "-inf"):
        with pytest.raises(Malformed, match="finite number in soc"):
            decode(good.replace(soc, struct.pack("<f", float(wrong))), "telemetry")


def test_whole_numbers_and_further_fields_are_fine() -> None:
    record = decode(changed(soc=1, seq=3.0, schema=1.0, another={"deep": [1]}), "telemetry")
    assert (record["soc"], record["seq"], record["schema"]) == (1.0, 3, 1)
    assert "another" not in record


@pytest.mark.parametrize("payload", PAYLOADS)
@settings(max_examples=400)
@given(data=st.data())
def test_damage_gives_a_record_or_malformed_and_nothing_else(payload: Payload, data: st.DataObject) -> None:
    value = bytearray(messages("telemetry", payload)[0])
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(value) - 1))
        value[position] = data.draw(st.integers(0, 255))
    damaged = bytes(value[: data.draw(st.integers(0, len(value)))])
    try:
        record = decode(damaged, "telemetry")
    except Malformed:
        return
    VALIDATOR.validate(record | {"ts": record["ts"].isoformat(timespec="microseconds").replace("+00:00", "Z")})


def _is_time(text: object) -> bool:
    return not isinstance(text, str) or datetime.fromisoformat(text) is not None


CHECKER = FormatChecker(formats=())
CHECKER.checks("date-time", ValueError)(_is_time)
VALIDATOR = Draft202012Validator(json_schema("telemetry"), format_checker=CHECKER)


@settings(max_examples=300)
@given(
    st.sampled_from([f.name for f in FIELDS["telemetry"]] + ["schema"]),
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=70),
        st.lists(st.integers(), max_size=2), st.sampled_from(["2026-06-01T07:00:02Z", "parked", "EV-000001"]),
    ),
)  # fmt: skip
def test_decode_accepts_what_the_json_schema_accepts(name: str, other: Any) -> None:
    value = changed(**{name: other})
    valid = VALIDATOR.is_valid(json.loads(value))
    try:
        decode(value, "telemetry")
    except Malformed:
        assert not valid
    else:
        assert valid


def test_fields_of_a_later_version_need_a_default() -> None:
    for stream in STREAMS:
        for field in FIELDS[stream]:
            assert dataclasses.asdict(field)["since"] == 1 or field.default is not None
