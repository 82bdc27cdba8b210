"""`twin cell fit`: a cycler's record becomes a cell file, and a person sees how well it is met.

`training/cell_fit.py` does the work.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, get_args

from datasets.bpx_file import BpxError, load_bpx
from datasets.bpx_writer import write_bpx
from datasets.cycler_file import Sign, read_cycler
from datasets.table_file import DataError
from physics import CellParameters, UnknownCellError, cell_names, load_cell
from physics.constants import COLDEST_C, HOTTEST_C
from training.cell_fit import begin_with, fit_cell, render
from twin.errors import BadInput

_SUFFIX: Final = ".bpx.json"


def fit_study(
    data: Path,
    *,
    start: str = "chen2020",
    sign: str = "discharge",
    ambient_C: float = 25.0,
    only: tuple[str, ...] = (),
    lowest_V: float | None = None,
    highest_V: float | None = None,
    out: Path | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Fit, show and write. Returns the file. BadInput, in one line, before anything is written.

    start   name of a cell, or a BPX file
    sign    what a positive current of the file does: 'discharge' or 'charge'
    only    names of the parts to fit; empty: all
    """
    if sign not in get_args(Sign):
        raise BadInput(f"--current-sign: expected {' or '.join(get_args(Sign))}, got {sign!r}")
    if not COLDEST_C <= ambient_C <= HOTTEST_C:
        raise BadInput(f"--ambient: expected a number from {COLDEST_C:g} to {HOTTEST_C:g}, got {ambient_C:g}")
    path = out or Path(data.name.split(".")[0] + _SUFFIX)
    if path.exists():
        raise BadInput(f"--out: {path} is there already; choose another name")
    if not path.absolute().parent.is_dir():
        raise BadInput(f"--out: there is no folder {path.absolute().parent}")
    begun = _start(start)
    try:
        parts = read_cycler(data, sign, ambient_C, only)  # type: ignore[arg-type]
        first = begin_with(begun, parts, lowest_V, highest_V)
    except DataError as error:
        raise BadInput(str(error)) from None
    except ValueError as error:
        raise BadInput(f"--lowest-voltage, --highest-voltage: {error}") from None
    fit = fit_cell(first, parts, name=path.name.removesuffix(_SUFFIX).removesuffix(".json"), say=say)
    try:
        write_bpx(
            fit.cell,
            path,
            title=f"{begun.chemistry} cell of {fit.capacity_Ah:.3f} Ah, fitted to {data.name}",
            description=f"twin cell fit: began with {begun.name}; RMSE {fit.rmse_mV:.1f} mV. Aging is not fitted.",
        )
    except OSError as error:
        raise BadInput(f"--out: cannot write {path}: {error.strerror}") from error
    say(f"\n{render(fit)}")
    for note in fit.notes:
        say(f"note: {note}")
    say(f"\nwritten to {path}; use it with: twin cell --bpx {path} --cycle ...")
    return path


def _start(name: str) -> CellParameters:
    if Path(name).suffix == ".json":
        try:
            return load_bpx(name).parameters
        except BpxError as error:
            raise BadInput(f"--start: {error}") from None
    try:
        return load_cell(name)
    except UnknownCellError:
        raise BadInput(
            f"--start: expected a BPX file (.json) or one of {', '.join(cell_names())}, got {name!r}"
        ) from None
