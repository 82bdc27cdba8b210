"""Cyclers' records: names, units, signs, parts, and the one line for what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from datasets.cycler_file import read_cycler
from datasets.table_file import DataError

CURRENT = np.repeat([0.0, 2.0, 0.0, 1.0, -1.0], 10)
VOLTAGE = 3.8 - 0.05 * CURRENT


def record(**columns: object) -> pd.DataFrame:
    return pd.DataFrame({"time_s": np.arange(50.0), "current_A": CURRENT, "voltage_V": VOLTAGE} | columns)


def written(tmp_path: Path, table: pd.DataFrame) -> Path:
    path = tmp_path / "record.csv"
    table.to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("names", "scales"),
    [
        (("time_s", "current_A", "voltage_V"), (1.0, 1.0, 1.0)),
        (("Time [h]", "Current(mA)", "Voltage [mV]"), (1 / 3600.0, 1e3, 1e3)),
        (("Test_Time(s)", "I/A", "Ecell/V"), (1.0, 1.0, 1.0)),
        (("t", "Cell current", "U [V]"), (1.0, 1.0, 1.0)),
        (("elapsed time [min]", "current", "Terminal Voltage"), (1 / 60.0, 1.0, 1.0)),
    ],
)
def test_names_and_units(names: tuple[str, ...], scales: tuple[float, ...], tmp_path: Path) -> None:
    plain = record()
    table = pd.DataFrame({name: plain[c] * s for name, c, s in zip(names, plain, scales, strict=True)})
    (part,) = read_cycler(written(tmp_path, table))
    assert part.dt_s == pytest.approx(np.ones(49))
    assert part.current_A == pytest.approx(CURRENT[1:])
    assert part.voltage_V == pytest.approx(VOLTAGE[1:])
    assert (part.temperature_C == 25.0).all()
    assert part.moved_Ah == pytest.approx(30.0 / 3600.0)


def test_temperatures_parts_and_parquet(tmp_path: Path) -> None:
    table = record(battery_temp_C=np.repeat([5.0, 45.0], 25), chamber_temp_C=0.0, session=np.repeat([7, 8], 25))
    table.to_parquet(path := tmp_path / "record.parquet")
    assert [(part.name, part.temperature_C[0], part.dt_s.size) for part in read_cycler(path)] == [
        ("7", 5.0, 24),
        ("8", 45.0, 24),
    ]
    assert [part.name for part in read_cycler(path, only=("8",))] == ["8"]
    kelvin = record(**{"temperature [K]": 298.15})
    assert read_cycler(written(tmp_path, kelvin))[0].temperature_C[0] == pytest.approx(25.0)
    with pytest.raises(DataError, match="expected the parts 9; there are 7, 8"):
        read_cycler(path, only=("9",))


def test_the_sign_is_asked_and_a_contradiction_said(tmp_path: Path) -> None:
    path = written(tmp_path, record(current_A=-CURRENT))
    (part,) = read_cycler(path, "charge")
    assert part.current_A == pytest.approx(CURRENT[1:])
    with pytest.raises(DataError, match="positive current does not discharge: use --current-sign charge"):
        read_cycler(path)
    with pytest.raises(DataError, match="positive current does not charge: use --current-sign discharge"):
        read_cycler(written(tmp_path, record()), "charge")


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (record().drop(columns="current_A"), "expected a column of current, such as current; there are time_s, vol"),
        (record(ecell_V=VOLTAGE), "expected one column of voltage, got voltage_V, ecell_V"),
        (record(voltage_V=1e3 * VOLTAGE), "expected voltages from 0.5 to 6 V, got 3700 to 3850; name"),
        (record(temperature=400.0), "expected temperatures from"),
        (record(current_A=["x", *CURRENT[1:]]), "expected numbers in current_A, got 'x' in row 2"),
        (record(time_s=np.zeros(50)), "expected rising times, got 0 and then 0 in part all"),
        (record(cycle=np.repeat([1, 2], [40, 10])), "expected at least 20 rows in part 2, got 10"),
    ],
)
def test_what_is_wrong_is_one_line(table: pd.DataFrame, says: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_cycler(written(tmp_path, table))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_file_and_no_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read it: No such file"):
        read_cycler(tmp_path / "none.csv")
    for name, content in (("x.parquet", b"no parquet"), ("x.csv", b""), ("y.csv", b"\xff\xfe\x00\x00\xff")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="expected"):
            read_cycler(tmp_path / name)
