"""How a vehicle's life ends: at a true state of health below a limit, by a thermal runaway, or by a fault trip: the
BMS has stopped the vehicle for an empty cell group.

`ends` is beside a block as the block's own rows are: `ends[ROW + lane]`, flat, one array a block.
"""

from __future__ import annotations

from typing import Final

from physics.compiled import inner
from physics.kernel import soh_of
from physics.layout import FAILED, LANES, ODOMETER, STOPS, THROUGHPUT
from physics.modal import CellModel
from physics.parameters import FloatArray

REASONS: Final = ("alive", "capacity", "failed", "stopped")
REASON, END_DAY, END_AH, END_M = (row * LANES for row in range(4))
"""Rows: index in REASONS, days since the start, THROUGHPUT and ODOMETER then."""
ENDS_SIZE: Final = 4 * LANES


@inner
def put_end(
    ends: FloatArray, k: int, soh: float, failed: float, stops: float, limit: float, day: float, throughput: float,
    odometer: float,
) -> None:  # fmt: skip
    """Write one vehicle's end to `ends`, shape (ENDS_SIZE,), if this is it. If several reasons have come, it is the
    first of REASONS."""
    if ends[REASON + k] == 0.0 and (soh < limit or failed > 0.0 or stops > 0.0):
        ends[REASON + k] = 1.0 if soh < limit else (2.0 if failed > 0.0 else 3.0)
        ends[END_DAY + k], ends[END_AH + k], ends[END_M + k] = day, throughput, odometer


@inner
def see_ends(ends: FloatArray, block: FloatArray, day: float, limit: float, c: CellModel) -> None:
    """`put_end` for all lanes as they are now, `day` days after the start."""
    for k in range(LANES):
        soh, failed, stops = soh_of(block, k, c), block[FAILED + k], block[STOPS + k]
        put_end(ends, k, soh, failed, stops, limit, day, block[THROUGHPUT + k], block[ODOMETER + k])
