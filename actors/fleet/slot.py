"""The supervisor's side of one shard: what the shard was asked, what it answered, which state it is in.

                 sent, answered                 the shard says that it waits
               +----------------+             +-----------------------------+
               v                |             |                             v
    Ready --> Stepping ---------+-------------+                          Waiting (until it is asked again)
               ^                                                            |
               |  back                           sent, answered             |
    Restarting +<------- died (from Stepping or Waiting) <------------------+

A move that is not in the picture is a defect of ours. It raises an error with the last moves.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from actors.fleet.cluster import Pending, Remote
from actors.fleet.plan import ShardPlan
from actors.fleet.shard import Shard, ShardStatus

# How long [s] a shard that waits (for room on its disk, for a sink) is left alone before it is asked again.
RETRY_S = 1.0


@dataclass(frozen=True)
class Stepping:
    """Blocks may be sent."""


@dataclass(frozen=True)
class Waiting:
    """The shard could not do what it was asked, and is asked again at `retry_at`."""

    retry_at: float


@dataclass(frozen=True)
class Restarting:
    """Its process is new and has not yet said where it begins again."""


State = Stepping | Waiting | Restarting


class IllegalMove(AssertionError):
    """An event that cannot happen in this state; the message has the last moves."""


@dataclass
class ShardSlot:
    """One shard. `asked_tick`: how far it was asked to step. `furthest_tick`: how far its records may have reached a
    sink; a shard that begins again further back is stepped there anew, also when the run ends meanwhile."""

    plan: ShardPlan
    actor: Remote[Shard]
    status: ShardStatus
    state: State = field(default_factory=Stepping)
    asked_tick: int = 0
    furthest_tick: int = 0
    deaths: int = 0
    """Deaths since its last step forward."""
    died_at: float = 0.0
    owes_since: float | None = None
    """Since when it has been asked for a block, and has made no step; None where nothing is asked of it."""
    calls: list[Pending[Any]] = field(default_factory=list)
    """Calls on their way, in order."""
    copying: Pending[tuple[int, bytes]] | None = None
    """A checkpoint on its way to the driver."""
    _moves: deque[str] = field(default_factory=lambda: deque(maxlen=10))

    def __post_init__(self) -> None:
        self.asked_tick = self.furthest_tick = self.status.tick

    @property
    def restarting(self) -> bool:
        return isinstance(self.state, Restarting)

    @property
    def complete(self) -> bool:
        """Whether it owes no records that it may have made before."""
        return self.status.tick >= self.furthest_tick and not self.restarting

    def may_send(self, now: float, most_in_flight: int) -> bool:
        """Whether another block may be sent."""
        if isinstance(self.state, Restarting) or len(self.calls) >= most_in_flight:
            return False
        return not isinstance(self.state, Waiting) or now >= self.state.retry_at

    def next_block(self, allowed_tick: int, until_tick: int, period: int, longest: int) -> int | None:
        """Where the next block ends; None if there is nothing to ask for. Blocks end where a telemetry record is due,
        so that it is in the log at that moment."""
        goal = until_tick if allowed_tick >= until_tick else allowed_tick // period * period
        end = min(self.asked_tick // period * period + longest, goal)
        return end if end > self.asked_tick else None

    def sent(self, end: int, call: Pending[ShardStatus], now: float) -> None:
        """A block is on its way."""
        self._move("sent", Stepping, Waiting)
        self.owes_since = now if self.owes_since is None else self.owes_since
        self.asked_tick = end
        self.calls.append(call)

    def asked(self, call: Pending[ShardStatus]) -> None:
        """The shard was asked for its status."""
        self._move("asked", Stepping, Waiting)
        self.calls.append(call)

    def answered(self, call: Pending[ShardStatus], status: ShardStatus, now: float) -> None:
        """A block is done, or as much of it as was possible."""
        self._move("answered", Stepping, Waiting)
        self.calls.remove(call)
        if status.tick > self.status.tick:
            self.deaths = 0
            self.owes_since = now
        if status.tick >= self.asked_tick:
            self.owes_since = None
        self.status, self.furthest_tick = status, max(status.tick, self.furthest_tick)
        if status.waiting_for:
            self.asked_tick, self.state = status.tick - 1, Waiting(now + RETRY_S)
        else:
            self.state = Stepping()

    def died(self, actor: Remote[Shard], call: Pending[ShardStatus], now: float) -> None:
        """Its process is gone. A new one was started and asked where it begins again."""
        self._move("died", Stepping, Waiting, Restarting)
        self.actor, self.calls, self.copying, self.state = actor, [call], None, Restarting()
        self.owes_since = now if self.owes_since is None else self.owes_since
        self.died_at, self.furthest_tick = now, max(self.asked_tick, self.furthest_tick)

    def back(self, status: ShardStatus) -> None:
        """The new process has said where it begins again."""
        self._move("back", Restarting)
        self.calls, self.owes_since = [], None
        if status.tick > self.status.tick:
            self.deaths = 0
        self.status, self.asked_tick, self.state = status, status.tick, Stepping()

    def _move(self, event: str, *allowed: type[State]) -> None:
        before = ", ".join(self._moves)
        self._moves.append(f"{event} in {type(self.state).__name__} at step {self.status.tick}")
        if not isinstance(self.state, allowed):
            raise IllegalMove(f"shard {self.plan.shard}: {self._moves[-1]}; before: {before or 'nothing'}")
