"""The fold models of a trial: from its checkpoint, or trained once more where that is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopeft.common.containment import unguarded
from autopeft.common.exceptions import StudyError
from autopeft.execution.run_trial import run_trial
from autopeft.models.attach import attach
from autopeft.study.states import COMPLETE
from autopeft.training.checkpoint import Checkpoint
from autopeft.training.learner import Learner

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import nn

    from autopeft.execution.problem import Problem
    from autopeft.methods.candidate import Candidate


@unguarded()
def kept_folds(problem: Problem, candidate: Candidate) -> Checkpoint:
    """The checkpoint of a trial whose folds are fully trained; where there is none, the trial runs once more.

    Raises:
        StudyError: the trial does not complete this time.
        StoreError: what its folds learnt could not be written.
        MachineError: the machine failed.
    """
    checkpoint = Checkpoint.of(problem.spec.output, candidate.flat)
    if checkpoint.rungs(len(problem.folds)) < len(problem.rung_ends(candidate.hyper.epochs)):
        outcome = run_trial(problem, candidate, lambda rung: None, checkpoint)
        if outcome.state != COMPLETE:
            raise StudyError(
                f"its folds were trained once more, and the second time they did not complete: {outcome.reason}"
            )
    return checkpoint


def fold_models(
    problem: Problem, candidate: Candidate, checkpoint: Checkpoint, folds: Iterable[int]
) -> Iterator[nn.Module]:
    """The model of each of these folds, in evaluation mode: one after another, in one module whose values change."""
    model = attach(problem.base, candidate.method, candidate.params, seed=problem.spec.seed).to(problem.device.type)
    callback = candidate.method.callback(model, candidate.params, problem.base.spec)
    learner = Learner(model, candidate.hyper, len(problem.train), callback=callback, device=problem.device)
    for fold in folds:
        checkpoint.restore([fold], learner)
        learner.take_turn()
        yield model.eval()
