"""Ray that is too slow to start, or goes away: once more, then one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import ray

from tests.support import wait_until
from twin.errors import RunFailed
from twin.fleet import _expect_listener, _ray_failures, _said_if_slow, _start_local

TOO_SLOW = "The current node timed out during startup.\nThis could happen because some of the raylet failed to start."


class Start:
    """Fails so many times, with the bare Exception that Ray raises."""

    def __init__(self, fails: int) -> None:
        self.fails, self.tries = fails, 0

    def __call__(self) -> None:
        self.tries += 1
        if self.tries <= self.fails:
            raise Exception(TOO_SLOW)


@pytest.fixture(autouse=True)
def _rays_of_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "shutdown", lambda: None)


def test_ray_that_is_too_slow_is_started_once_more(caplog: pytest.LogCaptureFixture) -> None:
    start = Start(1)
    _start_local(start)
    assert start.tries == 2
    assert [record.message.count("\n") for record in caplog.records] == [0]
    assert "timed out during startup" in caplog.records[0].message


def test_ray_that_does_not_start_is_said_in_one_line() -> None:
    start = Start(2)
    with pytest.raises(RunFailed, match="Ray did not start on this machine: The current node timed out") as error:
        _start_local(start)
    assert "\n" not in str(error.value)
    assert "try later, or give --address" in str(error.value)


@pytest.mark.parametrize("kind", [ray.exceptions.RaySystemError, ray.exceptions.RpcError, ConnectionError])
def test_what_ray_raises_in_mid_run_is_one_line(kind: Callable[[str], Exception]) -> None:
    says = r"Ray cannot go on: .*gone; what was made is in runs/x, and `twin resume` goes on"
    with pytest.raises(RunFailed, match=says), _ray_failures(Path("runs/x")):
        raise kind("GCS is gone")


def test_an_address_where_nothing_listens_is_said_at_once(free_port: int) -> None:
    for scheme in ("", "ray://"):
        with pytest.raises(ConnectionRefusedError):
            _expect_listener(f"{scheme}127.0.0.1:{free_port}")
    _expect_listener("auto")


def test_a_slow_start_says_what_it_waits_for(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twin.fleet._SAY_S", 0.01)
    with _said_if_slow("Ray to start"):
        wait_until(lambda: len(caplog.records) >= 2)
    assert {record.message for record in caplog.records} == {"waiting for Ray to start"}
