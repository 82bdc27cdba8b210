"""`twin cell`: one cell in the laboratory; `twin cell fit`: a cell from a cycler's record."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from twin.errors import BadInput

EXAMPLE_FIT = "twin cell fit cycler.csv --start chen2020 --out mycell.bpx.json"
EXAMPLE = 'twin cell --cycle "CC 1C to 2.5V; rest 1h; CCCV 0.5C 4.2V C/50" --cycles 500'


def cell(
    context: typer.Context,
    cycle: Annotated[
        str | None,
        typer.Option(
            show_default=False,
            metavar="PROTOCOL",
            help='protocol, such as "CC 1C to 2.5V; rest 1h; CCCV 0.5C 4.2V C/50", "drive us06.csv at 0degC" or'
            ' "Discharge at C/10 until 3 V"',
        ),
    ] = None,
    cell: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="parameter set of the cell \\[default: chen2020]", show_default=False),
    ] = None,
    bpx: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="take the cell from this Battery Parameter eXchange file instead"),
    ] = None,
    cycles: Annotated[str, typer.Option(metavar="INTEGER", help="repetitions of the protocol")] = "1",
    ambient: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER",
            help="temperature of the air around the cell, degC; a step may set its own"
            " \\[default: the file's, else 25]",
            show_default=False,
        ),
    ] = None,
    soc: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER 0..1",
            help="state of charge at the start \\[default: the file's, else full; empty if the protocol charges first]",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="PATH", help="new folder for plot and tables \\[default: runs/cell-<time>]")
    ] = None,
) -> None:
    """Cycle one cell as in the laboratory, and give a table, a plot and the data."""
    if context.invoked_subcommand is not None:
        return
    if cycle is None:
        raise BadInput(f"--cycle: expected a protocol, for example: {EXAMPLE}")
    from twin.show.cell_study import cycle_cell

    cycle_cell(cell, cycle, bpx=bpx, cycles=cycles, ambient=ambient, soc=soc, out=out, say=typer.echo)


def fit(
    data: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="CSV or Parquet with time, current, voltage, perhaps temperature and part"),
    ],
    start: Annotated[
        str, typer.Option(metavar="CELL", help="cell to begin with: a name, or a BPX file (.json)")
    ] = "chen2020",
    current_sign: Annotated[
        str, typer.Option(metavar="discharge|charge", help="what a positive current of the file does")
    ] = "discharge",
    ambient: Annotated[
        float, typer.Option(metavar="NUMBER", help="temperature of the cell where the file has none, degC")
    ] = 25.0,
    part: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="only this part (column session, part or cycle); may be repeated"),
    ] = None,
    lowest_voltage: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="where the cell is empty, V \\[default: CELL's]")
    ] = None,
    highest_voltage: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="where the cell is full, V \\[default: CELL's]")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="new BPX file \\[default: the data's name with .bpx.json]")
    ] = None,
) -> None:
    """Fit a cell to a cycler's record and write it as a BPX file. Say what the data do not tell."""
    from twin.show.fit_study import fit_study

    fit_study(
        data,
        start=start,
        sign=current_sign,
        ambient_C=ambient,
        only=tuple(part or ()),
        lowest_V=lowest_voltage,
        highest_V=highest_voltage,
        out=out,
        say=typer.echo,
    )
