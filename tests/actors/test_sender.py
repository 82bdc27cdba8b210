"""What leaves a vehicle: each record is sent, never sent, lost on the way, or still on its way, and all are counted."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.fleet.sender import Sender
from datasets.transmission import CHANGES, Transmission

PERIOD_S = 10.0
Samples = dict[str, np.ndarray]


def readings(samples: int, vehicles: int, seed: int = 1) -> Samples:
    """Vehicles that stand, drive and stand again; nothing moves while they stand."""
    chance = np.random.default_rng(seed)
    columns = {name: np.full((samples, vehicles), 10.0) for name in CHANGES}
    begin, end = samples // 3, 2 * samples // 3
    columns["mode"] = np.zeros((samples, vehicles), dtype=np.int8)
    columns["mode"][begin:end] = 1
    columns["battery_current"][begin:end] += chance.integers(-50, 50, (end - begin, vehicles))
    return columns


def sent(how: Transmission, samples: Samples, cuts: tuple[int, ...] = (), first: int = 0) -> tuple[Sender, Samples]:
    """What arrives of these samples, passed in pieces."""
    count, vehicles = samples["soc"].shape
    sender = Sender(how, 7, np.arange(first, first + vehicles), PERIOD_S)
    bounds = [0, *cuts, count]
    parts = [
        sender.send({name: values[a:b] for name, values in samples.items()}, a) for a, b in itertools.pairwise(bounds)
    ]
    return sender, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def pairs(arrived: Samples) -> list[tuple[int, int]]:
    return list(zip(arrived["lane"].tolist(), arrived["seq"].tolist(), strict=True))


HOW = st.builds(
    Transmission,
    on_change=st.booleans(),
    every_s=st.sampled_from([20.0, 120.0]),
    sleep_after_s=st.sampled_from([None, 30.0, 200.0]),
    drop=st.sampled_from([0.0, 0.1, 1.0]),
    late=st.sampled_from([0.0, 0.3, 1.0]),
    late_by_s=st.sampled_from([10.0, 200.0]),
    repeat=st.sampled_from([0.0, 0.2, 1.0]),
    clock_error_s=st.sampled_from([0.0, 3.0]),
)


@settings(max_examples=60, deadline=None)
@given(HOW, st.integers(1, 59), st.integers(1, 59))
def test_every_record_is_accounted_for_however_it_is_cut(how: Transmission, one: int, other: int) -> None:
    samples = readings(60, 9)
    sender, whole = sent(how, samples)
    counts = sender.sent
    assert len(whole["seq"]) - counts.repeated + counts.held + counts.never == 60 * 9
    _, pieces = sent(how, samples, tuple(sorted({one, other})))
    for name, values in whole.items():
        assert np.array_equal(values, pieces[name]), name
    _, alone = sent(how, {name: values[:, 4:6] for name, values in samples.items()}, first=4)
    mine = np.isin(whole["lane"], [4, 5])
    for name, values in whole.items():
        expected = values[mine] - 4 if name == "lane" else values[mine]
        assert np.array_equal(expected, alone[name]), name


@settings(max_examples=20, deadline=None)
@given(HOW)
def test_it_goes_on_from_a_checkpoint(how: Transmission) -> None:
    samples = readings(60, 9)
    _, whole = sent(how, samples)
    one = Sender(how, 7, np.arange(9), PERIOD_S)
    before = one.send({name: values[:25] for name, values in samples.items()}, 0)
    arrays = {name: np.concatenate(parts) for name, parts in one.parts().items()}
    other = Sender(how, 7, np.arange(9), PERIOD_S)
    other.restore(arrays)
    after = other.send({name: values[25:] for name, values in samples.items()}, 25)
    for name, values in whole.items():
        assert np.array_equal(values, np.concatenate([before[name], after[name]])), name


def test_a_plain_transmission_sends_all_in_order() -> None:
    _, arrived = sent(Transmission(), readings(5, 3))
    assert pairs(arrived) == [(lane, seq) for seq in range(5) for lane in range(3)]
    assert not arrived["clock_us"].any()


def test_on_change_a_standing_vehicle_sends_by_its_longest_silence() -> None:
    _, arrived = sent(Transmission(on_change=True, every_s=50.0), readings(60, 1))
    seqs = arrived["seq"].tolist()
    assert [seq for seq in seqs if seq < 20] == [0, 5, 10, 15]
    assert len([seq for seq in seqs if 20 <= seq < 40]) > 15


def test_a_sleeping_vehicle_is_silent_until_it_moves() -> None:
    sender, arrived = sent(Transmission(sleep_after_s=50.0), readings(60, 1))
    assert arrived["seq"].tolist() == [*range(5), *range(20, 45)]
    assert sender.sent.asleep == 60 - 30


def test_dropped_late_and_repeated_are_as_many_as_asked() -> None:
    how = Transmission(drop=0.1, late=0.2, late_by_s=100.0, repeat=0.05)
    sender, arrived = sent(how, readings(400, 50))
    total, counts = 400 * 50, sender.sent
    assert counts.dropped / total == pytest.approx(0.1, abs=0.01)
    assert counts.repeated / total == pytest.approx(0.9 * 0.05, abs=0.01)
    times = Counter(pairs(arrived))
    assert set(times.values()) == {1, 2}
    came: dict[int, int] = {}
    overtaken = 0
    for lane, seq in pairs(arrived):
        overtaken += seq < came.get(lane, -1)
        came[lane] = max(seq, came.get(lane, -1))
    assert overtaken / total > 0.15


def test_nothing_comes_later_than_asked() -> None:
    samples, how = readings(200, 20), Transmission(late=1.0, late_by_s=60.0)
    sender = Sender(how, 7, np.arange(20), PERIOD_S)
    for seq in range(200):
        arrived = sender.send({name: values[seq : seq + 1] for name, values in samples.items()}, seq)
        assert np.all((seq - arrived["seq"] >= 1) & (seq - arrived["seq"] <= 6))


def test_a_clock_is_off_by_the_same_at_all_times() -> None:
    _, arrived = sent(Transmission(clock_error_s=2.0), readings(10, 500))
    off = np.array([np.unique(arrived["clock_us"][arrived["lane"] == lane]) for lane in range(500)])
    assert off.shape == (500, 1)
    assert off.std() == pytest.approx(2e6, rel=0.15)
    assert np.all(off % 1000 == 0)


@pytest.mark.parametrize(
    ("how", "plain", "whole"),
    [
        ({}, True, True),
        ({"clock_error_s": 1.0}, False, True),
        ({"drop": 0.1}, False, False),
        ({"sleep_after_s": 600.0}, False, False),
        ({"repeat": 0.1}, False, False),
    ],
)
def test_what_is_plain_and_whole(how: dict[str, Any], plain: bool, whole: bool) -> None:
    transmission = Transmission(**how)
    assert (transmission.plain, transmission.whole) == (plain, whole)
