"""How far one reader of the log has got: a small file, replaced atomically."""

from __future__ import annotations

import json
import os
from pathlib import Path


class CursorFile:
    """Position (rows delivered) of one sink on one log. A missing file means 0."""

    def __init__(self, run: Path, reader: str, stream: str, shard: int) -> None:
        self._path = run / "cursors" / reader / f"{stream}-shard-{shard:04d}.json"

    def load(self) -> int:
        """The saved position."""
        try:
            return int(json.loads(self._path.read_text())["position"])
        except FileNotFoundError:
            return 0

    def save(self, position: int) -> None:
        """Remember `position`; a crash leaves the old or the new one."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"position": position}))
        os.replace(temporary, self._path)
