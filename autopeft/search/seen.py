"""What the sampler sees of a study: all trials of a short one; of a long one the best and the newest.

So that drawing a candidate takes no longer the more trials there are. TPE tells at most the 25 best trials from all
others (`optuna.samplers._tpe.sampler.default_gamma`), and gives the others less weight the older they are
(`default_weights`). So what it does not see any more would have decided little.
"""

from __future__ import annotations

import copy
from bisect import insort
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import optuna
from optuna.trial import TrialState

from autopeft.study.storage import CONSTRAINT

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

MOST, LEADERS = 400, 25
"""Number of trials that are seen, and how many of them are the best of all."""

ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
"""States of the trials that TPE models. It counts running ones among the bad ones, where several run at a time."""


class Inferred(NamedTuple):
    """The dimensions of a search space as Optuna infers them from trials.

    Attributes:
        names: of the dimensions that were drawn together, from which it was inferred.
        dimensions: all, by name.
        groups: the same in groups of those that were drawn together.
    """

    names: list[frozenset[str]]
    dimensions: dict[str, BaseDistribution]
    groups: Any


class Memory:
    """Reads each trial that has ended once; it belongs to one study.

    Attributes:
        most: number of trials to see.
        inferred: what was inferred last.
    """

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self.inferred: Inferred | None = None
        self._read = 0
        self._leaders: list[FrozenTrial] = []
        self._newest: deque[FrozenTrial] = deque(maxlen=most)
        self._spaces: dict[frozenset[str], FrozenTrial] = {}

    def look(self, study: optuna.Study) -> tuple[Seen, Seen]:
        """The study with the trials to draw from; and with the first trial of each set of dimensions.

        From the latter Optuna finds the same groups of dimensions as from all trials, in much less time.
        """
        trials = study.get_trials(deepcopy=False)
        while self._read < len(trials) and trials[self._read].state.is_finished():
            self._take(trials[self._read])
            self._read += 1
        later = [trial for trial in trials[self._read :] if trial.state in (*ENDED, TrialState.RUNNING)]
        best = {trial.number for trial in self._leaders}
        others = [trial for trial in (*self._newest, *later) if trial.number not in best]
        kept = sorted((*self._leaders, *others[len(best) - self.most :]), key=lambda trial: trial.number)
        firsts = dict(self._spaces)
        for trial in later:
            if trial.state in ENDED:
                firsts.setdefault(frozenset(trial.distributions), trial)
        return Seen(study, kept), Seen(study, [*firsts.values()])

    def _take(self, trial: FrozenTrial) -> None:
        if trial.state not in ENDED:
            return
        trial = copy.copy(trial)  # TPE looks through these attributes again and again, for broken limits alone
        trial.system_attrs = {f"{CONSTRAINT}{name}": by for name, by in trial.constraints.items() if by > 0}
        self._newest.append(trial)
        self._spaces.setdefault(frozenset(trial.distributions), trial)
        if trial.state == TrialState.COMPLETE and not trial.system_attrs:
            insort(self._leaders, trial, key=lambda one: -(one.value or 0.0))
            del self._leaders[LEADERS:]


class Seen(optuna.Study):
    """A study that a sampler is shown in the place of another, with some of its trials.

    Args:
        study: the other one; higher values are better.
        trials: some of its trials, in order.
    """

    def __init__(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> None:
        super().__init__(study.study_name, study._storage, study.sampler, study.pruner)
        self._seen = trials

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        return [trial for trial in self._seen if states is None or trial.state in states]
