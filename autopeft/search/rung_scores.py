"""The scores of a study's trials at each rung, each trial read once: reading all at every rung takes ever longer."""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from optuna.trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    import optuna


class RungScores:
    """The scores at each rung of trials that go on or have ended, but not of those that failed.

    An interrupted trial fails in Optuna and runs again, and would count twice. A score that is not a number is none.
    """

    def __init__(self) -> None:
        self._looked_at = 0
        self._open = set[int]()
        self._going = list[FrozenTrial]()
        self._ended: dict[int, list[float]] = {}  # by rung; in rising order

    @classmethod
    def of(cls, study: optuna.Study) -> RungScores:
        """Those of a study, up to date."""
        found = _KNOWN.setdefault(study, cls())
        found._look(study.get_trials(deepcopy=False))
        return found

    def _look(self, trials: list[FrozenTrial]) -> None:
        self._open |= {trial.number for trial in trials[self._looked_at :]}
        self._looked_at = len(trials)
        self._going = []
        for trial in [trials[number] for number in self._open]:
            if not trial.state.is_finished():
                self._going.append(trial)
                continue
            self._open.remove(trial.number)
            if trial.state != TrialState.FAIL:
                for rung, score in trial.intermediate_values.items():
                    if not math.isnan(score):
                        insort(self._ended.setdefault(rung, []), score)

    def _of_going(self, rung: int) -> list[float]:
        found = (trial.intermediate_values.get(rung, math.nan) for trial in self._going)
        return [score for score in found if not math.isnan(score)]

    def better(self, rung: int, score: float) -> tuple[int, int]:
        """How many trials are better than a score at a rung, and how many have one there."""
        ended, going = self._ended.get(rung, []), self._of_going(rung)
        better = len(ended) - bisect_right(ended, score) + sum(other > score for other in going)
        return better, len(ended) + len(going)

    def best(self, rung: int) -> float:
        """The best score at a rung; NaN where there is none."""
        return max([*self._ended.get(rung, [])[-1:], *self._of_going(rung)], default=math.nan)


_KNOWN: WeakKeyDictionary[optuna.Study, RungScores] = WeakKeyDictionary()
