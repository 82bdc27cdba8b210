"""`twin train` and `twin evaluate`: models from histories, and how good a model is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from twin.options import TRACKING

EXAMPLE = "twin train --data histories --out model"
EXAMPLE_EVALUATE = "twin evaluate --model model --data histories"


def train(
    data: Annotated[
        Path,
        typer.Option(
            "--data", metavar="PATH", help="histories that twin generate made, or a table of cells (docs/models.md)"
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="new folder \\[default: runs/model-<time>]")
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", help="of Ray Train, one CPU each; 0: in this process, without Ray")
    ] = 2,
    end_soh: Annotated[
        float, typer.Option("--end-soh", help="share of the fresh usable capacity at which a battery's life ends")
    ] = 0.8,
    seed: Annotated[int, typer.Option("--seed", help="of the split by vehicle, and of the trees")] = 1,
    register: Annotated[bool, typer.Option("--register", help="log to MLflow and register as challenger")] = False,
    tracking_uri: Annotated[str, TRACKING] = "",
    address: Annotated[str | None, typer.Option("--address", metavar="ADDRESS", help="Ray cluster")] = None,
) -> None:
    """Train remaining life and failure on vehicles, calibrate on others, score on others again. Write a bundle with
    its card, tables and figures."""
    if data.is_file():
        from twin.show.cells_study import train_on_cells

        train_on_cells(data=data, out=out, end_soh=end_soh, seed=seed, say=typer.echo)
        return
    from twin.show.model_study import train_model

    train_model(
        data=data, out=out, workers=workers, end_soh=end_soh, seed=seed, register=register,
        tracking_uri=tracking_uri, address=address, say=typer.echo,
    )  # fmt: skip


def evaluate(
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="histories that twin generate made")],
    model: Annotated[
        str | None, typer.Option("--model", metavar="URI_OR_DIR", help="a bundle \\[default: the bundled one]")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="new folder \\[default: runs/evaluation-<time>]")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="of the split of vehicles that the model has not seen")] = 1,
    tracking_uri: Annotated[str, TRACKING] = "",
) -> None:
    """Score a model on vehicles that it has never seen, beside simpler ways. Write evaluation.json, tables, figures."""
    from twin.show.model_study import evaluate_model

    evaluate_model(model=model, data=data, out=out, seed=seed, tracking_uri=tracking_uri, say=typer.echo)
