"""`twin validate`: the physics, and what vehicles report, against independent references."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "twin validate physics --quick"
EXAMPLE_LIFE = "twin validate life"
EXAMPLE_REPORTS = "twin validate reports"
EXAMPLE_CELL = "twin validate cell --data real-data"
EXAMPLE_EARLY_LIFE = "twin validate early-life --data real-data"
EXAMPLE_FAULTS = "twin validate faults --data faulty"
EXAMPLE_MODELS = "twin validate models --data histories"
EXAMPLE_VEHICLE = "twin validate vehicle --data real-data"


def physics(
    quick: Annotated[
        bool, typer.Option("--quick", help="only 25 degC and 30 cycles, and no losses beyond 20 %")
    ] = False,
    only: Annotated[
        str | None, typer.Option(metavar="electrical|cells|aging|pack", help="compare only this part \\[default: all]")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="PATH", help="new folder \\[default: runs/validate-physics-<time>]")
    ] = None,
) -> None:
    """Compare voltage, temperature and aging with PyBaMM, and packs with all their cells. Write tables and a figure."""
    from twin.show.physics_study import validate_physics

    validate_physics(quick=quick, out=out, only=only, say=typer.echo)


def life(
    quick: Annotated[bool, typer.Option("--quick", help="only a few conditions")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="PATH", help="new folder \\[default: runs/validate-life-<time>]")
    ] = None,
) -> None:
    """Compare years of storage and cycling with published cells. Write tables and a figure."""
    from twin.show.life_study import validate_life

    validate_life(quick=quick, out=out, say=typer.echo)


def reports(
    vehicles: Annotated[int, typer.Option("--vehicles", help="sound ones of each cell, and as many faulty ones")] = 500,
    out: Annotated[
        Path | None, typer.Option(metavar="PATH", help="new folder \\[default: runs/validate-reports-<time>]")
    ] = None,
) -> None:
    """Compare what vehicles report with what is true and with real vehicles. Write tables."""
    from twin.show.reports_study import validate_reports

    validate_reports(vehicles=vehicles, out=out, say=typer.echo)


def vehicle(
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DIR",
            help="folder with bmw_i3_summer_trips_1hz.parquet (docs/real-data.md) \\[default: no real trips]",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="PATH", help="new folder \\[default: runs/validate-vehicle-<time>]")
    ] = None,
) -> None:
    """Compare range in the cold and the heat with published ones, and, with data, a real car's trips. Write tables and
    figures."""
    from twin.show.vehicle_study import validate_vehicle

    validate_vehicle(data=data, out=out, say=typer.echo)


def cell(
    data: Annotated[
        Path,
        typer.Option(
            "--data", metavar="DIR", help="folder with panasonic18650pf_*.parquet and .csv (docs/real-data.md)"
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="PATH", help="new folder \\[default: runs/validate-cell-<time>]")
    ] = None,
) -> None:
    """Fit a real cell, age it by its own record and compare its capacity. Write tables and a figure."""
    from twin.show.real_cell_study import validate_cell

    validate_cell(data=data, out=out, say=typer.echo)


def early_life(
    data: Annotated[
        Path,
        typer.Option("--data", metavar="DIR", help="folder with severson2019_*.parquet and .csv (docs/real-data.md)"),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="PATH", help="new folder \\[default: runs/validate-early-life-<time>]")
    ] = None,
) -> None:
    """Predict the cycle life of 124 real cells from their first hundred cycles, on the published split."""
    from twin.show.cells_study import validate_early_life

    validate_early_life(data=data, out=out, say=typer.echo)


def models(
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="histories that twin generate made")],
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="URI_OR_DIR", help="whose error stands beside other futures \\[default: bundled]"
        ),
    ] = None,
    folds: Annotated[int, typer.Option("--splits", help="by vehicle; each vehicle is scored in one")] = 10,
    forks: Annotated[int, typer.Option("--forks", help="vehicles whose other futures are simulated; 0 for none")] = 24,
    end_soh: Annotated[
        float, typer.Option("--end-soh", help="share of the fresh usable capacity at which a battery's life ends")
    ] = 0.8,
    threads: Annotated[int, typer.Option("--threads", help="of the trees")] = 1,
    seed: Annotated[int, typer.Option("--seed", help="of the splits and of all that is drawn")] = 1,
    out: Annotated[
        Path | None, typer.Option(metavar="PATH", help="new folder \\[default: runs/validate-models-<time>]")
    ] = None,
) -> None:
    """Score remaining life on many splits, on cohorts left out, from data of 30 years, and beside other futures of the
    same vehicles. Write tables."""
    from twin.show.crossed_study import validate_models

    validate_models(
        data=data,
        model=model,
        folds=folds,
        forks=forks,
        end_soh=end_soh,
        threads=threads,
        seed=seed,
        out=out,
        say=typer.echo,
    )


def faults(
    data: Annotated[
        Path, typer.Option("--data", metavar="DIR", help="histories that twin generate --enrich faults made")
    ],
    seed: Annotated[int, typer.Option("--seed", help="of the folds")] = 1,
    out: Annotated[
        Path | None, typer.Option(metavar="PATH", help="new folder \\[default: runs/validate-faults-<time>]")
    ] = None,
) -> None:
    """Say how well and how soon each kind of fault is found in what vehicles report, and at which cost. Write a
    table."""
    from twin.show.detection_study import validate_faults

    validate_faults(data=data, seed=seed, out=out, say=typer.echo)
