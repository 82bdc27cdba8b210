"""The protocol's grammar, PyBaMM's sentences as PyBaMM reads them, and demands recorded in a file."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from physics import load_cell, parse_protocol, simulate_cell, simulate_protocol
from physics.lab import ENDINGS
from physics.protocol import Kind, Rate, Step
from training.validation.reference import load_pybamm

# The examples in PyBaMM's own documentation (`pybamm.step.string`, "Experiments" in the user guide and its notebooks).
SENTENCES = (
    "Discharge at 1C for 0.5 hours",
    "Discharge at C/20 for 0.5 hours",
    "Charge at 0.5 C for 45 minutes",
    "Discharge at 1 A for 0.5 hours",
    "Charge at 200 mA for 45 minutes",
    "Discharge at 1W for 0.5 hours",
    "Charge at 200mW for 45 minutes",
    "Rest for 10 minutes",
    "Hold at 1V for 20 seconds",
    "Charge at 1 C until 4.1V",
    "Hold at 4.1 V until 50mA",
    "Hold at 3V until C/50",
    "Discharge at C/3 for 2 hours or until 2.5 V",
    "Discharge at C/10 for 10 hours or until 3.3 V",
    "Charge at 1 A until 4.1 V",
    "Rest for 1 hour",
    "Hold at 4.2 V until 50 mA",
    "Discharge at 1 C for 1 hour (1 minute period)",
    "Discharge at 2 W until < 3 V",
    "Charge at C/2 until > 4.0 V",
    "Discharge at 10 W until > 3 A",
)


def stripped(step: Step) -> Step:
    return replace(step, text="")


def as_pybamm_reads_it(text: str) -> Step:
    pybamm = load_pybamm()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = pybamm.step.string(text)
    kind = {"Current": Kind.CC, "CRate": Kind.CC, "Power": Kind.CP, "Voltage": Kind.CV, "Rest": Kind.REST}
    name = type(read).__name__
    value = abs(float(read.value.value if hasattr(read.value, "value") else read.value))
    fields: dict[str, Any] = {}
    if name in ("Current", "CRate"):
        fields["rate"] = Rate(value, "A" if name == "Current" else "C")
    elif name == "Power":
        fields["power_W"] = value
    elif name == "Voltage":
        fields["voltage_V"] = value
    if name in ("Current", "CRate", "Power"):
        fields["charges"] = read.direction == "charge"
    if read.input_duration is not None:
        fields["duration_s"] = read.duration
    if "period)" in text:
        fields["period_s"] = read.period
    for end in read.termination:
        what = type(end).__name__
        if what == "VoltageTermination":
            fields["voltage_V"] = end.value
        else:
            rate = Rate(end.value, "A" if what == "CurrentTermination" else "C")
            fields["above" if end.operator == ">" else "cutoff"] = rate
    return Step("", kind[name], **fields)


@pytest.mark.parametrize("text", SENTENCES)
def test_pybamms_sentences_mean_what_they_mean_to_pybamm(text: str) -> None:
    assert stripped(parse_protocol(text)[0]) == as_pybamm_reads_it(text)


def test_pybamms_sentences_run() -> None:
    ours = simulate_protocol(
        "chen2020",
        "Discharge at C/10 for 2 hours or until 3.3 V; Rest for 1 hour (1 minute period)\n"
        "Charge at 1 A until 4.1 V\nHold at 4.1 V until 50 mA\nDischarge at 1 W for 0.5 hours",
    )
    assert [ENDINGS[code] for code in ours.endings[0]] == ["time", "time", "target", "target", "time"]
    assert ours.cycles.discharge_Ah[0] == pytest.approx(0.2 * 5.0 + 0.5 / 4.08, abs=0.01)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Discharge at 3 Ohm for 1 hour", "a constant resistance cannot be held, got '3Ohm'"),
        ("Discharge at 1 C until > 5 A", "expected a voltage or a charge (2.5V, 2Ah), got '>5A'"),
        ("Run US06 (A)", "expected 'drive' and a CSV file"),
        ("Hold at 4.2 V until < 50 mA", "expected a current without < or >"),
        ("Charge at 10 W until < 1 A", "expected a current without < or >"),
        ("Discharge at 1C until > 4 V", "a voltage that the step runs towards"),
        ("Discharge at 4 V for 1 h", "a voltage is held by 'Hold at 4.2 V'"),
        ("Discharge at -1 A for 1 h", "without a sign, got '-1A'"),
        ("Discharge at 1C", "got nothing"),
        ("Hold at 4.2 V", "expected 'to' and a current"),
        ("Discharge for 1 hour", "expected 'at' and a current or power"),
        ("CC 1C for 1h at 500degC", "expected a temperature from -60 to 100 degC, got '500degC'"),
        ("CC 1C for 1h at 20", "expected a temperature such as 25degC"),
        ("CC 1C to 2.5V to 3V", "expected each end once"),
        ("CC 1C to 50mA", "expected a voltage or a charge"),
        ("CC 1C to 2.5V, rest 1h", "and steps separated by ';', got '2.5V,'"),
        ("CC 1C to -2Ah", "a charge without a sign"),
        ("CC 1C to 0Ah", "not zero"),
        ("CV 4.2V to 3V", "expected a current or a charge"),
        ("rest 1h to 3V", "expected 'for' and a time, got '3V'"),
        ("rest at 20degC", "expected a time such as"),
        ("drive", "expected a CSV file"),
        ("drive none.csv", "none.csv: cannot read it: No such file"),
    ],
)
def test_what_cannot_be_said_is_refused_in_one_line(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)) as caught:
        simulate_protocol("chen2020", text)
    assert "\n" not in str(caught.value)


def test_all_ends_are_read() -> None:
    assert stripped(
        parse_protocol("CP 10 W to 2.5 V or 2 Ah or until > 4 A for 1 day at -10 degC (5 s period)")[0]
    ) == (
        Step(
            "",
            Kind.CP,
            power_W=10.0,
            voltage_V=2.5,
            charge_Ah=2.0,
            above=Rate(4.0, "A"),
            duration_s=86400.0,
            chamber_C=-10.0,
            period_s=5.0,
        )
    )
    assert parse_protocol("CCCV 0.5C 4.2V C/50 to 2Ah at 298.15K")[0].chamber_C == pytest.approx(25.0)


def ended(text: str, **settings: float) -> tuple[str, float, float]:
    """(what ended the first step, charge discharged in it, time [s])."""
    result = simulate_protocol("chen2020", text, **settings)  # type: ignore[arg-type]
    return ENDINGS[result.endings[0, 0]], float(result.cycles.discharge_Ah[0]), float(result.cycles.duration_s[0])


def test_a_time_that_is_given_is_kept() -> None:
    how, charge_Ah, seconds = ended("CC C/100 to 2.5V for 150h")
    assert how == "target"
    assert charge_Ah == pytest.approx(5.15, abs=0.01)
    assert seconds / 3600.0 == pytest.approx(103.0, abs=0.2)
    how, charge_Ah, seconds = ended("rest 5d")
    assert (how, charge_Ah) == ("time", 0.0)
    assert seconds == pytest.approx(5 * 86400.0)
    assert ended("CC C/100 to 2.5V")[0] == "target"


def test_the_default_time_limit_is_said() -> None:
    result = simulate_protocol("chen2020", "CV 4.2V to 1mA", initial_soc=0.5, longest_step_h=1.0)
    assert result.cycles.duration_s[0] == pytest.approx(3600.0)
    assert result.complaints()[0].startswith(
        'step 1 "CV 4.2V to 1mA" was ended by: the longest time of a step that has'
    )


def test_an_end_by_charge_is_exact() -> None:
    how, charge_Ah, seconds = ended("CC 1C to 2Ah")
    assert how == "target"
    assert charge_Ah == pytest.approx(2.0, abs=1e-9)
    assert seconds == pytest.approx(1440.0)
    assert ended("CP 10W to 1Ah")[1] == pytest.approx(1.0, abs=1e-4)  # 0.1 s
    assert ended("CC 1C to 9Ah")[0] == "the cell's own voltage limit"


def test_an_end_by_current() -> None:
    falling = simulate_protocol("chen2020", "CP 10W charge to <2.5A", initial_soc=0.1).series[0]
    assert np.abs(falling.current_A[-1]) == pytest.approx(2.5, abs=1e-3)
    rising = simulate_protocol("chen2020", "CP 15W until >4.5A").series[0]
    assert rising.current_A[-1] == pytest.approx(4.5, abs=1e-3)


def test_a_chamber_holds_for_its_step() -> None:
    series = simulate_protocol("chen2020", "rest 6h at -10degC; rest 6h; CC 1C to 1Ah at 40degC").series[0]
    assert [series.temperature_C[series.step == step][-1] for step in (1, 2)] == pytest.approx([-10.0, 25.0], abs=0.1)
    assert series.temperature_C[-1] > 30.0


def test_a_period_bounds_the_time_steps() -> None:
    coarse, fine = (simulate_protocol("chen2020", f"rest 1h {text}").series[0] for text in ("", "(5 second period)"))
    assert np.diff(fine.time_s).max() == pytest.approx(5.0)
    assert np.diff(coarse.time_s).max() == pytest.approx(60.0)


# --- recorded demands -------------------------------------------------------------------------------------------------


def wave(seconds: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    return np.repeat(rng.uniform(-3.0, 8.0, seconds // 5), 5)


def write(path: Path, header: str, rows: Any) -> Path:
    path.write_text(header + "\n" + "\n".join(",".join(map(str, row)) for row in rows) + "\n")
    return path


def test_a_recorded_current_is_that_profile(tmp_path: Path) -> None:
    current = wave(600)
    path = write(tmp_path / "us 06.csv", "time_s,current_A", [*enumerate(current, 100), (700, 0.0)])
    result = simulate_protocol("chen2020", f'drive "{path}"', initial_soc=0.6)
    profile = simulate_cell("chen2020", current, initial_soc=0.6)
    series = result.series[0]
    assert ENDINGS[result.endings[0, 0]] == "time"
    assert not result.complaints()
    np.testing.assert_allclose(series.time_s[1:], profile.time_s)
    np.testing.assert_allclose(series.current_A[1:], current)
    np.testing.assert_allclose(series.voltage_V[1:], profile.voltage_V, atol=2e-5)


def test_a_drive_in_c_rates_and_in_watts(tmp_path: Path) -> None:
    rows = [(0, 1.0, 18.0), (30, -0.5, -9.0), (60.5, 0.0, 0.0), (70, 9.0, 9.0)]
    for column, name in ((1, "c_rate"), (2, "power_W")):
        path = write(tmp_path / f"{name}.csv", f"note,time_s,{name}", [("x", row[0], row[column]) for row in rows])
        series = simulate_protocol("chen2020", f"drive {path}", initial_soc=0.5).series[0]
        does = series.current_A if column == 1 else series.current_A * series.voltage_V
        unit = 5.0 if column == 1 else 1.0
        for at, value in ((30.0, rows[0][column]), (60.5, rows[1][column]), (70.0, 0.0)):
            assert does[np.searchsorted(series.time_s, at - 1e-6)] == pytest.approx(unit * value, rel=0.01)
        assert series.time_s[-1] == pytest.approx(70.0)


def test_a_drive_with_an_end_is_repeated_until_it(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "time_s,c_rate", [(0, 1.5), (40, -0.5), (60, 0)])
    result = simulate_protocol("chen2020", f"drive {path} to 2.5V", initial_soc=0.3)
    series = result.series[0]
    assert ENDINGS[result.endings[0, 0]] == "target"
    assert series.time_s[-1] > 600.0
    assert series.voltage_V[-1] == pytest.approx(2.5, abs=1.1e-3)
    assert simulate_protocol("chen2020", f"drive {path} for 10min").cycles.duration_s[0] == pytest.approx(600.0)


def test_a_drive_that_never_meets_its_end_is_ended(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "time_s,current_A", [(0, 0), (3600, 0)])
    result = simulate_protocol("chen2020", f"drive {path} to 2.5V", keep=())
    assert result.cycles.duration_s[0] == pytest.approx(100.0 * 3600.0)
    assert "the longest time of a step" in result.complaints()[0]


def test_braking_into_a_full_cell_is_cut_and_said(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "time_s,current_A", [(0, -10), (10, 5), (20, 0)])
    result = simulate_protocol("chen2020", f"drive {path}")
    series = result.series[0]
    assert series.voltage_V.max() <= 4.2 + 1.1e-3
    assert result.cycles.limited_s[0] == pytest.approx(10.0)
    assert result.complaints() == [
        "the cell's own voltage limit cut the current of the drive for 10.0 s of cycle 1, and in 1 of 1 cycles"
    ]
    assert np.all(series.flags[1:][series.time_s[1:] < 10.01] & 2)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected the columns time_s and one of current_A, power_W, c_rate (positive discharges), got nothing"),
        (
            "t,i\n0,1\n",
            "expected the columns time_s and one of current_A, power_W, c_rate (positive discharges), got t, i",
        ),
        ("time_s,current_A,power_W\n0,1,1\n", "expected the columns"),
        ("time_s,current_A\n0,1\n", "expected at least two rows of numbers, got 1"),
        ("time_s,current_A\n0,1\n1,x\n", "expected numbers in row 3 (names are row 1), got '1,x'"),
        ("time_s,current_A\n0,1\n1\n", "expected numbers in row 3"),
        ("time_s,current_A\n0,1\n1,nan\n", "expected numbers in row 3"),
        ("time_s,current_A\n0,1\n2,1\n2,1\n", "expected time_s to rise by at least 0.001 s from row to row, got 2 and"),
        ("time_s,c_rate\n0,60\n1,1\n", "expected at most 50C"),
        ("time_s,power_W\n0,1e6\n1,1\n", "expected at most 1050 W"),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(ValueError, match=re.escape(says)) as caught:
        simulate_protocol("chen2020", f"drive {tmp_path / 'x.csv'}")
    assert "\n" not in str(caught.value)


# --- voltage limits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ambient_C", [-40.0, -20.0, 0.0, 25.0])
@pytest.mark.parametrize("name", ["chen2020", "prada2013"])
def test_limits_hold_at_every_step(name: str, ambient_C: float) -> None:
    """After a rest in the cold and at the steep ends, where a forecast of the voltage is worst."""
    cell = load_cell(name)
    for soc in (0.0, 0.02, 0.1, 0.9, 0.98, 1.0):
        for c_rate in (-5.0, -1.0, 1.0, 3.0):
            current = np.repeat([0.0, c_rate, 0.0, -c_rate], [3, 20, 3, 20]) * cell.nominal_capacity_Ah
            run = simulate_cell(name, current, initial_soc=soc, ambient_C=ambient_C)
            flowing = run.current_A != 0.0
            low = cell.voltage_min_V - run.voltage_V[flowing & (run.current_A > 0.0)]
            high = run.voltage_V[flowing & (run.current_A < 0.0)] - cell.voltage_max_V
            assert max(low.max(initial=0.0), high.max(initial=0.0)) <= 5e-3, (soc, c_rate)
            cut = run.current_A != current
            assert np.all(run.flags[cut] & 2), "what is refused is flagged"
            assert np.all(np.abs(run.current_A) <= np.abs(current))


def test_no_more_is_cut_than_the_limit_asks_for() -> None:
    run = simulate_cell("chen2020", np.full(30, 50.0), initial_soc=0.3, ambient_C=-20.0)
    assert np.all(run.flags & 2)
    np.testing.assert_allclose(run.voltage_V, 2.5, atol=1.1e-3)


def test_a_protocol_stays_within_the_limits_in_the_cold() -> None:
    result = simulate_protocol("prada2013", "CC 3C to 2V; rest 10min; CC 3C to 3.6V", 1, -20.0)
    series = result.series[0]
    assert series.voltage_V.min() >= 2.0 - 1.1e-3
    assert series.voltage_V.max() <= 3.6 + 1.1e-3
