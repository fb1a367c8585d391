"""Which trials are never pruned: the defaults that all others must beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna.trial import TrialState

if TYPE_CHECKING:
    from collections.abc import Collection

    import optuna

    from autopeft.methods.candidate import Candidate, CandidateSpace


def protected(trial: optuna.Trial, candidate: Candidate, space: CandidateSpace, fixed: Collection[Candidate]) -> bool:
    """Whether a trial runs to its end whatever the pruner says.

    These are the best fixed default of each base model, and whichever default is ahead at the rung just reported. The
    other defaults are trained once when the search is over. Where nothing says which default is best, all are.

    Args:
        trial: in its present state.
        candidate: what it trains.
        space: what is searched.
        fixed: the best fixed default of each base model (`start.fixed_defaults`).
    """
    if candidate.flat != space[candidate.name].default().flat:
        return False
    if not fixed or candidate.flat in [one.flat for one in fixed]:
        return True
    defaults = [part.default().flat for part in space.values()]
    trials = trial.study.get_trials(deepcopy=False)
    own = trials[trial.number]
    rung = own.last_step
    rivals = [
        other.intermediate_values[rung]
        for other in trials
        if other.number != own.number
        and other.state != TrialState.FAIL
        and rung in other.intermediate_values
        and other.params in defaults
    ]
    return rung is not None and all(own.intermediate_values[rung] > score for score in rivals)
