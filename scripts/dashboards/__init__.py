"""The Grafana dashboards as code: one file a dashboard; `panels.py` has what they share, `ask.py` runs their queries.

`make docs` writes them to `cluster/grafana/dashboards`, from where Grafana takes them (docs/dashboards.md).
"""

from __future__ import annotations

import json

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from scripts.dashboards import charging, fleet, models, operations, pipeline, vehicle

BOARDS = {
    "fleet": fleet.board,
    "vehicle": vehicle.board,
    "charging": charging.board,
    "models": models.board,
    "pipeline": pipeline.board,
    "operations": operations.board,
}


def dashboards() -> dict[str, str]:
    """The JSON of each dashboard, by its name."""
    return {name: _json(board()) for name, board in BOARDS.items()}


def _json(board: Dashboard) -> str:
    built = board.build()
    for number, panel in enumerate(built.panels or (), 1):
        panel.id_val = number
    for variable in (built.templating and built.templating.list_val) or ():
        # The SDK sets them for every kind of choice, and Grafana knows them for choices of an interval only.
        variable.auto = variable.auto_min = variable.auto_count = None
    return json.dumps(built, cls=JSONEncoder, indent=1, ensure_ascii=False) + "\n"
