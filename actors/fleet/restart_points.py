"""Where a shard begins again when its node is lost with its log and its checkpoints.

The driver keeps copies of checkpoints on its own disk, in `restart/`. A copy becomes the restart point only when every
sink has acknowledged all records before it. So what the lost log held before that point has been delivered, and what
came after is computed again. Without a sink the log is the only copy of the records. Then there is no restart point,
and the shard computes everything again from step 0.
"""

from __future__ import annotations

import logging
from pathlib import Path

from datasets.log.durable import LogFull, publish, replace_file

_log = logging.getLogger(__name__)


class RestartPoints:
    """One pending copy and one confirmed restart point for each shard. Every shard can always begin at tick 0."""

    def __init__(self, run_dir: Path) -> None:
        self._directory = run_dir / "restart"
        self._pending: dict[int, int] = {}
        self._confirmed: dict[int, int] = {}
        self._no_room: dict[int, int] = {}
        for path in self._directory.glob("shard-*.*.npz"):
            shard, tick = path.name.removeprefix("shard-").removesuffix(".npz").split(".")
            self._confirmed[int(shard)] = max(int(tick), self._confirmed.get(int(shard), 0))
        # A driver that died leaves copies that were not confirmed, and perhaps the point before.
        points = {self._path(shard, tick) for shard, tick in self._confirmed.items()}
        for path in set(self._directory.glob("shard-*")) - points:
            path.unlink()

    def _path(self, shard: int, tick: int, suffix: str = ".npz") -> Path:
        return self._directory / f"shard-{shard:04d}.{tick}{suffix}"

    def wants(self, shard: int, tick: int) -> bool:
        """Whether to copy the checkpoint at `tick`. Only one copy waits at a time, so slow sinks can confirm it."""
        return shard not in self._pending and tick > max(self.tick(shard), self._no_room.get(shard, 0))

    def offer(self, shard: int, tick: int, content: bytes) -> None:
        """Keep a copy until it is confirmed. Without room for it the restart point stays; the next one is wanted."""
        try:
            replace_file(self._path(shard, tick, ".pending"), content)
        except LogFull as error:
            _log.warning("restart point of shard %d: %s, at the next checkpoint", shard, error.strerror)
            self._no_room[shard] = tick
        else:
            self._pending[shard] = tick
            self._no_room.pop(shard, None)

    def pending(self) -> dict[int, int]:
        """The tick of each shard's copy that waits for the sinks."""
        return dict(self._pending)

    def confirm(self, shard: int) -> None:
        """Make the pending copy the restart point: every sink has acknowledged all records before it."""
        tick, before = self._pending.pop(shard), self._confirmed.get(shard)
        publish(self._path(shard, tick, ".pending"), self._path(shard, tick))
        self._confirmed[shard] = tick
        if before is not None:
            self._path(shard, before).unlink(missing_ok=True)

    def tick(self, shard: int) -> int:
        """Where the shard would begin again."""
        return self._confirmed.get(shard, 0)

    def load(self, shard: int) -> bytes:
        """The checkpoint at the restart point; b"" for step 0."""
        return self._path(shard, tick).read_bytes() if (tick := self.tick(shard)) else b""
