"""The laboratory: reading a protocol, meeting its limits, long steps against short ones, books that balance."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import replace

import numpy as np
import pytest

from physics import load_cell, parse_protocol, simulate_cell, simulate_protocol
from physics.lab import ENDINGS
from physics.protocol import Kind, Rate, Step

STANDARD = "CC 1C to 2.5V; rest 1h; CCCV 0.5C 4.2V C/50"


def test_a_protocol_is_read() -> None:
    steps = parse_protocol(
        "cc 1 C to 2.5V ;rest 1h30min; CCCV C/2 4.2V C/50;\nCP 10 W charge for 1 h; CV 4100mV to 50mA"
    )
    assert [dataclasses.replace(step, text="") for step in steps] == [
        Step("", Kind.CC, rate=Rate(1.0, "C"), voltage_V=2.5),
        Step("", Kind.REST, duration_s=5400.0),
        Step("", Kind.CCCV, rate=Rate(0.5, "C"), charges=True, voltage_V=4.2, cutoff=Rate(0.02, "C")),
        Step("", Kind.CP, power_W=10.0, charges=True, duration_s=3600.0),
        Step("", Kind.CV, voltage_V=4.1, cutoff=Rate(0.05, "A")),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected a protocol such as"),
        ("CC 1C to 2.5V; jump", "step 2 \"jump\": expected CC, CCCV, CV, CP, drive or rest, got 'jump'"),
        ("CC 1C", "expected 'to' and a voltage, or 'for' and a time"),
        ("CC 1C up to 2.5V", "got 'up'"),
        ("CC 1 to 2.5V", "expected a current such as 1C, C/3 or 2.5A, got '1'"),
        ("CC C/0 for 1h", "got 'C/0'"),
        ("CC nanC for 1h", "got 'nanC'"),
        ("CC 0C for 1h", "not zero"),
        ("CC -1C discharge to 3V", "one direction"),
        ("CCCV 0.5C 4.2V", "expected the current that ends it, such as C/50 or 100mA, got nothing"),
        ("CCCV 0.5C 4.2V 1C", "expected a final current below the first"),
        ("CV 4.2V", "expected 'to' and a current"),
        ("rest 1x", "got '1x'"),
        ("rest 0s", "at least 0.1s"),
        ("rest 1h 1h", "steps are separated by ';'"),
        ("CC 1C to 2V", "expected a voltage from 2.5 to 4.2 V, the limits of chen2020, got 2 V"),
        ("CC 1000C to 3V", "expected at most 50C"),
        ("CP 10kW for 1h", "expected at most 1050 W"),
    ],
)
def test_a_mistake_is_one_clear_line(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)) as caught:
        simulate_protocol("chen2020", text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("cycles", 0), ("cycles", 1.5), ("ambient_C", 500.0), ("initial_soc", 1.1), ("step_s", 0.0), ("points", 1)],
)
def test_a_setting_out_of_range(setting: str, value: float) -> None:
    with pytest.raises(ValueError, match=setting):
        simulate_protocol("chen2020", STANDARD, **{setting: value})  # type: ignore[arg-type]


def test_limits_are_met() -> None:
    result = simulate_protocol("chen2020", STANDARD)
    series = result.series[0]
    assert not result.complaints()
    assert series.voltage_V[series.step == 1][-1] == pytest.approx(2.5, abs=1e-3)
    charging = series.step == 3
    assert series.voltage_V[charging].max() == pytest.approx(4.2, abs=2e-4)
    held = charging & (series.current_A > -2.49)
    np.testing.assert_allclose(series.voltage_V[held], 4.2, atol=7e-3)
    assert series.current_A[-1] == pytest.approx(-0.1, rel=5e-3)
    assert np.all(series.current_A[series.step == 2] == 0.0)
    assert np.all(np.diff(series.time_s) > 0.0)


@pytest.mark.parametrize("ambient_C", [0.0, 25.0])
def test_long_steps_agree_with_short_ones(ambient_C: float) -> None:
    long = simulate_protocol("chen2020", STANDARD, 3, ambient_C).cycles
    short = simulate_protocol("chen2020", STANDARD, 3, ambient_C, step_s=1.0, rest_step_s=1.0).cycles
    for name, rel in (("discharge_Ah", 2e-4), ("charge_Wh", 3e-4), ("resistance_Ohm", 2e-3)):
        np.testing.assert_allclose(getattr(long, name), getattr(short, name), rtol=rel, err_msg=name)
    np.testing.assert_allclose(long.max_temperature_C, short.max_temperature_C, rtol=0.004)
    np.testing.assert_allclose(long.soh, short.soh, atol=1e-5)
    np.testing.assert_allclose(long.sei_thickness_m - 5e-9, short.sei_thickness_m - 5e-9, rtol=0.01)


def test_fade_is_smooth() -> None:
    cycles = simulate_protocol("chen2020", "CC 1C to 2.5V; CC 1C to 4.2V", 300, keep=()).cycles
    # Both ends are met to 0.1 s, which is 0.14 mAh at 1C.
    np.testing.assert_allclose(np.diff(cycles.discharge_Ah[5:]), np.diff(cycles.discharge_Ah[5:]).mean(), atol=4e-4)


def test_a_rest_does_not_depend_on_its_steps() -> None:
    def rested(rest_step_s: float) -> tuple[float, float, float]:
        result = simulate_protocol("chen2020", "CC 2C for 10min; rest 3h", rest_step_s=rest_step_s)
        series = result.series[0]
        return series.voltage_V[-1], series.temperature_C[-1], result.cycles.sei_thickness_m[0] - 5e-9

    assert rested(60.0) == pytest.approx(rested(1.0), rel=0.01)  # side reactions and stress are explicit in the step
    assert rested(600.0)[0] == pytest.approx(rested(1.0)[0], abs=1e-5)


def test_agrees_with_a_profile_second_by_second() -> None:
    profile = simulate_cell("chen2020", np.full(1800, 5.0), initial_soc=1.0)
    result = simulate_protocol("chen2020", "CC 1C for 30min")
    series = result.series[0]
    assert series.voltage_V[-1] == pytest.approx(profile.voltage_V[-1], abs=2e-4)
    assert series.temperature_C[-1] == pytest.approx(profile.temperature_C[-1], abs=0.03)
    assert result.cycles.discharge_Ah[0] == pytest.approx(2.5)


def test_lithium_is_conserved_but_for_the_film() -> None:
    cell = replace(load_cell("chen2020"), plating=None, lam_negative=None, lam_positive=None)
    cycles = simulate_protocol(cell, STANDARD, 5).cycles
    lost = cycles.lithium_Ah[0] - cycles.lithium_Ah[-1]
    film = cycles.sei_thickness_m[-1] - cycles.sei_thickness_m[0]
    surface = cell.negative.specific_area_1_m * cell.negative.thickness_m * cell.area_m2
    in_film = film * surface / cell.sei.molar_volume_m3_mol * cell.sei.lithium_per_mole * 96485.33 / 3600.0
    assert lost == pytest.approx(in_film, rel=1e-3)
    balance = cycles.discharge_Ah - cycles.charge_Ah
    np.testing.assert_allclose(balance[1:], 0.0, atol=2e-3)
    assert np.all(np.diff(cycles.soh) < 0.0)


def test_power_is_held() -> None:
    result = simulate_protocol("chen2020", "CP 15W to 2.8V; CP 10W charge to 4.1V")
    series = result.series[0]
    for step, power in ((1, 15.0), (2, -10.0)):
        inside = series.step == step
        np.testing.assert_allclose((series.voltage_V * series.current_A)[inside][2:], power, rtol=0.01)
    assert not result.complaints()


def test_direction_follows_the_target() -> None:
    result = simulate_protocol("chen2020", "CC 0.5C to 3.7V; CC 0.5C to 4.0V; CV 3.8V to C/20", initial_soc=0.5)
    series = result.series[0]
    signs = [np.sign(series.current_A[series.step == step][-1]) for step in (1, 2, 3)]
    assert signs == [-1.0 if series.voltage_V[0] < 3.7 else 1.0, -1.0, 1.0]


def test_endings_are_told() -> None:
    def ended(text: str, **settings: float) -> str:
        result = simulate_protocol("chen2020", text, **settings)  # type: ignore[arg-type]
        return ENDINGS[result.endings[0, 0]]

    assert ended("CC 1C to 3V") == "target"
    assert ended("CC 1C for 1min") == "time"
    assert ended("CC 1C to 3V for 1min") == "time"
    assert ended("CC 1C for 3h") == "the cell's own voltage limit"
    assert ended("CC 1C charge to 3V", initial_soc=0.5) == "target"  # it is there already
    assert ended("CC C/1000 to 3V", longest_step_h=1.0).startswith("the longest time of a step")
    assert ended("CC 1C discharge to 4.2V", initial_soc=0.5) == "target"
    complaint = simulate_protocol("chen2020", "rest 1h; CC 2C for 3h; CC 0.5C to 4.2V", 3).complaints()
    assert complaint == [
        'step 2 "CC 2C for 3h" was ended by: the cell\'s own voltage limit, in 3 of 3 cycles, first in cycle 1'
    ]


@pytest.mark.parametrize("ambient_C", [-60.0, -20.0, 60.0, 100.0])
@pytest.mark.parametrize(
    "text",
    [
        "CC 50C to 2.5V; rest 1s; CC 50C to 4.2V",
        "CV 2.5V to C/1000; CV 4.2V to C/1000",
        "CP 500W for 1h; CC 0.1C charge for 1d",
    ],
)
def test_never_nan(text: str, ambient_C: float) -> None:
    result = simulate_protocol("chen2020", text, 2, ambient_C)
    for series in result.series:
        for name in ("voltage_V", "current_A", "temperature_C", "soc"):
            assert np.all(np.isfinite(getattr(series, name))), name
    assert np.all(np.isfinite(result.cycles.soh))
    assert np.all(result.endings >= 0)


def test_memory_is_bounded() -> None:
    result = simulate_protocol("chen2020", "CC 1C to 2.5V; CC 0.5C to 4.2V", 4, step_s=1.0, points=100, keep=(2, -1))
    assert [series.cycle for series in result.series] == [2, 4]
    for series in result.series:
        assert 50 <= series.time_s.size <= 100
        assert series.time_s[-1] == pytest.approx(result.cycles.duration_s[series.cycle - 1])
        assert np.all(np.diff(series.time_s) > 0.0)
