"""Drying out: film and cracks use up electrolyte, and once the reserve is gone, a part of the electrodes falls dry.

Film of charge Q fills v_f Q of the pores' volume p_0 (per m2 of area) and uses up v Q more liquid than that. Active
material that is lost, of volume V_n and V_p, takes up f V: it has broken, and liquid goes into and reacts on the new
surfaces. First a reserve r p_0 beyond the pores (between and beside the layers) makes up for it. When it is empty, the
liquid does not fill all pores any more. As in Li et al. 2022 (J. Electrochem. Soc. 169, 060516) the part that is not
filled takes no more part in anything, with both electrodes and all that is in them; the rest is a cell of less area.
The wetted share of the area is liquid over pores,

    a = (p_0 (1 + r) - (v_f + v) Q - f (V_n + V_p)) / (p_0 - v_f Q), at most 1,

with Q, V_n and V_p as if what is dry were as old as what is wet. So it follows from film and active material and needs
no state of its own. It feeds on itself: less area means more current on each part of it, more stress, more material
lost, more liquid gone. The wetted area takes the place of the area in every equation; nothing else in the kernel knows
of it. In a life (`life.py`) it follows from film and active material at the end of a jump, and counts in the error that
a jump may make.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from physics.compiled import inner
from physics.constants import FARADAY
from physics.layout import ACTIVE_N, ACTIVE_P, AREA, Q_SEI, RESERVE, WHOLE_AREA
from physics.maths import clip
from physics.parameters import CellParameters, FloatArray

if TYPE_CHECKING:
    from physics.modal import CellModel

ENDLESS: Final = 1e9
"""A reserve that never ends: of a cell in which the mechanism is switched off."""
LEAST: Final = 0.02
"""Share of the pores that a film never fills, in this law."""
WETTED_MIN: Final = 0.1


class Drying(NamedTuple):
    """A cell's constants of the law, as shares of its fresh pores."""

    reserve: float
    """r of the median cell."""
    film_fills: float
    """v_f/p_0 [m2/C]."""
    film_dries: float
    """v/p_0 [m2/C]."""
    lost_n_dries: float
    """f times the volume of the fresh negative electrode's active material."""
    lost_p_dries: float


def drying(cell: CellParameters) -> Drying:
    """The constants of a cell. Without parameters nothing dries."""
    n, p, law = cell.negative, cell.positive, cell.dry_out
    pores = n.thickness_m * n.porosity + cell.separator_thickness_m * cell.separator_porosity
    pores += p.thickness_m * p.porosity
    fills = cell.sei.molar_volume_m3_mol / (cell.sei.lithium_per_mole * FARADAY * pores)
    if law is None:
        return Drying(ENDLESS, fills, 0.0, 0.0, 0.0)
    lost_n, lost_p = (law.per_lost_material * e.thickness_m * e.active_fraction / pores for e in (n, p))
    return Drying(law.reserve, fills, law.volume_m3_mol / (FARADAY * pores), lost_n, lost_p)


@inner
def wetted_share(q_sei: float, active_n: float, active_p: float, reserve: float, c: CellModel) -> float:
    """Share of the area that is wetted, with a film of this charge [C/m2], this active material left and this reserve
    (a share of the fresh pores)."""
    film = q_sei - c.sei_initial / c.sei_length
    gone = c.film_dries * film + c.lost_n_dries * (1.0 - active_n) + c.lost_p_dries * (1.0 - active_p)
    return clip(1.0 - (gone - reserve) / max(1.0 - c.film_fills * film, LEAST), WETTED_MIN, 1.0)


@inner
def wet(block: FloatArray, k: int, c: CellModel) -> None:
    """Update a cell's wetted area."""
    share = wetted_share(block[Q_SEI + k], block[ACTIVE_N + k], block[ACTIVE_P + k], block[RESERVE + k], c)
    block[AREA + k] = block[WHOLE_AREA + k] * share


@inner
def wetted(block: FloatArray, k: int) -> float:
    """Share of a cell's area that is wetted now."""
    share: float = block[AREA + k] / block[WHOLE_AREA + k]
    return share
