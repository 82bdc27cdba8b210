"""Which records the models are asked about."""

from __future__ import annotations

import numpy as np
import pytest

from models.features import is_predicted


@pytest.mark.parametrize(("telemetry", "predict"), [(2, 5), (1, 1), (5, 2), (3, 7), (10, 600)])
def test_predicted_is_the_newest_record_at_each_multiple_of_the_period(telemetry: int, predict: int) -> None:
    last_tick = 5000
    seq = np.arange(last_tick // telemetry)
    newest = {t // telemetry - 1 for t in range(predict, last_tick - telemetry, predict) if t >= telemetry}
    marked = set(seq[is_predicted(seq, telemetry, predict)].tolist())
    limit = len(seq) - 2
    assert {s for s in marked if s < limit} == {s for s in newest if s < limit}
