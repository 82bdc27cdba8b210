"""The known cells, one file each, named after their source. Open `chen2020.py` for an example."""

from __future__ import annotations

from physics.cells.ai2022 import AI2022
from physics.cells.chayambuka2022 import CHAYAMBUKA2022
from physics.cells.chen2020 import CHEN2020
from physics.cells.dreyer2010 import DREYER2010
from physics.cells.kim2011 import KIM2011
from physics.cells.okane2022 import OKANE2022
from physics.cells.prada2013 import PRADA2013
from physics.parameters import CellParameters

CELLS: tuple[CellParameters, ...] = (CHEN2020, OKANE2022, PRADA2013, KIM2011, AI2022, DREYER2010, CHAYAMBUKA2022)


class UnknownCellError(ValueError):
    """The name of a cell that is not in `physics/cells`."""


def cell_names() -> tuple[str, ...]:
    """Names that `load_cell` takes."""
    return tuple(cell.name for cell in CELLS)


def load_cell(name: str) -> CellParameters:
    """Parameters of a cell by its name; upper and lower case are the same."""
    for cell in CELLS:
        if isinstance(name, str) and cell.name == name.lower():
            return cell
    raise UnknownCellError(f"unknown cell {name!r}; known cells: {', '.join(cell_names())}")
