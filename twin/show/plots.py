"""How plots look: matplotlib settings and colours shared by all code that draws them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

INK: Final = "#1b2733"
BLUE: Final = "#2a6fb0"
RED: Final = "#b5452c"
GREEN: Final = "#4f9d69"
GREY: Final = "#9aa7b2"

_STYLE: Final[Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "twin",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6eaee",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "figure.constrained_layout.use": True,
}


def styled() -> AbstractContextManager[None]:
    """Within this context, figures have our style."""
    return mpl.rc_context(_STYLE)


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write `name`.png and `name`.svg to `folder`."""
    figure.savefig(folder / f"{name}.png", dpi=160)
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
