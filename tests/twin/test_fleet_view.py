"""What the live page keeps of each vehicle: newest values, last minutes; bounded, without MQTT and web."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from datasets.codec import encode
from datasets.schema import PAYLOADS, Payload, Stream
from tests.page import PERIOD_S, fleet_batch
from twin.page.fleet_view import PREDICTIONS, RECORDS, FleetView
from twin.page.quantities import NONE, QUANTITIES, alarms


class Clock:
    """Stands until it is moved."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def take(view: FleetView, vehicles: range, seq: int, stream: Stream = "telemetry", **more: object) -> None:
    view.take(stream, encode(fleet_batch(vehicles, seq, stream, **more), stream).values)  # type: ignore[arg-type]


def shown(view: FleetView) -> dict[str, list[Any]]:
    """What a browser reads: values in units shown, None where there is none."""
    table = np.frombuffer(view.snapshot(), "<i2").reshape(len(QUANTITIES), -1)
    return {
        quantity.name: [None if raw == NONE else raw * quantity.step for raw in column.tolist()]
        for quantity, column in zip(QUANTITIES, table, strict=True)
    }


@pytest.mark.parametrize("payload", PAYLOADS)
def test_newest_values_arrive_in_units_and_steps(payload: Payload) -> None:
    view = FleetView(100)
    batch = fleet_batch(range(8), 3)
    view.take("telemetry", encode(batch, "telemetry", payload).values)
    found = shown(view)
    for quantity in QUANTITIES:
        if quantity.name in batch.schema.names and quantity.name != "mode":
            truth = batch.column(quantity.name).to_numpy() * quantity.scale
            assert found[quantity.name] == pytest.approx(truth, abs=0.51 * quantity.step + 1e-4), quantity.name
    assert found["mode"] == [0, 1, 2, 3, 0, 1, 2, 3]
    assert found["rul"] == found["failure_probability"] == [None] * 8
    assert view.vehicles(6) == ["EV-000006", "EV-000007"]
    assert view.vehicles(8) == []


def test_predictions_stand_beside_records() -> None:
    view = FleetView(100)
    take(view, range(4), 0)
    take(view, range(1, 3), 0, "predictions", rul=[700.0, 20.0])
    assert shown(view)["rul"] == [None, 700, 20, None]
    past = view.past("EV-000002")
    assert past is not None
    assert past["predictions"]["rul"] == [20]
    assert len(past["telemetry"]["soc"]) == 1


def test_the_last_minutes_are_kept_in_order_and_no_more() -> None:
    view = FleetView(100)
    for seq in range(RECORDS + 7):
        take(view, range(2), seq, battery_voltage=300.0 + seq)
        take(view, range(2), seq, "predictions", rul=float(seq))
    past = view.past("EV-000001")
    assert past is not None
    assert past["telemetry"]["battery_voltage"] == [300.0 + seq for seq in range(7, RECORDS + 7)]
    assert np.diff(past["telemetry"]["t"]) == pytest.approx(PERIOD_S * 1e3)
    assert past["predictions"]["rul"] == list(range(RECORDS + 7 - PREDICTIONS, RECORDS + 7))
    assert view.past("EV-000002") is None


def test_several_records_of_a_vehicle_may_come_at_once() -> None:
    view = FleetView(100)
    messages = [encode(fleet_batch(range(2), seq, battery_voltage=300.0 + seq), "telemetry").values for seq in range(5)]
    view.take("telemetry", [message for batch in messages for message in batch])
    past = view.past("EV-000001")
    assert past is not None
    assert past["telemetry"]["battery_voltage"] == [300, 301, 302, 303, 304]
    assert shown(view)["battery_voltage"] == [304, 304]


def test_late_and_repeated_records_change_nothing() -> None:
    view = FleetView(100)
    for seq in (5, 6, 4, 6, 7):
        take(view, range(1), seq, battery_voltage=300.0 + seq)
    past = view.past("EV-000000")
    assert past is not None
    assert past["telemetry"]["battery_voltage"] == [305, 306, 307]


def test_another_run_of_the_same_vehicles_begins_anew() -> None:
    view = FleetView(100)
    take(view, range(2), 500)
    take(view, range(2), 500, "predictions")
    take(view, range(1), 0, run_id="run-other", battery_voltage=401.0)
    assert shown(view)["battery_voltage"][0] == 401
    past = view.past("EV-000000")
    assert past is not None
    assert past["telemetry"]["battery_voltage"] == [401]
    # The same settings make the same run_id: it shows by its records, which keep coming from before the newest.
    for seq in range(4):
        take(view, range(1, 2), seq, battery_voltage=300.0 + seq)
    assert shown(view)["battery_voltage"][1] == 303
    past = view.past("EV-000001")
    assert past is not None
    assert past["telemetry"]["battery_voltage"] == [302, 303]


def test_a_full_page_keeps_whom_it_has_and_says_so() -> None:
    view = FleetView(300)
    take(view, range(290), 0)
    take(view, range(280, 340), 1, battery_voltage=401.0)
    assert len(view.vehicles()) == 300
    assert shown(view)["battery_voltage"][280:] == [401] * 20
    facts = view.facts()
    assert (facts["vehicles"], facts["unkept"], facts["most"]) == (300, 40, 300)
    assert view.past("EV-000320") is None


def test_a_vehicle_costs_what_the_settings_say() -> None:
    view = FleetView(20_000)
    take(view, range(2048), 0)
    arrays = [a for s in view._streams.values() for a in vars(s).values() if isinstance(a, np.ndarray)]
    assert sum(array.nbytes for array in arrays) / 2048 < 6_500


def test_what_is_malformed_is_counted_with_its_reason() -> None:
    view = FleetView(100)
    good = encode(fleet_batch(range(2), 0), "telemetry").values
    view.take("telemetry", [b"{", *good])
    view.take("telemetry", [b"\xff"])
    facts = view.facts()
    assert (facts["vehicles"], facts["telemetry"], facts["malformed"]) == (2, 2, 2)
    assert "expected a JSON object" in facts["malformed_says"]


def test_ages_and_rates_by_the_clock() -> None:
    clock = Clock()
    view = FleetView(100, clock)
    assert view.facts()["last_s"] is None
    for seq in range(20):
        take(view, range(10 if seq < 15 else 5), seq)
        clock.now += 2.0
    facts = view.facts()
    assert facts["last_s"] == 2
    assert facts["telemetry_rate"] == pytest.approx(5 / 2, rel=0.3)
    assert shown(view)["age"] == pytest.approx([2.0] * 5 + [12.0] * 5)
    clock.now += 1e6
    assert max(shown(view)["age"]) == pytest.approx(3276.7)
    assert view.facts()["telemetry_rate"] < 0.01


def test_alarms_look_at_what_is_sent() -> None:
    names = {quantity.name for quantity in QUANTITIES}
    for alarm in alarms(30.0):
        assert alarm.of in names
        assert (alarm.above is None) == bool(alarm.bit)
    assert len({alarm.name for alarm in alarms(30.0)}) == len(alarms(30.0))
