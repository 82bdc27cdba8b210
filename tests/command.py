"""`twin` called in this process, which has imported everything: for what a command says and how it ends.

As a process of its own, with its environment and its signals: `tests/twin/test_cli.py`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

_SERVICES = ("KAFKA_", "MQTT_", "PG_", "TWIN_")


def environment(**more: str) -> dict[str, str]:
    """Ours without the settings of `twin`, and wide enough for its lines."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(_SERVICES)}
    return clean | {"COLUMNS": "200"} | more


@dataclass
class Answer:
    """What a command gave back."""

    code: int
    out: str
    err: str

    def complaint(self, code: int, *says: str) -> None:
        """Its one line, and nothing of the machinery behind it."""
        assert self.code == code, self.err
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("twin: ")
        assert "internal error" not in lines[0]
        for words in says:
            assert words in lines[0]


Twin = Callable[..., Answer]


@pytest.fixture
def twin(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Twin]:
    """`twin(*arguments)`."""
    from twin import cli

    for name in [name for name in os.environ if name.startswith(_SERVICES)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def call(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["twin", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        return Answer(int(ended.value.code or 0), out, err)

    yield call
    for number, handler in before.items():
        signal.signal(number, handler)
