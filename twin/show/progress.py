"""What a person sees while a fleet runs: a live panel on a terminal, elsewhere a line every few seconds."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from actors.fleet.status import FleetStatus

_LINE_EVERY_S = 5.0


def human_time(seconds: float) -> str:
    """`2 d 03:04:05`, `03:04:05`, `04:05`."""
    days, rest = divmod(round(seconds), 86400)
    hours, rest = divmod(rest, 3600)
    minutes, left = divmod(rest, 60)
    clock = f"{hours:02d}:{minutes:02d}:{left:02d}" if hours or days else f"{minutes:02d}:{left:02d}"
    return f"{days} d {clock}" if days else clock


class Progress:
    """Shows each status it is called with. `total_s`: simulated time of the whole run."""

    def __init__(self, total_s: float, *, quiet: bool = False) -> None:
        self._total_s = total_s
        self._quiet = quiet
        self._console = Console(stderr=True)
        self._live: Live | None = None
        self._printed_at = 0.0
        self._rates = _Rates()

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._quiet:
            self._live = Live(console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, status: FleetStatus) -> None:
        """Show a status."""
        self._rates.update(status)
        if self._live is not None:
            self._live.update(self._panel(status))
        elif not self._quiet and time.monotonic() - self._printed_at >= _LINE_EVERY_S:
            self._printed_at = time.monotonic()
            print(self._line(status), file=sys.stderr, flush=True)

    def _left(self, status: FleetStatus) -> str:
        remaining = self._total_s - status.simulated_s
        if remaining <= 0:
            return "delivering" if status.backlog else "done"
        return human_time(remaining / status.real_time_factor) if status.real_time_factor > 0 else "?"

    def _speed(self, status: FleetStatus) -> list[str]:
        if status.simulated_s >= self._total_s:
            return []
        return [f"{status.real_time_factor:,.0f}x real time", f"{self._rates.records:,.0f} records/s"]

    def _line(self, status: FleetStatus) -> str:
        parts = [
            f"{status.simulated_s / self._total_s:4.0%}",
            f"{status.vehicles:,} vehicles",
            f"simulated {human_time(status.simulated_s)}",
            *self._speed(status),
            f"{self._rates.predictions:,.0f} predictions/s",
        ]
        parts += [f"{sink.name} backlog {sum(sink.backlog.values()):,}" for sink in status.sinks]
        if status.predictor_backlog:
            parts.append(f"predictor backlog {status.predictor_backlog:,}")
        parts += [f"{part} waits for {reason}" for part, reason in status.waiting.items()]
        parts += status.notices
        if status.restarts:
            parts.append(f"{status.restarts} shard restart(s)")
        return " | ".join([*parts, f"left {self._left(status)}"])

    def _panel(self, status: FleetStatus) -> Table:
        done = min(1.0, status.simulated_s / self._total_s)
        bar = "━" * round(done * 30)
        table = Table.grid(padding=(0, 2))
        table.add_row("[bold]simulated", f"{human_time(status.simulated_s)} of {human_time(self._total_s)}", bar)
        table.add_row("[bold]fleet", f"{status.vehicles:,} vehicles", f"{status.real_time_factor:,.0f}x real time")
        table.add_row("[bold]records", f"{status.records:,}", f"{self._rates.records:,.0f}/s")
        waits = f" behind {status.predictor_backlog:,}" if status.predictor_backlog else ""
        table.add_row("[bold]predictions", f"{status.predictions:,}", f"{self._rates.predictions:,.0f}/s{waits}")
        for sink in status.sinks:
            delivered = sum(sink.delivered.values())
            table.add_row(f"[bold]{sink.name}", f"{delivered:,}", f"backlog {sum(sink.backlog.values()):,}")
        for part, reason in status.waiting.items():
            table.add_row("[yellow]waiting", f"[yellow]{part}", f"[yellow]{reason}")
        for notice in status.notices:
            table.add_row("[yellow]model", "", f"[yellow]{escape(notice)}")
        if status.restarts:
            table.add_row("[yellow]restarts", f"{status.restarts}", "")
        table.add_row("[bold]time left", self._left(status), "")
        return table


class _Rates:
    """Records and predictions per second, over the last few seconds."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, int, int]] = []
        self.records = 0.0
        self.predictions = 0.0

    def update(self, status: FleetStatus) -> None:
        now = time.monotonic()
        self._seen.append((now, status.records, status.predictions))
        while len(self._seen) > 2 and now - self._seen[1][0] > _LINE_EVERY_S:
            self._seen.pop(0)
        then, records, predictions = self._seen[0]
        if now > then:
            self.records = (status.records - records) / (now - then)
            self.predictions = (status.predictions - predictions) / (now - then)
