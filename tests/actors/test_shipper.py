"""What a shipper knows while its peer does not answer."""

from __future__ import annotations

from pathlib import Path

from actors.delivery.shipper import Shipper
from actors.delivery.sinks import SinkUnavailable
from datasets.log import LogWriter, log_directory
from datasets.log.cursor import Cursor, CursorFile
from tests.support import OwnSink, make_batch, wait_until


class Away(OwnSink):
    """A target that nobody can connect to."""

    def open(self) -> None:
        raise SinkUnavailable("nobody there")


def test_backlog_and_age_are_known_of_a_peer_that_never_answered(tmp_path: Path) -> None:
    with_log = LogWriter(log_directory(tmp_path, "telemetry", 0))
    with_log.append(make_batch(4, range(2)), 1, 1_780_000_000_000_000_000)
    with_log.append(make_batch(4, range(2, 4)), 2, 1_780_000_001_000_000_000)
    CursorFile(tmp_path, "kafka@nowhere:1", "telemetry", 0).save(Cursor(8, 1, 0))
    shipper = Shipper(Away(), tmp_path, "log", {0: (0, 0)})
    assert shipper.status().cursors == {("telemetry", 0): Cursor(8, 1, 0)}
    shipper.start()
    wait_until(lambda: shipper.status().oldest_due_ns.get(("telemetry", 0)))
    status = shipper.stop()
    with_log.close()
    assert status.oldest_due_ns["telemetry", 0] == 1_780_000_001_000_000_000
    assert status.waiting_for == "nobody there"
