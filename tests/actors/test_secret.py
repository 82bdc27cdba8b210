"""What Ray is given to keep holds no secret, and whoever unpickles it has the secret all the same."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ray.cloudpickle import dumps  # what Ray pickles with

from actors.prediction.pool import application
from actors.secret import Secret, SecretMissing, _file
from twin import Fleet
from twin.model import model_plan
from twin.servers import targets_of
from twin.settings import load_settings

HUSH = "hu/sh-42"
ADDRESSES = [
    {"timescale": "postgresql://me:hu%2Fsh-42@h/d"},
    {"timescale": "postgresql://me@h/d?sslmode=require&password=hu%2Fsh-42"},
    {"timescale": "postgresql://me@h/d?sslpassword=hu%2Fsh-42"},
    {"mqtt": "mqtt://me:hu%2Fsh-42@h"},
]


@pytest.mark.parametrize("flags", ADDRESSES)
def test_a_target_travels_without_its_secret(flags: dict[str, str]) -> None:
    [target] = targets_of(load_settings(flags, environ={}).servers)
    pickled: bytes = dumps((target, [target]))  # type: ignore[no-untyped-call]
    for form in (HUSH, "hu%2Fsh-42"):
        assert form.encode() not in pickled
        assert form not in repr(target)
    assert pickle.loads(pickled) == (target, [target])
    assert pickle.loads(pickled)[0].url == target.url
    assert HUSH in target.url or "hu%2Fsh-42" in target.url
    assert copy.deepcopy(target) == target


def test_the_plan_of_a_fleet_and_its_pool_travel_without_secrets(tmp_path: Path) -> None:
    settings = load_settings(
        ADDRESSES[0] | {"out": str(tmp_path / "run"), "mqtt": ADDRESSES[3]["mqtt"]}, environ={"TWIN_API_TOKEN": HUSH}
    )
    fleet = Fleet(settings)
    fleet.run_id = "run"
    plan = fleet._plan("log")
    assert plan.pool is not None
    assert plan.pool.token == HUSH
    for thing in (plan, application(plan.pool)):
        pickled: bytes = dumps(thing)  # type: ignore[no-untyped-call]
        assert HUSH.encode() not in pickled
        assert b"hu%2Fsh-42" not in pickled


def test_a_registry_travels_without_its_password() -> None:
    settings = load_settings({"tracking_uri": "https://me:hu%2Fsh-42@h:5000"}, environ={})
    plan = model_plan(settings)
    assert plan is not None
    pickled: bytes = dumps(plan)  # type: ignore[no-untyped-call]
    assert b"hu%2Fsh-42" not in pickled
    assert pickle.loads(pickled) == plan
    for said in (repr(plan), str(settings.shown())):
        assert "hu%2Fsh-42" not in said


ELSEWHERE = "import pickle, sys; print(pickle.load(sys.stdin.buffer), end='')"


def elsewhere(thing: Any, **environment: str) -> str:
    """What another process makes of it."""
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], input=pickle.dumps(thing), capture_output=True, check=True,
        env={"PYTHONPATH": ":".join(sys.path)} | environment,
    )  # fmt: skip
    return done.stdout.decode()


def test_another_process_of_the_machine_reads_it() -> None:
    assert elsewhere(Secret(HUSH, "PG_PASSWORD")) == HUSH
    assert elsewhere(Secret("zwei\nZeilen ü", "PG_PASSWORD")) == "zwei\nZeilen ü"
    assert Path(_file()).stat().st_mode & 0o777 == 0o600


def test_another_machine_takes_it_from_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.secret._file", lambda: str(tmp_path / "nowhere"))
    monkeypatch.setattr("actors.secret._kept", lambda value: 0)
    assert elsewhere(Secret(HUSH, "PG_PASSWORD"), PG_PASSWORD="theirs") == "theirs"
    assert elsewhere(Secret(HUSH, "PG_PASSWORD")) == ""
    with pytest.raises(SecretMissing, match="expected a secret in"):
        pickle.loads(pickle.dumps(Secret(HUSH)))


def test_nothing_is_left_of_a_process() -> None:
    code = "import pickle; from actors.secret import Secret, _file; pickle.dumps(Secret('x')); print(_file(), end='')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout
    assert not Path(done.stdout).exists()
