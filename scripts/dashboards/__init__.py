"""The Grafana dashboards as code: one file a dashboard; `panels.py` has what they share, `ask.py` runs their queries.

`make docs` writes them to `cluster/grafana/dashboards`, from where Grafana takes them (docs/dashboards.md).
"""

from __future__ import annotations

import json

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
    return {
        name: json.dumps(board().build(), cls=JSONEncoder, indent=1, ensure_ascii=False) + "\n"
        for name, board in BOARDS.items()
    }
