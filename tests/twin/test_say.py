"""Messages: one line each, as text or as JSON with the run's id."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from twin.say import log_as, say


@pytest.fixture(autouse=True)
def _root() -> Iterator[None]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


def test_text_is_one_line_whatever_it_holds(capsys: pytest.CaptureFixture[str]) -> None:
    log_as("text")
    say("two\nlines")
    logging.getLogger("some.library").warning("it waits")
    logging.getLogger("some.library").info("not told")
    assert capsys.readouterr().err == "twin: two lines\ntwin: it waits\n"


def test_json_has_time_level_run_and_message_in_each_line(capsys: pytest.CaptureFixture[str]) -> None:
    log_as("json", "warning", "run-4711")
    say("two\nlines")
    logging.getLogger("some.library").warning("it %s", "waits")
    logging.getLogger("some.library").info("not told")
    try:
        raise ValueError("what")
    except ValueError:
        logging.getLogger("some.library").exception("it broke")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["level"], line["message"], line["run_id"]) for line in lines] == [
        ("info", "two lines", "run-4711"),
        ("warning", "it waits", "run-4711"),
        ("error", "it broke", "run-4711"),
    ]
    assert all(line["time"].endswith("Z") for line in lines)
    assert "ValueError: what" in lines[-1]["error"]


def test_a_level_is_from_there_on(capsys: pytest.CaptureFixture[str]) -> None:
    log_as("json", "info", "run-4711")
    logging.getLogger("some.library").info("told")
    logging.getLogger("some.library").debug("not told")
    assert [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()] == ["told"]
