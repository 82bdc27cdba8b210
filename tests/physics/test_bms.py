"""What a vehicle reports: errors of the size the profile says, estimates that err as real ones do, truth untouched."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from physics import DIAGNOSTICS, MODES, Fault, FleetLives, FleetPhysics, Population, draw_population, simulate_cell
from physics.bms import PULSE_S, draw_errors
from physics.cell import rested_block
from physics.cells import load_cell
from physics.columns import COLUMNS
from physics.fleet import true_state
from physics.layout import LANES, SOC_BMS
from physics.modal import cell_model
from physics.sensors import PROFILES, Channel, Sensors

MIDNIGHT = 1_767_225_600
DAY, HOUR = 86_400, 3600
PARKED = MODES.index("parked")
Cycles = list[np.ndarray]
Telemetry = dict[str, np.ndarray]


def healthy(vehicles: int, cells: Any = "chen2020", **options: Any) -> Population:
    return draw_population(7, np.arange(vehicles), cells, oldest_years=3.0, fault_share=0.0, **options)


def filled(vehicles: int, cells: Any = "chen2020") -> Population:
    """Deliveries that charge until they are full: what a BMS counts does not decide where charging ends, so the battery
    has the same day whatever the sensors."""
    return replace(healthy(vehicles, cells, use="delivery"), soc_limit=np.ones(vehicles))


def fleet_of(who: Population, cycles: Cycles, sensors: str | Sensors = "typical") -> FleetPhysics:
    profile = PROFILES[sensors] if isinstance(sensors, str) else sensors
    return FleetPhysics(who, cycles=cycles, start_s=MIDNIGHT + 6 * HOUR, sensors=profile)


@pytest.fixture(scope="module")
def both(cycles: Cycles) -> tuple[Telemetry, Telemetry]:
    """(typical, ideal) readings of the same vehicles for some hours."""
    who = filled(400, {"chen2020": 0.5, "prada2013": 0.5})
    typical, ideal = (fleet_of(who, cycles, name).advance(4 * HOUR, 60) for name in ("typical", "ideal"))
    return typical, ideal


def test_ideal_sensors_report_the_truth(cycles: Cycles) -> None:
    fleet = fleet_of(healthy(50, {"chen2020": 0.5, "prada2013": 0.5}), cycles, "ideal")
    told, truth = fleet.advance(2 * HOUR, HOUR), fleet.truth()
    assert told["soc"][-1] == pytest.approx(truth["soc"], abs=1e-3)
    assert told["soh"][-1] == pytest.approx(truth["soh"], abs=1e-6)


def test_a_charge_ends_where_the_bms_has_counted_to(cycles: Cycles) -> None:
    """Its own state of charge is at the owner's limit then; the true one is off by what it has miscounted."""
    who = replace(healthy(200), soc_limit=np.full(200, 0.8), initial_soc=np.full(200, 0.75))
    fleet = fleet_of(who, cycles)
    told = fleet.advance(2 * HOUR, 60)
    ended = (told["mode"][:-1] == MODES.index("charging")) & (told["mode"][1:] == PARKED)
    assert ended.any(axis=0).mean() > 0.4
    assert told["soc"][1:][ended] == pytest.approx(0.8, abs=0.006)
    stays = (told["mode"][-60:] == PARKED).all(axis=0)
    assert 0.01 < fleet.truth()["soc"][stays].std() < 0.06


def test_sensors_do_not_touch_the_truth(cycles: Cycles) -> None:
    truths = []
    for name in PROFILES:
        fleet = fleet_of(filled(50), cycles, name)
        fleet.advance(2 * HOUR, 60)
        truths.append(fleet.truth())
    for name, values in truths[0].items():
        for other in truths[1:]:
            assert np.array_equal(values, other[name]), name


def test_every_reading_is_a_multiple_of_its_resolution(both: tuple[Telemetry, Telemetry]) -> None:
    for column, steps in zip(COLUMNS, PROFILES["typical"].steps(), strict=True):
        values = both[0][column.name].astype(np.float64)
        assert values * steps == pytest.approx(np.rint(values * steps), abs=1e-3), column.name


def test_errors_are_of_the_size_that_the_profile_says(both: tuple[Telemetry, Telemetry]) -> None:
    """Between vehicles: the spread of their mean errors. Within one: the spread of its noise and its rounding."""
    typical, ideal = both
    profile = PROFILES["typical"]
    for name, channel, usual in (
        ("battery_voltage", profile.pack_voltage, 350.0),
        ("battery_current", profile.pack_current, 15.0),
        ("cell_temperature_max", profile.temperature, 0.0),
        ("ambient_temperature", profile.temperature, 0.0),
    ):
        off = typical[name] - ideal[name]
        between = np.hypot(channel.offset, channel.gain * usual)
        assert off.mean(axis=0).std() == pytest.approx(between, rel=0.25, abs=0.1 * channel.resolution), name
        within = np.hypot(channel.noise, channel.resolution / np.sqrt(12.0))
        assert np.median(off.std(axis=0)) < 1.3 * within, name
    noise = (typical["battery_current"] - ideal["battery_current"])[typical["mode"] == PARKED]
    assert (np.abs(noise - np.median(noise)) > 0.01).mean() > 0.5, "a parked vehicle's current is not the same always"


def test_a_parked_vehicle_draws_a_little(both: tuple[Telemetry, Telemetry]) -> None:
    ideal = both[1]
    parked = ideal["mode"] == PARKED
    assert np.all((ideal["power_consumption"][parked] > 0.003) & (ideal["power_consumption"][parked] < 0.026))


def test_minimum_mean_and_maximum_are_in_order(both: tuple[Telemetry, Telemetry]) -> None:
    typical = both[0]
    assert np.all(typical["cell_voltage_min"] <= typical["cell_voltage_max"])
    assert np.all(typical["cell_temperature_min"] <= typical["battery_temperature"])
    assert np.all(typical["battery_temperature"] <= typical["cell_temperature_max"])


def test_reports_do_not_depend_on_sharding_or_on_the_length_of_a_call(cycles: Cycles) -> None:
    who = healthy(150, {"chen2020": 0.5, "prada2013": 0.5})
    whole = fleet_of(who, cycles).advance(2 * HOUR, 30)
    part: dict[str, Any] = {
        field.name: value[40:50] if isinstance(value := getattr(who, field.name), np.ndarray) else value
        for field in fields(who)
    }
    shard = fleet_of(Population(**part), cycles)
    pieces = [shard.advance(ticks, 30) for ticks in (30, 3570, 1800, 1800)]
    for name, values in whole.items():
        assert np.array_equal(values[:, 40:50], np.concatenate([piece[name] for piece in pieces])), name


def test_the_belief_goes_with_a_snapshot(cycles: Cycles) -> None:
    who = healthy(20)
    one, other = fleet_of(who, cycles), fleet_of(who, cycles)
    one.advance(3 * HOUR, 60)
    other.restore(one.snapshot())
    told, again = one.advance(HOUR, 60), other.advance(HOUR, 60)
    for name, values in told.items():
        assert np.array_equal(values, again[name]), name


# --- state of charge and of health ------------------------------------------------------------------------------------


def believed(cell: str, cycles: Cycles, days: int, sensors: Sensors) -> tuple[np.ndarray, np.ndarray]:
    """(SoC error, SoH error) of each vehicle in points after some days. Either cell has the same owners: those of LFP
    would charge to full more often, which sets their count right."""
    who = replace(healthy(256, cell), soc_limit=healthy(256).soc_limit)
    fleet = FleetLives(who, cycles=cycles, start_s=MIDNIGHT, drive_step_s=5.0, sensors=sensors)
    told = fleet.advance(days * DAY, days * DAY)
    truth, [group] = fleet.truth(), fleet._groups
    soc = np.empty(256)
    soc[group.of] = group.row(SOC_BMS)  # telemetry is of midnight, the truth of now: some days later after a jump
    return 100.0 * (soc - truth["soc"]), 100.0 * (told["soh"][-1] - truth["soh"])


def test_the_reported_soc_is_as_far_off_as_in_the_field(cycles: Cycles) -> None:
    """98 real vehicles: 3.2 +- 2.8 points below the open-circuit voltage's."""
    soc, _ = believed("chen2020", cycles, 30, PROFILES["typical"])
    assert soc.mean() == pytest.approx(-3.2, abs=0.7)
    assert soc.std() == pytest.approx(2.8, abs=0.7)


def test_lfp_drifts_for_want_of_slope(cycles: Cycles) -> None:
    """With an unbiased table and a current sensor that is off, rest sets NMC right and LFP hardly."""
    sensors = Sensors.of({"soc": {"bias": 0.0, "spread": 0.0}, "pack_current": {"offset": 0.4}})
    (nmc, _), (lfp, _) = (believed(cell, cycles, 20, sensors) for cell in ("chen2020", "prada2013"))
    assert lfp.std() > 1.5 * nmc.std()


def test_some_report_full_health_for_ever_others_are_off(cycles: Cycles) -> None:
    who = draw_population(7, np.arange(300), oldest_years=10.0, fault_share=0.0)
    fleet = fleet_of(who, cycles, "typical")
    told, truth = fleet.advance(HOUR, HOUR)["soh"][-1], fleet.truth()["soh"]
    aged = truth < 0.95
    always = (told[aged] == 1.0).mean()
    assert 0.03 < always < 0.25
    off = 100.0 * (told - truth)[aged & (told < 1.0)]
    assert 1.5 < off.std() < 4.5


def test_a_rest_sets_right_what_counting_got_wrong(cycles: Cycles) -> None:
    """The same vehicles with a current sensor far off, with and without corrections at rest."""
    off = {"pack_current": {"offset": 2.0}, "soc": {"bias": 0.0, "spread": 0.0}}
    never = {**off, "soc": {**off["soc"], "rest_hours": 100.0}}
    errors = []
    for figures in (off, never):
        fleet = fleet_of(healthy(100), cycles, Sensors.of(figures))
        told = fleet.advance(2 * DAY, 2 * DAY)["soc"][-1]
        errors.append(np.abs(told - fleet.truth()["soc"]).mean())
    assert errors[0] < 0.6 * errors[1]


# --- resistance -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cell", "tolerance"), [("chen2020", 0.05), ("prada2013", 0.10)])
def test_the_resistance_is_that_of_a_simulated_pulse(cell: str, tolerance: float) -> None:
    """At 25 degC and half charge: the truth's formula against a pulse of 10 s that the cell model runs in full."""
    model = cell_model(load_cell(cell))
    amperes = np.concatenate([np.zeros(10), np.full(int(PULSE_S), model.nominal_Ah)])
    run = simulate_cell(cell, amperes, 1.0, initial_soc=0.5, ambient_C=25.0)
    pulse = (run.voltage_V[9] - run.voltage_V[-1]) / model.nominal_Ah
    state = np.empty((3, LANES))
    true_state(rested_block(model, soc=0.5, temperature_C=25.0)[None], model, state)
    assert state[2, 0] == pytest.approx(pulse, rel=tolerance)


def test_resistance_is_of_a_fixed_pulse_whatever_the_step(cycles: Cycles) -> None:
    """It was that of the last step: 94 mOhm at 1 s, 175 at 180 s."""
    who = healthy(20)
    told = [
        FleetPhysics(who, cycles=cycles, start_s=MIDNIGHT, step_s=step, sensors=PROFILES["ideal"]).advance(
            round(600 / step), round(600 / step)
        )
        for step in (1.0, 10.0)
    ]
    assert told[0]["resistance"] == pytest.approx(told[1]["resistance"], rel=0.02)


def test_cold_raises_the_resistance_but_not_the_one_referred_to_25_degrees(cycles: Cycles) -> None:
    who = healthy(60)
    told = [
        FleetPhysics(who, cycles=cycles, start_s=start, sensors=PROFILES["ideal"]).advance(2 * HOUR, 2 * HOUR)
        for start in (MIDNIGHT, MIDNIGHT + 190 * DAY)
    ]
    colder = told[0]["battery_temperature"] < told[1]["battery_temperature"] - 10.0
    assert colder.sum() > 20
    same = np.abs(told[0]["soc"] - told[1]["soc"]) < 0.02
    assert np.all(told[0]["resistance"][same & colder] > 1.1 * told[1]["resistance"][same & colder])
    assert told[0]["resistance_25"][same & colder] == pytest.approx(told[1]["resistance_25"][same & colder], rel=0.03)


# --- faults and codes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["voltage_drift", "current_drift", "temperature_drift"])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_drift_stays_within_the_sensors_range(cycles: Cycles, kind: str, sign: float) -> None:
    """Ten years of drift, found at 505 V and -139 degC before."""
    fleet = fleet_of(healthy(10), cycles)
    for k in range(10):
        fleet.inject(k, Fault(kind, MIDNIGHT - 3650.0 * DAY, sign * 0.05))
    told = fleet.advance(HOUR, 60)
    assert np.all((told["battery_voltage"] > 200.0) & (told["battery_voltage"] < 450.0))
    for name in ("battery_temperature", "cell_temperature_min", "cell_temperature_max"):
        assert np.all((told[name] >= -40.0) & (told[name] <= 125.0)), name
    assert np.all(np.abs(told["battery_current"][told["mode"] == PARKED]) < 10.5)


@pytest.mark.parametrize(
    ("kind", "severity", "code"),
    [
        ("voltage_offset", 8.0, "voltage_sensor"),
        ("current_offset", 2.5, "current_sensor"),
        ("temperature_offset", -15.0, "temperature_sensor"),
        ("cell_imbalance", 0.30, "cell_imbalance"),
    ],
)
def test_the_bms_notices_what_is_large_and_nothing_else(cycles: Cycles, kind: str, severity: float, code: str) -> None:
    fleet = fleet_of(healthy(40), cycles)
    for k in range(20):
        fleet.inject(k, Fault(kind, MIDNIGHT + 7.0 * HOUR, severity))
    codes = fleet.advance(3 * DAY, HOUR)["diagnostics"][-1]
    assert np.all(codes[:20] & DIAGNOSTICS[code]), code
    assert np.all(codes[20:] == 0), "no false alarm"


def test_small_faults_are_not_noticed(cycles: Cycles) -> None:
    """What the three old thresholds found without fail is now within what sound sensors do."""
    fleet = fleet_of(healthy(40), cycles)
    for k in range(20):
        fleet.inject(k, Fault(("voltage_offset", "current_offset", "temperature_offset")[k % 3], MIDNIGHT, 0.7))
    told = fleet.advance(DAY, 600)
    assert np.all(told["diagnostics"] == 0)
    parked = np.where(told["mode"] == PARKED, np.abs(told["battery_current"]), np.nan)
    ill, well = np.nanmean(parked[:, :20], axis=0), np.nanmean(parked[:, 20:], axis=0)
    assert ill.min() < well.max(), "the current while parked does not tell them apart"


# --- figures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        ({"base": "best"}, "base to be one of ideal, typical, poor"),
        ({"pack_curent": {}}, "expected one of base, pack_voltage"),
        ({"pack_current": 3}, "pack_current: expected figures such as offset: 0.1"),
        ({"pack_current": {"noise": -0.1}}, "pack_current: expected noise from 0"),
        ({"pack_current": {"noise": True}}, "pack_current: expected noise from 0"),
        ({"pack_current": {"noise": float("nan")}}, "pack_current: expected noise from 0"),
        ({"pack_current": {"gain": 0.9}}, "pack_current: expected gain from 0 to 0.5"),
        ({"pack_current": {"noises": 1.0}}, "pack_current: expected one of offset, gain, noise, resolution"),
        ({"pack_current": {"resolution": 0.0}}, "pack_current: expected a resolution of 1 or a whole part"),
        ({"soc": {"resolution": 0.3}}, "soc: expected a resolution"),
        ({"soh": {"fixed": 1.1}}, "soh: expected fixed from 0 to 1"),
        ({"speed": "fast"}, "speed: expected a number"),
    ],
)
def test_figures_that_make_no_sense_are_refused_in_one_line(figures: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        Sensors.of(figures)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_is_made_again_from_its_figures(name: str) -> None:
    profile = PROFILES[name]
    assert replace(Sensors.of(profile.figures()), name=name) == profile
    assert replace(Sensors.of(json.loads(json.dumps(profile.figures()))), name=name) == profile


def test_figures_replace_those_of_the_base() -> None:
    own = Sensors.of({"base": "poor", "pack_current": {"offset": 0.5}})
    assert own.pack_current == Channel(0.5, 0.01, 0.3, 0.1)
    assert own.temperature == PROFILES["poor"].temperature


def test_ideal_sensors_err_nowhere() -> None:
    errors = draw_errors(1, np.arange(100), PROFILES["ideal"])
    for field in fields(errors):
        if field.name != "key":
            assert np.all(getattr(errors, field.name) == 0.0), field.name
