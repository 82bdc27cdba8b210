"""The LFP cell of `prada2013.py` with the hysteresis of LFP.

Charge and discharge of LFP differ by 20 mV however small the current, because its particles fill one after another
(Dreyer et al. 2010, Nature Materials 9, 448, doi 10.1038/nmat2730). The curve of `prada2013.py` is taken as the middle.
How much charge leads from one branch to the other was not published with it: within a tenth of the charge the state
covers 1 - exp(-5/2) = 92 % of the way. Graphite's hysteresis, of a few mV, is left out.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from physics.cells.prada2013 import PRADA2013
from physics.parameters import FloatArray, HysteresisParameters


def lfp_half_gap_V(x: FloatArray) -> FloatArray:
    """Half of 20 mV (Dreyer 2010)."""
    return np.full_like(x, 0.01)


DREYER2010 = replace(
    PRADA2013,
    name="dreyer2010",
    sources=(*PRADA2013.sources, "Dreyer2010", "Axen2022"),
    does_not_claim=("how much charge leads from one branch to the other (assumed)", *PRADA2013.does_not_claim[1:]),
    positive=replace(PRADA2013.positive, hysteresis=HysteresisParameters(half_gap_V=lfp_half_gap_V, decay=50.0)),
)
