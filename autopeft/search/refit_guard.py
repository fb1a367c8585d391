"""Whether a refit learnt as its folds did: one that collapsed is run again, on rows in another order.

Held-out rows have no part in it. Training collapses because of the optimisation, not because of the rows (Mosbach et
al. 2021, arXiv:2006.04884), so with another order it mostly does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from autopeft.budget.memory_watch import release_memory
from autopeft.common.exceptions import AutopeftError, in_a_line
from autopeft.common.seeds import REFIT_ROWS_STREAM, derive_seed
from autopeft.search.refit import train_whole
from autopeft.tasks.collapse_signs import CollapseSigns
from autopeft.training.learner import EVALUATION_BATCH_SIZE, DivergedError, evaluate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from autopeft.execution.problem import Problem
    from autopeft.methods.candidate import Candidate
    from autopeft.search.refit import Refit
    from autopeft.study.record import TrialRecord

BAND = 0.25
"""How far a refit's loss may end above those of its folds, as a share of the loss of the best answer that looks at no
input. A refit trains on more rows than its folds, each as often, so it ends near them or below."""

MOST_RUNS = 3
"""A candidate is refitted at most this many times."""

MOST_ROWS = 500
"""Number of training rows that a refit answers, to see whether it answers all alike."""


class CollapsedError(AutopeftError):
    """Every refit of a candidate collapsed."""


class GuardedRefit(NamedTuple):
    """A refit, after others that collapsed.

    Attributes:
        model: of the last one.
        faults: what was wrong with the refits before it, in words.
        fault: what is wrong with it; "" where nothing is, or nothing is known.
    """

    model: nn.Module
    faults: tuple[str, ...] = ()
    fault: str = ""

    @property
    def told(self) -> str:
        """The faults as the end of a sentence about the model; "" where nothing was wrong."""
        return _told(self.faults, self.fault)


def guarded_refit(
    problem: Problem, candidate: Candidate, record: TrialRecord | None, say: Callable[[str], None]
) -> GuardedRefit:
    """Refit a candidate, at most `MOST_RUNS` times, until it has not collapsed.

    If all its folds had collapsed, it is refitted once: it does as they did.

    Args:
        problem: the study's.
        candidate: what is trained.
        record: of its complete trial; None where there is none.
        say: prints a sentence for each refit that collapsed.

    Raises:
        MemoryError: as `train_whole`.
        CollapsedError: the last refit's loss is no longer finite, so there is no model.
    """
    losses = record.fold_losses if record else ()
    runs = 1 if record and record.collapsed == len(record.fold_scores) else MOST_RUNS
    faults: list[str] = []
    for run in range(runs):
        last = run == runs - 1
        try:
            made = train_whole(problem, candidate, run)
            fault = fault_of(problem, candidate, made, losses)
            if last or not fault:
                return GuardedRefit(made.model, tuple(faults), fault)
            del made
        except DivergedError as error:
            fault = in_a_line(error).rstrip(".")
            if last:
                raise CollapsedError(f"{_told(faults, fault)}.") from error
        faults.append(fault)
        say(f"The refit of {candidate} collapsed: {fault}. It is trained again with another seed.")
        release_memory()
    raise AssertionError("it has run at least once")


def _told(faults: Sequence[str], fault: str) -> str:
    again = len(faults)
    if fault:
        return "the refit collapsed" + f", {again + 1} times" * bool(again) + f": {fault}"
    first = "the first refit" if again == 1 else f"the first {again} refits"
    return f"{first} collapsed ({faults[-1]}), so it was trained again with another seed" if faults else ""


def fault_of(problem: Problem, candidate: Candidate, made: Refit, losses: tuple[float, ...] = ()) -> str:
    """The sign that a refit collapsed, in words; "" where there is none.

    Args:
        problem: the study's.
        candidate: what was trained.
        made: the refit.
        losses: the last training losses of its folds that learnt; empty where they are not known.
    """
    task, data = problem.setup(candidate).task, problem.train
    blind = task.blind_loss(data.truths)
    if blind and losses and made.loss > max(losses) + BAND * blind:
        return f"its training loss ended at {made.loss:.4g}, and those of the folds at {max(losses):.4g} or below"
    if type(task).one_answer is CollapseSigns.one_answer:
        return ""
    generator = np.random.default_rng(derive_seed(problem.spec.seed, REFIT_ROWS_STREAM))
    rows = np.sort(generator.permutation(len(data.truths))[:MOST_ROWS])
    most = min(made.execution.micro_batch, EVALUATION_BATCH_SIZE)
    (answers,) = evaluate(made.model, data, [data.samples_of(rows)], task, problem.device, most)
    return "it answers nearly all rows alike" if task.one_answer(answers, data.truths[rows]) else ""
