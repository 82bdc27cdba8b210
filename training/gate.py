"""Whether a challenger takes the champion's place: judged on vehicles that neither of them has seen.

Errors of remaining life are those in equivalent full cycles, on lives whose end is known. Rules:

coverage   the challenger's 90 % interval holds 85 to 95 % of the rows
error      its mean absolute error is lower than the champion's: the 95 % bootstrap interval over vehicles of the
           difference on the same rows lies below zero. Where the champion's coverage alarm rings it may be up to 1 %
           larger. Without a champion: lower than that of the mean residual life
failure    its Brier score is at most 2 % larger
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.bundle import Bundle
from training.evaluate import bootstrapped, mean_residual_life, split_for, unseen_vehicles, whole_lives
from training.fit import boost_here
from training.histories import Histories, HistoryError
from training.labels import label
from training.samples import Samples, assemble

Floats = npt.NDArray[np.float64]

COVERAGE: Final = (0.85, 0.95)
WORSE_ALLOWED: Final = 0.01
"""Of the error, where the champion's coverage alarm rings."""
BRIER_ALLOWED: Final = 0.02
FEWEST: Final = 10
"""Vehicles whose end is known."""
_RESAMPLED: Final = 2000


@dataclass(frozen=True)
class Rule:
    """One of the gate's rules, and what came."""

    name: str
    passed: bool
    says: str


@dataclass(frozen=True)
class Verdict:
    """`reason` is one line with the numbers; `facts` are those of JSON."""

    promote: bool
    reason: str
    rules: tuple[Rule, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    def table(self) -> str:
        """A line a rule."""
        return "\n".join(f"{'passed' if r.passed else 'FAILED':<7} {r.name:<9} {r.says}" for r in self.rules)


def judge(champion: Bundle | None, challenger: Bundle, histories: Histories, *, alarm: bool = False) -> Verdict:
    """The verdict on these lives. `alarm`: the champion's intervals have been found to hold too seldom."""
    end = challenger.manifest.end_of_life_soh
    if champion is not None and champion.manifest.end_of_life_soh != end:
        return Verdict(
            False,
            f"the challenger's end of life is SoH {end:g}, the champion's {champion.manifest.end_of_life_soh:g}: "
            "their remaining lives are not the same thing; train it with the champion's --end-soh",
        )
    samples = assemble(histories, label(histories, end))
    unseen = samples.of(unseen_vehicles([model for model in (champion, challenger) if model], histories, samples))
    lives: Floats | None = None
    if champion is None:
        try:
            split = split_for(challenger, histories, samples)
        except HistoryError as error:
            return Verdict(False, str(error))
        unseen = split.test
        lives = whole_lives(split.train, "efc", boost_here(), 1)[1]
    test = unseen.at(unseen.ended)
    vehicles = int(np.unique(test.vehicle).size)
    if vehicles < FEWEST:
        return Verdict(
            False,
            f"expected at least {FEWEST} vehicles that no model has seen and whose end of life is known, got "
            f"{vehicles}: make histories with another seed, of more vehicles (--vehicles) or for longer (--years)",
        )
    rules, facts = _rules(champion, challenger, unseen, test, lives, alarm=alarm)
    facts |= {"data": histories.hash(), "vehicles": vehicles, "rows": int(test.vehicle.size)}
    passed = all(rule.passed for rule in rules)
    shown = rules if passed else [rule for rule in rules if not rule.passed]
    words = "; ".join(rule.says for rule in shown)
    return Verdict(passed, f"{words}; on {vehicles} vehicles never seen", tuple(rules), facts)


def _rules(
    champion: Bundle | None, challenger: Bundle, unseen: Samples, test: Samples, lives: Floats | None, *, alarm: bool
) -> tuple[list[Rule], dict[str, Any]]:
    life = challenger.life("efc", test.inputs)
    error = np.abs(life.median - test.rul_efc)
    share = float(((life.low <= test.rul_efc) & (test.rul_efc <= life.high)).mean())
    low, high = COVERAGE
    rules = [Rule("coverage", bool(low <= share <= high), f"covers {share:.1%} (expected {low:.0%} to {high:.0%})")]
    facts: dict[str, Any] = {"coverage": share, "mae": float(error.mean())}
    if champion is None:
        assert lives is not None
        rival = np.abs(mean_residual_life(lives, test.efc) - test.rul_efc)
        what, other = "of the mean residual life", "baseline_mae"
    else:
        rival = np.abs(champion.life("efc", test.inputs).median - test.rul_efc)
        what, other = "of the champion", "champion_mae"
    span = bootstrapped(error - rival, test.vehicle, times=_RESAMPLED)
    facts |= {other: float(rival.mean()), "difference": float((error - rival).mean()), "difference_range": span}
    says = f"MAE {error.mean():.1f} against {rival.mean():.1f} EFC {what}"
    if champion is None:
        rules.append(Rule("error", bool(error.mean() < rival.mean()), says))
        return rules, facts
    says += f", difference {span[0]:+.1f} to {span[1]:+.1f}"
    if alarm:
        bound = (1.0 + WORSE_ALLOWED) * float(rival.mean())
        says += f" (expected at most {bound:.1f}: the champion's coverage alarm rings)"
        rules.append(Rule("error", bool(error.mean() <= bound), says))
    else:
        rules.append(Rule("error", span[1] < 0.0, f"{says} (expected below 0)"))
    known = unseen.at(unseen.fails >= 0)
    mine, theirs = (
        float(((model.failure(known.inputs) - known.fails) ** 2).mean()) for model in (challenger, champion)
    )
    facts |= {"brier": mine, "champion_brier": theirs}
    bound = (1.0 + BRIER_ALLOWED) * theirs
    rules.append(
        Rule("failure", mine <= bound, f"Brier {mine:.4f} against {theirs:.4f} (expected at most {bound:.4f})")
    )
    return rules, facts
