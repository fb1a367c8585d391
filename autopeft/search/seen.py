"""What the sampler sees of a study: all trials of a short one; of a long one the best and the newest.

So that drawing a candidate takes no longer the more trials there are. TPE tells at most the 25 best trials from all
others (`optuna.samplers._tpe.sampler.default_gamma`), and gives the others less weight the older they are
(`default_weights`). So what it does not see any more would have decided little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import optuna
from optuna.trial import TrialState

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from optuna.trial import FrozenTrial

MOST, LEADERS = 400, 25
"""Number of trials that are seen, and how many of them are the best of all."""

STATES = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
"""States of trials that TPE models; the running ones only where several run at a time."""


def seen(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials to draw from, in order: all while there are few, then the best and the newest.

    Args:
        trials: in order, of `STATES`; higher values are better.
    """
    if len(trials) <= MOST:
        return [*trials]
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    ranked = iter(sorted(complete, key=lambda trial: -(trial.value or 0.0)))
    leaders = [trial for trial, _ in zip((t for t in ranked if _is_feasible(t)), range(LEADERS), strict=False)]
    best = {trial.number for trial in leaders}
    newest = [trial for trial in trials[-MOST:] if trial.number not in best][len(leaders) - MOST :]
    return sorted((*leaders, *newest), key=lambda trial: trial.number)


class Seen(optuna.Study):
    """A study that a sampler is shown in the place of another, with some of its trials.

    Args:
        study: the other one.
        trials: some of its trials, in order.
    """

    def __init__(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> None:
        super().__init__(study.study_name, study._storage, study.sampler, study.pruner)
        self._seen = trials

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        return [trial for trial in self._seen if states is None or trial.state in states]


def first_of_each_space(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The first trial with each set of dimensions: from these Optuna finds the same groups as from all, much sooner."""
    found: dict[frozenset[str], FrozenTrial] = {}
    for trial in trials:
        if trial.state != TrialState.RUNNING:
            found.setdefault(frozenset(trial.distributions), trial)
    return [*found.values()]


def _is_feasible(trial: FrozenTrial) -> bool:
    return all(value <= 0 for value in trial.constraints.values())
