"""A run directory that an older version left (a268f8c, all sinks on) is still read by report, ledger and replay."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from actors.prediction.plan import READER
from datasets.schema import FIELDS, SCHEMAS, STREAMS
from tests.support import records
from twin.books.ledger import Books, table, verify
from twin.commands.replay import replay_run
from twin.errors import BadInput
from twin.run_directory import load_run, resumable_settings
from twin.servers import adopt_old_cursors
from twin.settings import Given, Servers
from twin.show.report import write_report

OLD = Path(__file__).parents[1] / "data" / "run-of-a268f8c"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "run"))


def test_the_report_shows_it(run: Path) -> None:
    page = write_report(run).read_text()
    assert load_run(run)["run_id"] in page
    for sink in ("kafka", "mqtt", "timescale"):
        assert sink in page


def test_the_ledger_balances(run: Path) -> None:
    found = Books(run).ledger()
    made = {(line.sink, line.stream): line.made for line in found.sums()}
    assert made == {
        (sink, stream): count
        for sink in ("kafka", "mqtt", "timescale")
        for stream, count in (("telemetry", 120), ("predictions", 48))
    }
    assert found.complete
    assert "120" in table(found)


def test_its_log_is_counted_record_by_record(run: Path) -> None:
    """Of the peers only the log is there to be asked."""
    verified = {peer.sink: peer for peer in verify(Books(run, {"kafka": "", "timescale": ""}), None).verified}
    assert verified["log"].complete
    assert {stream: count.received for stream, count in verified["log"].counts.items()} == {
        "telemetry": 120, "predictions": 48,
    }  # fmt: skip
    assert not verified["kafka"].complete


def test_it_is_replayed(run: Path, tmp_path: Path) -> None:
    import threading

    out, said = tmp_path / "out", list[str]()
    servers = Given({}, environ={}).group(Servers)
    for _ in range(2):  # the second time there is nothing left to do
        replay_run(
            run,
            "parquet",
            servers,
            float("inf"),
            begin=None,
            end=None,
            out=out,
            stop=threading.Event(),
            say=said.append,
        )
    assert said == ["replayed 120 records, 48 predictions to parquet", "replayed 0 records, 0 predictions to parquet"]
    for stream in STREAMS:
        before, after = records(run, stream), records(out, stream)
        assert after.select(before.column_names).equals(before)
        for field in FIELDS[stream]:
            if field.name not in before.column_names:
                assert set(after.column(field.name).to_pylist()) == {field.default}
        for file in (out / stream).glob("**/*.parquet"):
            assert pq.read_schema(file).remove_metadata().names == SCHEMAS[stream].names


def test_it_is_not_resumed_and_the_reason_is_said(run: Path) -> None:
    with pytest.raises(BadInput, match=r"made by physics .*use the version that began it, or start a new run"):
        resumable_settings(run, {})


def test_its_cursors_belong_to_the_peers_of_that_time(run: Path) -> None:
    """Resumed with another broker, that one gets the whole log."""
    before = {line.sink: line.delivered for line in Books(run).ledger().sums() if line.stream == "telemetry"}
    adopt_old_cursors(run, load_run(run))
    assert {path.name.partition("@")[0] for path in (run / "cursors").iterdir()} >= {"kafka", "mqtt", "timescale"}
    assert all("@" in path.name for path in (run / "cursors").iterdir() if path.name != READER)
    after = {line.sink: line.delivered for line in Books(run).ledger().sums() if line.stream == "telemetry"}
    assert after == before == dict.fromkeys(before, 120)
    other = Books(run, {"kafka": "other.example:9092"}).ledger()
    assert [line.waiting for line in other.sums() if line.sink == "kafka"] == [120, 48]
