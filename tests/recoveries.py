"""Recovery times in pytest's summary, also where tests run in several processes."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

_KEY = "recovery"


def note_recoveries(node: pytest.Item, recoveries: Iterable[tuple[str, float]]) -> None:
    """Called while a test is torn down: its report carries them to the process that writes the summary."""
    node.user_properties += [(_KEY, recovery) for recovery in recoveries]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A line for each recovery."""
    reports = [report for found in terminalreporter.stats.values() for report in found]
    recoveries = [
        value
        for report in reports
        if getattr(report, "when", "") == "teardown"
        for name, value in report.user_properties
        if name == _KEY
    ]
    if recoveries:
        terminalreporter.section("recovery times")
        for what, seconds in recoveries:
            terminalreporter.write_line(f"{seconds:6.1f} s  {what}")
