"""How long records take, as a histogram: from when they were due until they have arrived."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

# Upper bounds [s]; the last bucket has none.
BUCKETS_S = (
    0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0,
)  # fmt: skip


@dataclass
class Latencies:
    """Records by bucket of `BUCKETS_S`, and the sum of their latencies [s]."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    sum_s: float = 0.0

    def add(self, latencies_s: npt.NDArray[np.float64]) -> None:
        """Count more records, shape (n,)."""
        more = np.bincount(np.searchsorted(BUCKETS_S, latencies_s), minlength=len(self.counts))
        self.counts = [count + int(new) for count, new in zip(self.counts, more, strict=True)]
        self.sum_s += float(latencies_s.sum())

    def __add__(self, other: Latencies) -> Latencies:
        return Latencies([a + b for a, b in zip(self.counts, other.counts, strict=True)], self.sum_s + other.sum_s)
