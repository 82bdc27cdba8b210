"""`twin cell`: one cell in the laboratory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = 'twin cell --cycle "CC 1C to 2.5V; rest 1h; CCCV 0.5C 4.2V C/50" --cycles 500'


def cell(
    cycle: Annotated[
        str,
        typer.Option(
            metavar="PROTOCOL",
            help='protocol, such as "CC 1C to 2.5V; rest 1h; CCCV 0.5C 4.2V C/50", "drive us06.csv at 0degC" or'
            ' "Discharge at C/10 until 3 V"',
        ),
    ],
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
    from twin.show.cell_study import cycle_cell

    cycle_cell(cell, cycle, bpx=bpx, cycles=cycles, ambient=ambient, soc=soc, out=out, say=typer.echo)
