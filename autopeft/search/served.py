"""Which form of the candidate that won is saved: its refit, the mean of what its folds learnt, or all fold models.

A study cannot tell which form is best, since each fold's model was trained on rows that the others validate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from autopeft.budget.limits import SAVED
from autopeft.budget.memory_watch import release_memory
from autopeft.common.exceptions import SpecError, in_a_line
from autopeft.search.fold_average import averaged
from autopeft.search.fold_models import fold_models, kept_folds
from autopeft.search.refit_guard import CollapsedError, guarded_refit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from torch import nn

    from autopeft.execution.problem import Problem
    from autopeft.methods.candidate import Candidate
    from autopeft.study.record import TrialRecord
    from autopeft.training.checkpoint import Checkpoint

REFIT, AVERAGE, ENSEMBLE = "refit", "average", "ensemble"
"""The values of `form` in [winner]."""


class Served(NamedTuple):
    """What is saved, and answers.

    Attributes:
        models: the model; or the fold models, made one after another as they are asked for.
        form: its actual form, whichever was asked for.
        told: why it has that form, as the end of a sentence; "" where there is nothing to say.
    """

    models: nn.Module | Iterable[nn.Module]
    form: str
    told: str = ""


def require_mean(problem: Problem) -> None:
    """Check that fold models can answer together if the study file asks for it.

    Raises:
        SpecError: answers of this kind of task cannot be averaged.
    """
    if problem.spec.winner.form == ENSEMBLE and not problem.task.averages:
        raise SpecError(
            f'`form` in [winner] can be "ensemble" only if answers can be averaged, but those of {problem.task.kind} '
            'cannot; set it to "refit" or "average".'
        )


def served(
    problem: Problem, candidate: Candidate, record: TrialRecord | None, say: Callable[[str], None], *, wins: bool
) -> Served:
    """The form of a candidate to save: for the winner the one that the study asks for, else the refit.

    Where that form is not possible, it is the refit; and where every refit of the winner collapsed although its folds
    learnt, it is the models of these folds.

    Args:
        problem: the study's.
        candidate: what is trained.
        record: of its complete trial; None where there is none.
        say: prints a sentence.
        wins: whether it is the winner, not a reference model.

    Raises:
        CollapsedError: no form is possible.
        Exception: whatever the candidate's method raises.
    """
    form, note = problem.spec.winner.form if wins else REFIT, ""
    if form != REFIT:
        found = ensemble(problem, candidate) if form == ENSEMBLE else _average(problem, candidate)
        if isinstance(found, Served):
            return found
        note = f"{found}, so it was refitted"
        say(f"`form` in [winner] is {form}, but {note}.")
        release_memory()
    try:
        made = guarded_refit(problem, candidate, record, say)
        if not (wins and made.fault and made.faults):
            return Served(made.model, REFIT, "; ".join(filter(None, (note, made.told))))
        why = made.told
        del made
    except CollapsedError as error:
        if not wins:
            raise
        why = in_a_line(error).rstrip(".")
    release_memory()
    together = ensemble(problem, candidate)
    if not isinstance(together, Served):
        raise CollapsedError(f"{why}; and the models of its folds cannot be used: {together}.")
    told = f"{why}, so its fold models answer together"
    say(f"{candidate}: {told}.")
    return together._replace(told="; ".join(filter(None, (told, together.told))))


def ensemble(problem: Problem, candidate: Candidate) -> Served | str:
    """The models of the folds that learnt; or why they cannot answer together."""
    if not problem.task.averages:
        return f"answers of {problem.task.kind} cannot be averaged"
    checkpoint, every = kept_folds(problem, candidate), len(problem.folds)
    folds, why = checkpoint.learnt(every), ""
    weight = problem.cost_estimator(candidate).weights.saved_bytes * len(folds)
    if not folds:
        why = "all of them collapsed"
    elif weight > problem.budget.values.get(SAVED.name, weight):
        why = f"together they weigh {SAVED.write(weight)}, over {problem.budget.named(SAVED.name)}"
    if why:
        checkpoint.remove()
        return why
    lost = f"{every - len(folds)} of {every} folds collapsed, and their models are left out"
    return Served(_in_turn(problem, candidate, checkpoint, folds), ENSEMBLE, lost if len(folds) < every else "")


def _in_turn(
    problem: Problem, candidate: Candidate, checkpoint: Checkpoint, folds: Sequence[int]
) -> Iterator[nn.Module]:
    """The fold models; their checkpoint is removed afterwards."""
    try:
        yield from fold_models(problem, candidate, checkpoint, folds)
    finally:
        checkpoint.remove()


def _average(problem: Problem, candidate: Candidate) -> Served | str:
    checkpoint = kept_folds(problem, candidate)
    try:
        model, why = averaged(problem, candidate, checkpoint)
    finally:
        checkpoint.remove()
    return why if model is None else Served(model, AVERAGE)
