"""The report's page says what the ledger says."""

from __future__ import annotations

import json
import re
from pathlib import Path

from datasets.log import LogWriter, log_directory
from datasets.log.cursor import Cursor, CursorFile
from tests.support import make_batch
from twin.show.report import write_report


def write_run(folder: Path, **settings: object) -> Path:
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
