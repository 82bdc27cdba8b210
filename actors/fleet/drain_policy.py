"""When to stop waiting for deliveries at the end of a run: facts in, decision out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

START_S = 600.0

PoolState = Literal["none", "starting", "up", "failed"]
Verdict = Literal["wait", "done", "stuck", "failed"]


@dataclass(frozen=True)
class Drain:
    """Patience counts from the last progress: `least` is the smallest backlog seen, `since` when it was seen first.

    Starting is not draining: while something starts that is to take the records (`starting`), that is progress, but not
    for more than `START_S`. `began`: when it began to start.
    """

    patience_s: float
    since: float
    least: int | None = None
    began: float | None = None

    def look(
        self, now: float, backlog: int, *, complete: bool, pool: PoolState, starting: bool = False
    ) -> tuple[Drain, Verdict]:
        """`backlog`: records on their way; `complete`: no shard owes records it made before; `starting`: a carrier or a
        replica is."""
        if backlog == 0 and complete:
            return self, "done"
        if pool == "failed":
            return self, "failed"
        if self.least is None or backlog < self.least:
            return replace(self, least=backlog, since=now), "wait"
        if starting or pool == "starting" or not complete:
            began = now if self.began is None else self.began
            if now - began <= START_S:
                return replace(self, began=began, since=now), "wait"
        elif self.began is not None:
            return replace(self, began=None, since=now), "wait"
        return self, "stuck" if now - self.since > self.patience_s else "wait"
