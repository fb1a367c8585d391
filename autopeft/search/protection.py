"""Which trials the pruner has no say about: the defaults that all others have to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna.trial import TrialState

if TYPE_CHECKING:
    import optuna

    from autopeft.methods.candidate import Candidate, CandidateSpace


def protected(trial: optuna.Trial, candidate: Candidate, space: CandidateSpace, fixed: Candidate | None) -> bool:
    """Whether a trial runs to its end whatever the pruner says.

    Of the best fixed default that is so, and of whichever default is ahead at the rung just reported; the other
    defaults are trained once when the search is over. Of every default, where nothing tells which is the best.

    Args:
        trial: as it stands.
        candidate: that it trains.
        space: what is searched.
        fixed: the best fixed default (`start.fixed_default`).
    """
    defaults = {name: part.default().flat for name, part in space.items()}
    if candidate.flat != defaults[candidate.method.name]:
        return False
    if fixed is None or candidate.flat == fixed.flat:
        return True
    trials = trial.study.get_trials(deepcopy=False)
    own = trials[trial.number]
    rung = own.last_step
    rivals = [
        other.intermediate_values[rung]
        for other in trials
        if other.number != own.number
        and other.state != TrialState.FAIL
        and rung in other.intermediate_values
        and other.params == defaults.get(str(other.params.get("method")))
    ]
    return rung is not None and all(own.intermediate_values[rung] > score for score in rivals)
