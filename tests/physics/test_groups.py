"""All cell groups of a pack, and the two deviations that stand for them."""

from __future__ import annotations

import numpy as np
import pytest

from physics import Pack, simulate_cell, simulate_groups, simulate_pack
from physics.pack import group_scales
from training.validation.groups import PackCase, _row, as_text
from training.validation.reference import drive_like_profile

_, DRIVE = drive_like_profile(seconds=1200)


def test_a_group_is_the_cell_it_is_made_of() -> None:
    """Full at the start; capacity and resistance of its own; no neighbour matters."""
    capacity, resistance = np.array([0.9, 1.0, 1.05]), np.array([1.2, 1.0, 0.9])
    every = simulate_groups("chen2020", DRIVE[1:], capacity, resistance, initial_soc=1.0)
    assert every.voltage_V.shape == every.temperature_C.shape == (1200, 3)
    for k in range(3):
        alone = simulate_cell(
            "chen2020",
            DRIVE[1:],
            initial_soc=1.0,
            capacity_scale=float(capacity[k]),
            resistance_scale=float(resistance[k]),
            voltage_limits=False,
        )
        np.testing.assert_array_equal(every.voltage_V[:, k], alone.voltage_V)


def test_more_groups_than_lanes_and_the_same_charge_drawn_from_all() -> None:
    capacity = np.linspace(0.9, 1.1, 200)
    every = simulate_groups("chen2020", np.zeros(3), capacity, np.ones(200), initial_soc=0.5)
    assert every.voltage_V.shape == (3, 200)
    assert np.all(np.diff(every.voltage_V[-1]) > 0.0)  # the weaker ones stand lower
    single = simulate_groups("chen2020", np.zeros(3), capacity[150:151], np.ones(1), initial_soc=0.5)
    np.testing.assert_array_equal(every.voltage_V[:, 150], single.voltage_V[:, 0])


def test_worse_cooled_groups_warm_more() -> None:
    every = simulate_groups(
        "chen2020", np.tile(DRIVE[1:], 4), np.ones(3), np.ones(3), [-0.25, 0.0, 0.25], cooling_scale=0.15
    )
    cool, mean, hot = every.temperature_C[-1] - 25.0
    assert cool < mean < hot < 1.25 * mean


def test_two_equal_deviations_are_the_mean() -> None:
    pack = simulate_pack("chen2020", DRIVE[1:], (0.0, 0.0), (0.0, 0.0))
    np.testing.assert_array_equal(pack.lowest_V, pack.voltage_V)
    np.testing.assert_array_equal(pack.highest_V, pack.voltage_V)
    alone = simulate_groups("chen2020", DRIVE[1:], [1.0], [1.0])
    np.testing.assert_allclose(pack.voltage_V, alone.voltage_V[:, 0], rtol=0.0, atol=1e-12)


def test_representative_against_two_groups_that_differ() -> None:
    """A group of less capacity and more resistance, and its opposite: within a fifth of how far they stand apart."""
    current = np.tile(DRIVE[1:], 6)
    every = simulate_groups("chen2020", current, [0.98, 1.02], [1.04, 0.96])
    pack = simulate_pack("chen2020", current, (-0.02, 0.04), (0.02, -0.04), extremes_s=1.0)
    for ours, theirs in ((pack.lowest_V, every.voltage_V.min(axis=1)), (pack.highest_V, every.voltage_V.max(axis=1))):
        apart = np.sqrt(np.mean((theirs - pack.voltage_V) ** 2))
        assert np.sqrt(np.mean((ours - theirs) ** 2)) < 0.2 * apart


def test_row_of_the_table() -> None:
    row = _row(PackCase("chen2020", 25.0, 1.0, 0.0))
    assert row.groups == 94
    assert row.low_rmse_mV < 1.0 < row.low_apart_mV
    assert row.high_rmse_mV < 1.0 < row.high_apart_mV
    assert row.cost_ratio > 30.0
    assert "equally warm" in as_text([row])[0]
    assert as_text([]) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"current_A": []}, "non-empty"),
        ({"current_A": [np.nan]}, "finite"),
        ({"capacity": [0.0]}, "positive numbers"),
        ({"warmth": -1.0}, "above -1"),
        ({"step_s": 0.0}, "step_s must be a positive"),
    ],
)
def test_bad_input(change: dict[str, object], says: str) -> None:
    arguments = {"current_A": [1.0], "capacity": [1.0], "resistance": [1.0]} | change
    with pytest.raises(ValueError, match=says):
        simulate_groups("chen2020", **arguments)  # type: ignore[arg-type]


def test_draws_average_to_one() -> None:
    capacity, resistance = group_scales(Pack(), 94, 34, seed=3)
    assert capacity.mean() == pytest.approx(1.0)
    assert resistance.std() == pytest.approx(0.02 / np.sqrt(34), rel=0.3)
