"""The states of a shard's slot: which moves there are, and what they do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from actors.fleet.plan import PopulationPlan, ShardPlan
from actors.fleet.shard import Shard, ShardStatus
from actors.fleet.slot import RETRY_S, IllegalMove, Restarting, ShardSlot, State, Stepping, Waiting
from tests.actors.cluster import Actor, Call, StandIn

PLAN = ShardPlan(
    run_dir=Path("run"), run_id="run", shard=3, first_vehicle=30, vehicles=10,
    population=PopulationPlan(1, (("chen2020", 1.0),), None, 10.0, 0.02), start_s=0, step_s=1.0, telemetry_ticks=2,
    checkpoint_ticks=60,
)  # fmt: skip
STATUS = ShardStatus(shard=3, pid=1, node="a", tick=100, records=500, compute_s=0.0)


def state_of(slot: ShardSlot) -> State:
    return slot.state


def slot_of() -> tuple[ShardSlot, Call[ShardStatus]]:
    actor: Actor[Shard] = Actor(Shard, StandIn(PLAN, "a", {}), None)  # type: ignore[arg-type]
    return ShardSlot(PLAN, actor, STATUS), Call(Shard.status, actor, ())


def test_it_begins_where_the_shard_says() -> None:
    slot, _ = slot_of()
    assert (slot.asked_tick, slot.complete, slot.state) == (100, True, Stepping())


@pytest.mark.parametrize(
    ("asked", "allowed", "until", "longest", "end"),
    [
        (100, 1000, 1000, 60, 160),  # as long as a block may be
        (100, 1000, 120, 60, 120),  # to the end and no further
        (100, 100, 1000, 60, None),  # not before its time
        (100, 101, 1000, 60, None),  # blocks end where a record is due
        (100, 103, 1000, 60, 102),
        (100, 101, 101, 60, 101),  # but for the last one
        (1000, 1000, 1000, 60, None),
    ],
)
def test_where_the_next_block_ends(asked: int, allowed: int, until: int, longest: int, end: int | None) -> None:
    slot, _ = slot_of()
    slot.asked_tick = asked
    assert slot.next_block(allowed, until, 2, longest) == end


def test_blocks_go_out_and_come_back() -> None:
    slot, call = slot_of()
    assert slot.may_send(0.0, 1)
    slot.sent(160, call, 1.0)
    assert not slot.may_send(0.0, 1)
    assert slot.may_send(0.0, 2)
    slot.deaths = 2
    slot.answered(call, replace(STATUS, tick=160), 0.0)
    assert (slot.status.tick, slot.asked_tick, slot.calls, slot.deaths) == (160, 160, [], 0)


def test_a_shard_that_waits_is_asked_the_same_again() -> None:
    slot, call = slot_of()
    slot.sent(160, call, 1.0)
    slot.answered(call, replace(STATUS, waiting_for="room"), 50.0)
    assert state_of(slot) == Waiting(50.0 + RETRY_S)
    assert not slot.may_send(50.0, 2)
    assert slot.may_send(50.0 + RETRY_S, 2)
    assert slot.next_block(160, 160, 2, 60) is not None
    slot.sent(160, call, 1.0)
    slot.answered(call, replace(STATUS, tick=160), 52.0)
    assert state_of(slot) == Stepping()


def test_a_shard_that_died_comes_back_where_its_log_ends() -> None:
    slot, call = slot_of()
    slot.sent(160, call, 1.0)
    slot.deaths = 1
    slot.died(slot.actor, call, 1000.0)
    assert isinstance(state_of(slot), Restarting)
    assert not slot.may_send(0.0, 2)
    assert not slot.complete
    slot.back(replace(STATUS, tick=80))
    assert (slot.asked_tick, state_of(slot), slot.calls, slot.deaths) == (80, Stepping(), [], 1)
    assert not slot.complete, "it owes what it was asked for before it died"


def test_it_owes_a_block_from_when_it_is_asked_until_it_has_made_it() -> None:
    slot, call = slot_of()
    assert slot.owes_since is None
    slot.sent(160, call, 1.0)
    slot.sent(220, call, 2.0)
    assert slot.owes_since == 1.0
    slot.answered(call, replace(STATUS, tick=160), 5.0)
    assert slot.owes_since == 5.0, "the second block, since the first one is there"
    slot.answered(call, replace(STATUS, tick=160, waiting_for="room"), 6.0)
    slot.sent(220, call, 7.0)
    slot.died(slot.actor, call, 9.0)
    assert slot.owes_since == 5.0, "neither waiting nor dying is a step"
    slot.back(replace(STATUS, tick=160))
    assert slot.owes_since is None, "nothing is asked of the new process yet"
    slot.sent(220, call, 20.0)
    slot.answered(call, replace(STATUS, tick=220), 21.0)
    assert slot.owes_since is None


def test_moves_that_cannot_be_raise_with_what_came_before() -> None:
    slot, call = slot_of()
    slot.sent(160, call, 1.0)
    with pytest.raises(IllegalMove, match=r"shard 3: back in Stepping at step 100; before: sent in Stepping"):
        slot.back(STATUS)
    slot, call = slot_of()
    slot.died(slot.actor, call, 1000.0)
    moves: tuple[Callable[[], None], ...] = (
        lambda: slot.sent(160, call, 1.0),
        lambda: slot.asked(call),
        lambda: slot.answered(call, STATUS, 0.0),
    )
    for move in moves:
        with pytest.raises(IllegalMove, match="Restarting"):
            move()
