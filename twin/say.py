"""Messages that are not results: one line each, on stderr. As text, or as JSON for a log collector (`log_as`)."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

_SAID = logging.getLogger("twin.said")
_SAID.setLevel(logging.INFO)


class _JsonLines(logging.Formatter):
    """`{"time": .., "level": .., "run_id": .., "logger": .., "message": ..}`; with a traceback also `error`."""

    def __init__(self, run_id: str) -> None:
        super().__init__()
        self._run_id = run_id

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC)
        line = {
            "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "run_id": self._run_id,
            "logger": record.name,
            "message": " ".join(record.getMessage().split()),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_as(form: LogFormat, level: LogLevel = "warning", run_id: str = "") -> None:
    """From now on write what this process says, and what its libraries log from `level` on, in this form."""
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLines(run_id) if form == "json" else logging.Formatter("twin: %(message)s"))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)


def say(text: str, *, failed: bool = False) -> None:
    """Say `text` as one line, whatever it holds. `failed`: it is why the command ends."""
    line = " ".join(text.split())
    if any(isinstance(handler.formatter, _JsonLines) for handler in logging.getLogger().handlers):
        _SAID.log(logging.ERROR if failed else logging.INFO, line)
    else:
        print(f"twin: {line}", file=sys.stderr, flush=True)
