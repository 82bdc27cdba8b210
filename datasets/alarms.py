"""From where on a vehicle needs somebody. The live page and the metrics count by the same limits."""

from __future__ import annotations

from typing import Final

HOT_C: Final = 50.0
"""Battery temperature."""
RISKY: Final = 0.5
"""Failure probability."""
SILENT_S: Final = 30.0
"""Without a record that is due."""
