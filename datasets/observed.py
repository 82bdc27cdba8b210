"""What was found about a run's model, for its metrics: RUN/observed.json, replaced by each look of `twin retrain`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from datasets.log.durable import replace_file


@dataclass(frozen=True)
class Observation:
    """`at_s`: when [s since 1970]. `psi`: by input, how far it has moved and above what that is drift. `coverage`: the
    share of decided predictions whose interval held, None where too few vehicles tell it."""

    at_s: float
    psi: dict[str, tuple[float, float]]
    coverage: float | None

    def save(self, run: Path) -> None:
        """Replace what was found before. OSError where the run cannot be written to."""
        replace_file(run / "observed.json", json.dumps(asdict(self)).encode())

    @classmethod
    def load(cls, run: Path) -> Self | None:
        """What was found last; None where nobody has looked, or what is there cannot be read."""
        try:
            return cls(**json.loads((run / "observed.json").read_bytes()))
        except (OSError, ValueError, TypeError):
            return None
