"""The pruner of a study, which stops trials that fall behind."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import optuna
from optuna.pruners import BasePruner

from autopeft.search.rung_scores import RungScores

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from optuna.study import Study
    from optuna.trial import FrozenTrial


class HalvingPruner(BasePruner):
    """Asynchronous successive halving (Li et al. 2020, arXiv:1810.05934) by two, in one bracket.

    After each rung a trial goes on if its score is in the better half of those of all trials that reached the rung.
    Rungs double already (`rungs.rung_ends`), so each one is judged; Optuna's pruner of that name, given their numbers,
    would judge the first, second, fourth and eighth. Failed trials do not compete: an interrupted one runs again, and
    would compete twice.
    """

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial falls behind after its last rung."""
        step = trial.last_step
        if step is None:
            return False
        own = trial.intermediate_values[step]
        return _behind(own, *RungScores.of(study).better(step, own))


def judge(scores_at_rung: Sequence[float], own: float) -> bool:
    """Whether a trial falls behind at a rung: it is not in the better half of those that reached it.

    Args:
        scores_at_rung: of all trials that reached the rung so far, its own among them.
        own: its own; NaN is the worst.
    """
    scores = [score for score in scores_at_rung if not math.isnan(score)]
    return _behind(own, sum(score > own for score in scores), len(scores))


def _behind(own: float, better: int, among: int) -> bool:
    """The same, where `better` of the trials `among` which it competes are better than it."""
    return math.isnan(own) or better >= max(among // 2, 1)


PRUNERS: dict[str, Callable[[int], BasePruner]] = {
    "hyperband": lambda rungs: optuna.pruners.HyperbandPruner(min_resource=1, max_resource=rungs, reduction_factor=3),
    "successive_halving": lambda rungs: HalvingPruner(),
    "median": lambda rungs: optuna.pruners.MedianPruner(n_startup_trials=3),
    "none": lambda rungs: optuna.pruners.NopPruner(),
}
"""Makers of the pruners that a study file may name, given the number of rungs; `SearchSection.pruner` has these names.

The default, successive halving, found the best candidates of recorded curves soonest, and lost the best one least often
(`benchmarks/pruners.py`, docs/performance.md).
"""


def make_pruner(name: str, rungs: int) -> BasePruner:
    """The pruner that a study file names; one step is one rung of all folds, at most `rungs` of them."""
    return PRUNERS[name](rungs)
