"""A run handed on: `twin export` and `twin passport`, from sealed files of known content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from datasets.log import LogWriter, log_directory
from datasets.schema import SCHEMAS
from physics import DIAGNOSTICS, FLAGS
from tests.command import Twin
from tests.support import make_batch
from twin.books.export import REFERENCE, export_run
from twin.books.passport import POWER_AT, batterypass, catena_x, facts_of
from twin.errors import BadInput
from twin.run_directory import load_run

VEHICLES, RECORDS = 3, 120
AGE = {"soc": 0.5, "soh": 0.9, "charge_cycles": 321.5, "resistance_25": 0.12}


def sealed_run(folder: Path, *, predictions: bool = False, period_s: float = 2.0, **columns: np.ndarray) -> Path:
    """A run of three vehicles whose columns have these values, each of shape (RECORDS,)."""
    batch = make_batch(VEHICLES, range(RECORDS))
    plain = {name: np.full(RECORDS, value) for name, value in AGE.items()}
    calm = {"cell_temperature_min": np.full(RECORDS, 20.0), "cell_temperature_max": np.full(RECORDS, 25.0)}
    quiet = {"flags": np.zeros(RECORDS), "diagnostics": np.zeros(RECORDS)}
    for name, values in (plain | calm | quiet | columns).items():
        at, field = batch.schema.get_field_index(name), batch.schema.field(name)
        batch = batch.set_column(at, field, pa.array(np.repeat(values, VEHICLES)).cast(field.type))
    for stream, rows in (("telemetry", batch), *([("predictions", foretold())] if predictions else [])):
        writer = LogWriter(log_directory(folder, stream, 0))
        writer.append(rows, RECORDS)
        writer.close()
    run = {
        "run_id": "run-page", "state": "finished", "period_s": period_s, "seed": 1, "started": "now", "versions": {},
        "settings": {"vehicles": VEHICLES, "shards": 1, "duration": 86_400.0 * 3, "cell": "chen2020", "seed": 1},
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(run))
    return folder


def foretold() -> pa.RecordBatch:
    """Predictions of every tenth record."""
    batch = make_batch(VEHICLES, range(RECORDS), stream="predictions")
    return batch.filter(pa.array(batch.column("seq").to_numpy() % 10 == 0))


@pytest.mark.parametrize("to", ["csv", "parquet"])
def test_an_export_has_every_record_in_order_of_time(tmp_path: Path, to: Any) -> None:
    run = sealed_run(tmp_path / "run")
    target = tmp_path / f"told.{to}"
    assert export_run(run, target, to, "telemetry", "") == (VEHICLES * RECORDS, 0)
    told = pd.read_csv(target) if to == "csv" else pd.read_parquet(target)
    assert list(told) == SCHEMAS["telemetry"].names
    assert len(told) == VEHICLES * RECORDS
    assert pd.to_datetime(told["ts"]).is_monotonic_increasing
    assert told["soh"].tolist() == pytest.approx([0.9] * len(told))
    assert export_run(run, tmp_path / f"one.{to}", to, "telemetry", "EV-000001") == (RECORDS, 0)


def test_the_references_names_with_predictions_beside_their_records(tmp_path: Path) -> None:
    run = sealed_run(tmp_path / "run", predictions=True)
    export_run(run, tmp_path / "one.csv", "reference", "telemetry", "EV-000001")
    told = pd.read_csv(tmp_path / "one.csv")
    assert list(told) == ["Timestamp", *REFERENCE, "RUL", "Failure_Probability"]
    assert told["RUL"].notna().tolist() == [seq % 10 == 0 for seq in range(RECORDS)]
    export_run(run, tmp_path / "all.csv", "reference", "telemetry", "")
    assert pd.read_csv(tmp_path / "all.csv")["Vehicle_ID"].nunique() == VEHICLES
    bare = sealed_run(tmp_path / "bare")
    export_run(bare, tmp_path / "bare.csv", "reference", "telemetry", "")
    assert pd.read_csv(tmp_path / "bare.csv")["RUL"].isna().all()


def test_what_still_grows_is_left_out_and_counted(tmp_path: Path) -> None:
    run = sealed_run(tmp_path / "run")
    writer = LogWriter(log_directory(run, "telemetry", 0))
    writer.append(make_batch(VEHICLES, range(RECORDS, RECORDS + 5)), RECORDS + 5)
    assert export_run(run, tmp_path / "told.csv", "csv", "telemetry", "") == (VEHICLES * RECORDS, 1)
    writer.close()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--vehicle", "EV-000099"], "no sealed telemetry of EV-000099"),
        (["--vehicle", "42"], "--vehicle: expected a vehicle id like EV-000042"),
        (["--stream", "predictions"], "no sealed predictions"),
        (["--to", "reference", "--stream", "predictions"], "--to reference"),
        (["--out", "there.csv"], "is there already"),
        (["--out", "nowhere/x.csv"], "there is no folder nowhere"),
    ],
)
def test_an_export_that_cannot_be(tmp_path: Path, twin: Twin, flags: list[str], says: str, monkeypatch: Any) -> None:
    run = sealed_run(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    Path("there.csv").write_text("kept")
    done = twin("export", str(run), *flags)
    done.complaint(2, says)
    assert Path("there.csv").read_text() == "kept"
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith((".part", "x.csv"))]


PERCENT = {"type": "number", "minimum": 0, "maximum": 100}
TIME = {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$"}


def _value(name: str, kind: dict[str, Any]) -> dict[str, Any]:
    return _object({f"{name}Value": kind, "lastUpdate": TIME})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


NUMBER = {"type": "number", "minimum": 0}
_KINDS: dict[str, dict[str, Any]] = {
    "stateOfCertifiedEnergy": PERCENT, "capacityFade": PERCENT, "remainingCapacity": NUMBER, "remainingEnergy": NUMBER,
    "energyThroughput": NUMBER, "capacityThroughput": NUMBER, "numberOfFullCycles": {"type": "integer"},
    "stateOfCharge": PERCENT, "remainingRoundTripEnergyEfficiency": PERCENT,
}  # fmt: skip
MINUTES = ("timeExtremeHighTemp", "timeExtremeLowTemp", "timeExtremeHighTempCharging", "timeExtremeLowTempCharging")
BATTERYPASS = _object(
    {
        "vehicle": {"type": "string"},
        "batteryCondition": _object(
            {name: _value(name, kind) for name, kind in _KINDS.items()}
            | {
                "internalResistanceIncrease": {
                    "type": "array",
                    "items": _object(
                        {
                            "internalResistanceIncreaseValue": {"type": "number"},
                            "batteryComponent": {"enum": ["pack", "module", "cell"]},
                            "lastUpdate": TIME,
                        }
                    ),
                },
                "remainingPowerCapability": _object(
                    {
                        "remainingPowerCapabilityValue": {
                            "type": "array",
                            "items": _object({"atSoC": PERCENT, "powerCapabilityAt": NUMBER, "rPCLastUpdated": TIME}),
                        },
                        "lastUpdate": TIME,
                    }
                ),
                "negativeEvents": {
                    "type": "array",
                    "items": _object({"negativeEvent": {"type": "string"}, "lastUpdate": TIME}),
                },
                "temperatureInformation": _object({**dict.fromkeys(MINUTES, NUMBER), "lastUpdate": TIME}),
            }
        ),
        "batteryTechicalProperties": _object(
            {"ratedCapacity": NUMBER, "powerFade": {"type": "number"}, "roundTripEfficiencyFade": {"type": "number"}}
        ),
    }
)
"""Names, units' ranges and nesting of the published attributes, and no others."""


def test_a_passport_has_the_published_attributes_and_what_was_reported(tmp_path: Path) -> None:
    run = sealed_run(tmp_path / "run")
    facts = facts_of(run, load_run(run), "EV-000001")
    told = batterypass(facts)
    jsonschema.validate(told, BATTERYPASS)
    condition = told["batteryCondition"]
    assert condition["stateOfCertifiedEnergy"]["stateOfCertifiedEnergyValue"] == 90.0
    assert condition["capacityFade"]["capacityFadeValue"] == pytest.approx(10.0)
    assert condition["numberOfFullCycles"]["numberOfFullCyclesValue"] == 321
    rated = told["batteryTechicalProperties"]["ratedCapacity"]
    assert condition["capacityThroughput"]["capacityThroughputValue"] == pytest.approx(2 * 321.5 * rated, abs=0.1)
    assert condition["stateOfCharge"]["stateOfChargeValue"] == 50.0
    increase = condition["internalResistanceIncrease"][0]["internalResistanceIncreaseValue"]
    assert increase == pytest.approx(100.0 * (0.12 / facts.fresh.resistance_Ohm - 1.0), abs=0.1)
    power = {at["atSoC"]: at["powerCapabilityAt"] for at in condition["remainingPowerCapability"][
        "remainingPowerCapabilityValue"
    ]}  # fmt: skip
    assert list(power) == list(POWER_AT)
    assert power[80] > power[50] > power[20] > 0


def test_minutes_in_heat_and_cold_and_events_are_counted_from_the_stream(tmp_path: Path) -> None:
    hot = np.where(np.arange(RECORDS) < 45, 46.0, 25.0)
    cold = np.where(np.arange(RECORDS) >= 90, -1.0, 20.0)
    coded = np.zeros(RECORDS)
    coded[10:20] = DIAGNOSTICS["cell_undervoltage"]
    coded[50:60] = DIAGNOSTICS["cell_undervoltage"] | DIAGNOSTICS["isolation"]
    stopped = np.zeros(RECORDS)
    stopped[100:] = FLAGS["stopped"]
    run = sealed_run(
        tmp_path / "run", period_s=60.0, cell_temperature_max=hot, cell_temperature_min=cold, diagnostics=coded,
        flags=stopped,
    )  # fmt: skip
    condition = batterypass(facts_of(run, load_run(run), "EV-000002"))["batteryCondition"]
    minutes = condition["temperatureInformation"]
    assert (minutes["timeExtremeHighTemp"], minutes["timeExtremeLowTemp"]) == (45.0, 30.0)
    assert minutes["timeExtremeHighTempCharging"] <= 45.0
    events = [event["negativeEvent"] for event in condition["negativeEvents"]]
    assert sorted(events) == ["cell_undervoltage", "cell_undervoltage", "isolation", "stopped"]
    times = [event["lastUpdate"] for event in condition["negativeEvents"]]
    assert times == sorted(times)


def test_where_a_record_stands_for_a_day_no_minutes_are_told(tmp_path: Path) -> None:
    run = sealed_run(tmp_path / "run", period_s=86_400.0)
    assert "temperatureInformation" not in batterypass(facts_of(run, load_run(run), "EV-000000"))["batteryCondition"]


def test_catena_x_says_the_same(tmp_path: Path) -> None:
    run = sealed_run(tmp_path / "run")
    facts = facts_of(run, load_run(run), "EV-000000")
    dynamic = catena_x(facts)["performance"]["dynamic"]
    pass_ = batterypass(facts)["batteryCondition"]
    assert dynamic["energy"]["soce"]["value"] == pass_["stateOfCertifiedEnergy"]["stateOfCertifiedEnergyValue"]
    assert dynamic["fullCycles"]["value"] == pass_["numberOfFullCycles"]["numberOfFullCyclesValue"]
    assert dynamic["capacity"]["throughput"]["value"] == pass_["capacityThroughput"]["capacityThroughputValue"]

    def leaves(part: Any) -> list[Any]:
        return [part] if "time" in part else [leaf for inner in part.values() for leaf in leaves(inner)]

    assert all(set(leaf) == {"value", "time"} and leaf["time"] == facts.at for leaf in leaves(dynamic))


@pytest.mark.parametrize(
    ("vehicle", "says"), [("EV-000099", "vehicles up to EV-000002"), ("42", "expected a vehicle id like EV-000042")]
)
def test_no_passport_for_who_is_not_there(tmp_path: Path, vehicle: str, says: str) -> None:
    run = sealed_run(tmp_path / "run")
    with pytest.raises(BadInput, match=says):
        facts_of(run, load_run(run), vehicle)


@pytest.mark.parametrize("command", [["export"], ["passport", "EV-000001", "--run"], ["report"]])
def test_a_segment_that_has_rotted_is_one_line(tmp_path: Path, twin: Twin, command: list[str]) -> None:
    run = sealed_run(tmp_path / "run")
    [segment] = (run / "telemetry").glob("**/*.parquet")
    segment.write_bytes(segment.read_bytes()[:100] + b"rotten")
    twin(*command, run).complaint(2, "cannot read", str(run))
    assert {path.name for path in run.iterdir() if path.is_file()} == {"run.json"}
