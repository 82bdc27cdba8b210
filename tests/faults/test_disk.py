"""The log's volume: full, and with bytes that are not what was written."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.fleet.shard import MIN_FREE_BYTES
from tests.faults.scene import PACE, Running, Scene
from tests.services.fixtures import unavailable

pytestmark = [
    pytest.mark.services,
    pytest.mark.cluster,
    pytest.mark.usefixtures("ray_cluster"),
    pytest.mark.timeout(600),
]


@pytest.fixture
def small_volume(scene: Scene) -> Iterator[Path]:
    """A file system of its own for the run's directory, a little larger than what a shard keeps free."""
    scene.run.mkdir()
    size = MIN_FREE_BYTES + (64 << 20)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(scene.run)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        unavailable(f"a volume of its own needs the right to mount: {done.stderr.strip()}")
    yield scene.run
    subprocess.run(["umount", "--lazy", str(scene.run)], check=True)


def test_disk_full(scene: Scene, small_volume: Path) -> None:
    """The shards wait and say so; when there is room they go on with the block they kept."""
    ballast = small_volume / "ballast"
    with scene.fleet() as running:
        ballast.write_bytes(b"\0" * (60 << 20))
        running.waiting("fleet")
        assert "room on the volume" in running.fleet.status().waiting["fleet"]
        stopped_at = running.fleet.status().tick
        ballast.unlink()
        with scene.recovery("disk full, then room again"):
            running.until("simulation", lambda s: "fleet" not in s.waiting and s.tick > stopped_at + PACE)
    scene.balance()


def _kill_shards(running: Running) -> None:
    for shard in running.fleet.status().shards:
        os.kill(shard.pid, signal.SIGKILL)


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_last_segment_damaged(scene: Scene, damage: str) -> None:
    """A shard dies and the end of its log is not what it wrote: that is cut, told, and made again."""
    with scene.fleet() as running:
        running.on(60)
        victim = running.fleet.status().shards[0]
        os.kill(victim.pid, signal.SIGSTOP)  # so that it does not write on while we damage its log
        [segment] = (scene.run / "telemetry" / "shard=0000").glob("*.open")
        size = segment.stat().st_size
        if damage == "truncated":
            os.truncate(segment, size - size // 10 - 7)
        else:
            with open(segment, "rb+") as file:
                for at in range(size * 3 // 4, size - 1, 1000):
                    file.seek(at)
                    byte = file.read(1)
                    file.seek(at)
                    file.write(bytes([byte[0] ^ 0xFF]))
        os.kill(victim.pid, signal.SIGKILL)
        with scene.recovery(f"last segment {damage}"):
            running.until(
                "the shard's return",
                lambda s: s.shards[0].pid != victim.pid and s.shards[0].tick >= s.shards[1].tick - PACE,
            )
        assert running.fleet.status().cut_bytes > 0
    scene.balance()
