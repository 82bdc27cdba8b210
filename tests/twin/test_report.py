"""The report's page says what the ledger says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from datasets.log import LogWriter, log_directory
from datasets.log.cursor import Cursor, CursorFile
from tests.command import Twin
from tests.support import make_batch
from twin.show.report import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def write_run(folder: Path, **settings: object) -> Path:
    folder.mkdir(exist_ok=True)
    writer = LogWriter(log_directory(folder, "telemetry", 0))
    writer.append(make_batch(4, range(60)), 60)
    writer.close()
    run = {
        "run_id": "run-page", "state": "finished", "period_s": 2.0, "seed": 1, "started": "now", "versions": {},
        "settings": {"vehicles": 4, "shards": 1, "duration": 120.0, "cell": "chen2020", **settings},
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(run))
    return folder


def test_delivery_is_the_ledger(tmp_path: Path) -> None:
    run = write_run(tmp_path, kafka="127.0.0.1:9092", mqtt="mqtt://127.0.0.1")
    CursorFile(run, "kafka", "telemetry", 0).save(Cursor(200, 7, 3))
    CursorFile(run, "mqtt", "telemetry", 0).save(Cursor(240))
    page = write_report(run).read_text()
    part = page[page.index("<h2>Delivery</h2>") :]
    rows = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in re.findall(r"<tr>(<td>.*?)</tr>", part, re.DOTALL)]
    assert rows == [
        ["kafka", "telemetry", "240", "197", "40", "2026-05-28 20:28:22", "7", "3"],
        ["mqtt", "telemetry", "240", "240", "0", "", "0", "0"],
    ]
    assert part.count('class="bad"') >= 2


def test_no_sink_no_delivery(tmp_path: Path) -> None:
    assert "Delivery" not in write_report(write_run(tmp_path)).read_text()


def test_a_run_of_an_older_version_has_a_report_all_the_same(tmp_path: Path) -> None:
    assert "Delivery" not in write_report(write_run(tmp_path, shards="auto")).read_text()


def test_charging_is_drawn_where_records_are_close_enough(tmp_path: Path) -> None:
    assert "<h2>Charging</h2>" in write_report(write_run(tmp_path / "a")).read_text()
    rare = write_run(tmp_path / "b")
    run = json.loads((rare / "run.json").read_text()) | {"period_s": 86_400.0}
    (rare / "run.json").write_text(json.dumps(run))
    assert "<h2>Charging</h2>" not in write_report(rare).read_text()


def test_what_is_reported_stands_against_what_is_true(tmp_path: Path) -> None:
    """Joined by vehicle and time; a time of truth without a record counts for nothing."""
    run = write_run(tmp_path)
    assert "Reported and true" not in write_report(run).read_text()
    told = make_batch(4, range(60))
    last = told.slice(told.num_rows - 4)
    true = pa.table(
        {
            "vehicle_id": last.column("vehicle_id"),
            "ts": last.column("ts"),
            "soc": pa.array(last.column("soc").to_numpy() - 0.05),
            "soh": pa.array(last.column("soh").to_numpy() + 0.02),
        }
    )
    folder = run / "truth" / "shard=0000"
    folder.mkdir(parents=True)
    pq.write_table(
        true.set_column(1, "ts", pc.add(true["ts"], pa.scalar(1, pa.duration("us")))), folder / "2026.parquet"
    )
    assert "Reported and true" not in write_report(run).read_text()
    pq.write_table(true, folder / "2026.parquet")
    page = write_report(run).read_text()
    assert "off by 5.0 points (median), +5.0 on average" in page
    assert "off by 2.0 points (median), -2.0 on average" in page


def test_it_links_to_the_data_that_are_there_and_is_one_small_file(tmp_path: Path) -> None:
    page = write_report(write_run(tmp_path)).read_text()
    assert re.findall(r'<a href="([^"]+)"', page) == ["telemetry", "run.json"]
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    assert len(page) < 2_000_000


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_it_without_asking_anybody(tmp_path: Path, chromium: Browser, scheme: Any) -> None:
    """As a file: nothing fails, nothing else is loaded, it is dark where wanted, and no wider than a phone."""
    page_file = write_report(write_run(tmp_path))
    page = chromium.new_page(color_scheme=scheme, viewport={"width": 390, "height": 844})
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(page_file.as_uri())
    assert page.get_by_role("heading", name="Charging").is_visible()
    assert page.get_by_role("img").count() >= 5
    assert asked == [page_file.as_uri()]
    assert not wrong
    red = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/)[0]")
    assert int(red) < 64 if scheme == "dark" else int(red) > 192
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()


def test_without_telemetry_on_this_machine_there_is_none_and_the_run_ends_well(
    twin: Twin, ray_cluster: None, tmp_path: Path
) -> None:
    """As on a cluster, where the log is on the nodes of the shards: here, because every record is lost on its way."""
    run = tmp_path / "run"
    options = ("--vehicles", 4, "--duration", "20s", "--no-predict", "--metrics-port", 0, "--drop", 1)
    answer = twin("run", *options, "--out", run)
    assert answer.code == 0, answer.err
    assert "no report" in answer.err
    assert not (run / "report.html").exists()
