"""What became of each vehicle, from the truth of its life: labels to learn and to be scored by.

End of life is when the pack gives less than a share of what it gave when new, as a laboratory would measure it: the
cells' capacity as far as the weakest group leaves it usable. A life that ends by a thermal runaway or a trip, or that
is still going on, is censored: its remaining life is at least what was seen. It is kept.

A failure is the first of `KINDS`.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from training.histories import Histories, HistoryError

KINDS: Final = ("capacity", "weakest", "resistance", "power", "trip", "runaway")
"""capacity: end of life; weakest: the weakest cell group has fallen behind the others; resistance: doubled; power: not
met in winter and in summer; trip: stopped for an empty cell group; runaway: thermal."""
WEAKEST_LIMIT: Final = 0.9
"""What the weakest group leaves of the cells' mean capacity, over what it left when new."""
RESISTANCE_LIMIT: Final = 2.0
POWER_LACKING: Final = 0.2
"""Share of the hours driven in a day in which the battery could not give what the driver asked for, on two days half a
year apart."""
HORIZON_DAYS: Final = 365.0
END_SOH: Final = 0.8


def label(histories: Histories, end_soh: float = END_SOH) -> pd.DataFrame:
    """A row a vehicle, by its index.

    end_day, end_efc    end of life or, where not `ended`, when it was last seen alive
    ended               whether it reached its end of life
    first_day           when it failed first; NaN where not seen
    first_kind          how, one of KINDS; "" where not seen
    seen_day            until when it was observed
    KIND_day            when it failed so; NaN where not seen
    cohort, cell, use, city, life_reason
    """
    if end_soh < histories.plan.end_soh:
        raise HistoryError(
            f"expected an end of life of at least {histories.plan.end_soh:g}, where these histories stop, got "
            f"{end_soh:g}"
        )
    lives = histories.read("truth/lives").set_index("vehicle")
    states = histories.read("truth/states")
    records = histories.read("reported/records")
    rows = []
    lacking = _lacking(records)
    for vehicle, of in states.groupby("vehicle", sort=True):
        life: Any = lives.loc[vehicle]
        day, efc, soh = (of[name].to_numpy(np.float64) for name in ("day", "efc", "soh"))
        usable = of["soh_usable"].to_numpy(np.float64)
        usable = usable / usable[0]
        ohm = of["resistance"].to_numpy(np.float64)
        ohm = ohm / ohm[0]
        behind = usable / soh
        if life["reason"] == "capacity":  # known to the day
            day, efc = np.append(day, life["day"]), np.append(efc, life["efc"])
            ohm, behind = np.append(ohm, ohm[-1]), np.append(behind, behind[-1])
            usable = np.append(usable, min(usable[-1], histories.plan.end_soh))
        days = {
            "capacity": _crossing(day, usable, end_soh),
            "weakest": _crossing(day, behind, WEAKEST_LIMIT),
            "resistance": _crossing(day, -ohm, -RESISTANCE_LIMIT),
            "power": float(lacking.get(vehicle, np.nan)),
            "trip": float(life["day"]) if life["reason"] == "stopped" else np.nan,
            "runaway": float(life["day"]) if life["reason"] == "failed" else np.nan,
        }
        worn = days["capacity"]
        ended = bool(np.isfinite(worn))
        known = {kind: when for kind, when in days.items() if np.isfinite(when)}
        first = min(known, key=lambda kind: (known[kind], KINDS.index(kind)), default="")
        rows.append(
            {
                "vehicle": vehicle,
                "ended": ended,
                "end_day": worn if ended else float(life["day"]),
                "end_efc": float(np.interp(worn, day, efc)) if ended else float(life["efc"]),
                "first_day": known.get(first, np.nan),
                "first_kind": first,
                "seen_day": float(life["day"]),
                "life_reason": life["reason"],
            }
            | {name: life[name] for name in ("cohort", "cell", "use", "city")}
            | {f"{kind}_day": when for kind, when in days.items()}
        )
    return pd.DataFrame(rows).set_index("vehicle")


def _lacking(records: pd.DataFrame) -> pd.Series[float]:
    """When each vehicle that has done so lacked power on the second of two looks in a row, by its index."""
    looks = records.groupby(["vehicle", "known_day"], sort=True).first().reset_index()
    lacks = looks["power_lacking"] >= POWER_LACKING
    again = lacks & lacks.shift(fill_value=False) & (looks["vehicle"] == looks["vehicle"].shift())
    return looks[again].groupby("vehicle")["day"].min()


def _crossing(day: npt.NDArray[Any], values: npt.NDArray[Any], limit: float) -> float:
    """When `values` first fell to `limit`, between two days by a straight line; NaN if they never did."""
    below = np.flatnonzero(values <= limit)
    if not below.size:
        return float("nan")
    after = int(below[0])
    if after == 0:
        return float(day[0])
    one, other = values[after - 1], values[after]
    return float(day[after - 1] + (one - limit) / (one - other) * (day[after] - day[after - 1]))
