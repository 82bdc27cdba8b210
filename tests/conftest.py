"""Fixtures for all tests. Real services come from `tests.services`, one Ray cluster serves a whole session."""

from __future__ import annotations

import os

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Ray's worker processes import our packages from here, also when pytest was started from another folder.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH", "")]))

#pytest_plugins = ["tests.services.fixtures"]
