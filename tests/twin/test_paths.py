"""A run, a result, a bundle, a file of settings may have any name: for every command that reads or writes one."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from datasets.schema import STREAMS
from models.bundle import BUNDLED
from tests.command import Twin
from tests.support import records
from twin.run_directory import load_run
from twin.show.report import write_report

DATA = Path(__file__).parents[1] / "data"
OLD = DATA / "run-of-a268f8c"
NAMES = (
    "soc=high/r",
    "vehicle_id=all/r",
    "mode=summer",
    "ts=2026-01-01/r=1",
    "a*b/**/r",
    "what?/r",
    "[0-9]/[r",
    "r]",
    "it's \"quoted\"",
    "two  words /r ",
    "100%/%41%zz",
    "täglich/実行",
    "back\\slash",
    "{a,b}$HOME`r`",
    "a:b@c/d#e",
    "-r/--",
    "line\nbreak",
    "~nobody-of-that-name/r",
)  # fmt: skip


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Relative to the present folder, which is new."""
    monkeypatch.chdir(tmp_path)
    return Path(request.param)


@pytest.fixture
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run under a plain name: a replay leaves its cursors there."""
    return Path(shutil.copytree(OLD, tmp_path_factory.mktemp("old") / "run"))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of the run under a plain name."""
    run = shutil.copytree(OLD, tmp_path_factory.mktemp("plain") / "run")
    return _drawn(write_report(Path(run)))


def _drawn(report: Path) -> str:
    """A page without the ids that matplotlib draws anew each time."""
    return re.sub(r'(id="|#)[A-Za-z]+[0-9a-f]{6,}', "", report.read_text())


def test_a_run_of_any_name_is_read(name: Path, page: str, twin: Twin) -> None:
    run = Path(shutil.copytree(OLD, name))
    report = twin("report", "--", run)
    assert (report.code, report.out) == (0, f"{run}/report.html\n"), report.err
    assert _drawn(run / "report.html") == page
    ledger = twin("ledger", "--json", "--verify", "--kafka=off", "--timescale=off", "--", run)
    books = json.loads(ledger.out)
    assert {line["made"] for line in books["lines"]} == {60, 24}
    assert books["verified"][0]["sink"] == "log"
    assert books["verified"][0]["complete"], ledger.err


def test_a_replay_into_a_folder_of_any_name(name: Path, old: Path, twin: Twin) -> None:
    for said in ("replayed 120 records, 48 predictions", "replayed 0 records, 0 predictions"):
        answer = twin("replay", old, "--to", "parquet", f"--out={name}")
        assert answer.code == 0, answer.err
        assert said in answer.err
    for stream in STREAMS:
        before = records(OLD, stream)  # of schema 1
        assert records(name.absolute(), stream).select(before.column_names).equals(before)


def test_a_cell_from_a_file_and_into_a_folder_of_any_name(name: Path, twin: Twin) -> None:
    name.mkdir(parents=True)
    file = Path(shutil.copy(DATA / "lgm50.bpx.json", name / f"{name.name}.json"))
    answer = twin("cell", f"--bpx={file}", "--cycle", "CC 1C to 3.5V", f"--out={name / name.name}")
    assert answer.code == 0, answer.err
    assert pq.ParquetFile(name / name.name / "series.parquet").metadata.num_rows > 10


def test_settings_and_a_bundle_of_any_name(name: Path, twin: Twin) -> None:
    bundle = Path(shutil.copytree(BUNDLED, name))
    config = bundle / f"{name.name}.yaml"
    config.write_text(json.dumps({"bundle": str(bundle), "out": str(bundle / "new"), "vehicles": 7}))
    shown = yaml.safe_load(twin("run", f"--config={config}", "--print-config").out)
    assert (shown["vehicles"], shown["bundle"], shown["out"]) == (7, str(bundle), str(bundle / "new"))
    answer = twin("doctor", f"--bundle={bundle}", "--metrics-port", "0", "--rest-port", "65535")
    assert "ok    model" in answer.out


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("name", ["sweep/soc=high/r", 'a*b?[0]/it\'s "so"', "100% täglich/#1"], indirect=True)
def test_a_run_of_any_name_is_written_and_resumed(name: Path, twin: Twin) -> None:
    common = ("--no-predict", "--metrics-port", "0", "--quiet")
    answer = twin("run", f"--out={name}", "--vehicles", "4", "--shards", "2", "--duration", "1min", *common)
    assert answer.code == 0, answer.err
    assert f"report       {name.absolute()}/report.html" in answer.out
    answer = twin("resume", name, "--duration", "2min", "--metrics-port", "0", "--quiet")
    assert answer.code == 0, answer.err
    assert records(name).num_rows == 4 * 60
    assert load_run(name)["settings"]["out"] == str(name)


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000 + "y", os.fsdecode(b"caf\xe9/r")])
def test_a_name_that_no_disk_or_text_can_have_is_one_line(
    name: str, old: Path, twin: Twin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cycle = ("--cycle", "CC 1C to 3.5V")
    for command in (
        ("run", "--no-predict", f"--out={name}"),
        ("cell", *cycle, f"--out={name}"),
        ("cell", *cycle, f"--bpx={name}"),
        ("replay", old, "--to", "parquet", f"--out={name}"),
        ("run", f"--bundle={name}", f"--out={tmp_path}"),
        ("run", f"--config={name}", "--print-config"),
        ("report", name),
        ("ledger", name),
        ("resume", name),
        ("replay", name, "--to", "kafka", "--kafka", "127.0.0.1:9"),
        ("archive", "--mqtt", "mqtt://127.0.0.1:9", f"--out={name}"),
        ("validate", "life", "--quick", f"--out={name}"),
    ):
        twin(*command).complaint(2)
    assert not list(tmp_path.iterdir())
