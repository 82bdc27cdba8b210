"""Placement, restarts, draining: tables of facts and decisions."""

from __future__ import annotations

import pytest

from actors.fleet.drain_policy import Drain, PoolState, Verdict
from actors.fleet.placement import (
    Place,
    carriers_to_replace,
    place_of_carrier,
    place_of_shard,
    shards_by_node,
    shards_of,
)
from actors.fleet.restart_policy import RestartPolicy


@pytest.mark.parametrize(
    ("vehicles", "asked", "cpus", "shards"),
    [
        (1000, 0, 2, 2),  # a shard a core
        (1000, 0, 16, 4),  # but none with fewer than 250 vehicles
        (100, 0, 16, 1),
        (1, 0, 16, 1),
        (1000, 7, 2, 7),  # as asked for
        (3, 7, 2, 3),  # and none without a vehicle
        (10_000_000, 0, 64, 64),
    ],
)
def test_how_many_shards(vehicles: int, asked: int, cpus: int, shards: int) -> None:
    assert shards_of(vehicles, asked, cpus) == shards


def test_a_shard_goes_back_to_its_log_and_a_carrier_stays_with_it() -> None:
    assert place_of_shard() == Place(node="", must=False, cpus=1, restarts=False)
    assert place_of_shard("a") == Place(node="a", must=False, cpus=1, restarts=False)
    assert place_of_carrier("a") == Place(node="a", must=True, cpus=0, restarts=True)


def test_shards_by_node() -> None:
    assert shards_by_node({0: "b", 1: "a", 2: "b"}) == {"b": [0, 2], "a": [1]}


@pytest.mark.parametrize(("before", "after", "nodes"), [("a", "a", ()), ("a", "b", ("a", "b")), ("", "b", ("", "b"))])
def test_carriers_follow_a_shard_that_moved(before: str, after: str, nodes: tuple[str, ...]) -> None:
    assert carriers_to_replace(before, after) == nodes


@pytest.mark.parametrize(
    ("deaths", "several_nodes", "again"),
    [(1, False, True), (2, False, True), (3, False, False), (3, True, True), (9, True, True), (10, True, False)],
)
def test_a_shard_that_dies_in_place_is_given_up(deaths: int, several_nodes: bool, again: bool) -> None:
    assert RestartPolicy().may_restart(deaths, several_nodes=several_nodes) is again


Look = tuple[float, int, bool, PoolState, Verdict]


@pytest.mark.parametrize(
    "looks",
    [
        # Nothing on its way: done, whatever the pool does.
        [(0.0, 0, True, "starting", "done")],
        # All delivered, but a shard has to come back first.
        [(0.0, 0, False, "none", "wait"), (5.0, 0, True, "none", "done")],
        # Patience counts from the last progress.
        [(0.0, 9, True, "up", "wait"), (9.0, 8, True, "up", "wait"), (18.0, 8, True, "up", "wait"),
         (19.5, 8, True, "up", "stuck")],
        # More on its way than before is no progress.
        [(0.0, 9, True, "up", "wait"), (6.0, 12, True, "up", "wait"), (11.0, 9, True, "up", "stuck")],
        # A pool that starts is waited for, and one that failed is not.
        [(0.0, 9, True, "starting", "wait"), (60.0, 9, True, "starting", "wait"), (61.0, 9, True, "failed", "failed")],
        # So is a shard that makes its records anew.
        [(0.0, 9, False, "none", "wait"), (60.0, 9, False, "none", "wait"), (61.0, 9, True, "none", "wait"),
         (72.0, 9, True, "none", "stuck")],
    ],
)  # fmt: skip
def test_draining(looks: list[Look]) -> None:
    drain = Drain(patience_s=10.0, since=0.0)
    for now, backlog, complete, pool, expected in looks:
        drain, verdict = drain.look(now, backlog, complete=complete, pool=pool)
        assert verdict == expected, (now, backlog)


def test_starting_is_not_draining() -> None:
    """A shipper, a feeder or a replica that is being started makes progress, but not for ever."""
    drain = Drain(patience_s=10.0, since=0.0)
    for now, starting, expected in (
        (0.0, True, "wait"), (500.0, True, "wait"), (520.0, False, "wait"), (529.0, False, "wait"),
        (600.0, True, "wait"), (1190.0, True, "wait"), (1201.0, True, "stuck"),
    ):  # fmt: skip
        drain, verdict = drain.look(now, 9, complete=True, pool="up", starting=starting)
        assert verdict == expected, now
