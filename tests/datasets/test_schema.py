"""The record as it is on disk, on the wire and in the documentation."""

from __future__ import annotations

import json
from pathlib import Path

import orjson
import pytest
from jsonschema import Draft202012Validator

from datasets.codec import encode_json
from datasets.schema import FIELDS, MODEL_INPUTS, STREAMS, Stream, json_schema, vehicle_id, vehicle_index
from tests.support import make_batch


@pytest.mark.parametrize("stream", STREAMS)
def test_json_keeps_every_value_and_fits_its_schema(stream: Stream) -> None:
    batch = make_batch(3, range(2, 5), stream=stream)
    messages = encode_json(batch, stream)
    validator = Draft202012Validator(json_schema(stream))
    for row, text, identity in zip(batch.to_pylist(), messages.values, messages.ids, strict=True):
        record = orjson.loads(text)
        validator.validate(record)
        assert identity == f"{record['run_id']}/{record['vehicle_id']}/{record['seq']}"
        assert list(record) == ["schema", *(f.name for f in FIELDS[stream])]
        for field in FIELDS[stream]:
            if field.decimals is not None:
                assert record[field.name] == pytest.approx(row[field.name], abs=0.5 * 10**-field.decimals, rel=1e-7)
                assert record[field.name] == round(record[field.name], field.decimals)
        assert record["ts"].startswith(f"{row['ts']:%Y-%m-%dT%H:%M:%S}")
        assert record["ts"].endswith("Z")


@pytest.mark.parametrize("stream", STREAMS)
def test_the_documented_schema_is_this_one(stream: Stream) -> None:
    documented = Path(__file__).parents[2] / "docs" / f"{stream}.schema.json"
    assert json.loads(documented.read_text()) == json_schema(stream)


def test_model_inputs_are_telemetry_columns() -> None:
    assert set(MODEL_INPUTS.values()) <= {field.name for field in FIELDS["telemetry"]}
    assert len(MODEL_INPUTS) == 7


def test_vehicle_ids_go_both_ways() -> None:
    for index in (0, 42, 999_999, 1_234_567):
        assert vehicle_index(vehicle_id(index)) == index
    for wrong in ("EV-42", "EV-00004x", "000042", "EV-", ""):
        with pytest.raises(ValueError, match="expected a vehicle id like EV-000042"):
            vehicle_index(wrong)
