"""When to stop waiting for deliveries at the end of a run: facts in, decision out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

PoolState = Literal["none", "starting", "up", "failed"]
Verdict = Literal["wait", "done", "stuck", "failed"]


@dataclass(frozen=True)
class Drain:
    """Patience counts from the last progress: `least` is the smallest backlog seen, `since` when it was seen first."""

    patience_s: float
    since: float
    least: int | None = None

    def look(self, now: float, backlog: int, *, complete: bool, pool: PoolState) -> tuple[Drain, Verdict]:
        """`backlog`: records on their way; `complete`: every shard is where the run ended."""
        if backlog == 0 and complete:
            return self, "done"
        if pool == "failed":
            return self, "failed"
        if self.least is None or backlog < self.least:
            return replace(self, least=backlog, since=now), "wait"
        if now - self.since > self.patience_s and pool != "starting" and complete:
            return self, "stuck"
        return self, "wait"
