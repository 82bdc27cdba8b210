"""The composition of a fleet by default. Importing this module compiles no kernel."""

from __future__ import annotations

from typing import Final

# Shares are set for variety, in the range of national travel surveys. They are not fitted. `duty.py` defines the days.
USE_SHARES: Final = {"commuter": 0.84, "delivery": 0.06, "taxi": 0.04, "long_distance": 0.06}
USES: Final = tuple(USE_SHARES)
MODEL_SHARES: Final = {"small": 0.25, "medium": 0.4, "large": 0.25, "van": 0.1}
"""Of vehicle models (`car_models.py`). Most deliveries have vans."""
MODELS: Final = tuple(MODEL_SHARES)
CELL_SHARES: Final = {"chen2020": 0.75, "prada2013": 0.25}
OLDEST_YEARS: Final = 10.0
MOST_FAULTY: Final = 0.99
"""Largest share of vehicles that may be asked to get a fault: all would need faults at once."""
