"""Which of the best candidates wins, by what their fold models write for their validation rows.

During the search nothing is written, since writing takes a pass of the model for each token. So the score of the search
only decides which few candidates write at its end. Held-out rows have no part in it.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from autopeft.budget.memory_watch import release_memory
from autopeft.common.containment import guarded, unguarded
from autopeft.common.exceptions import (
    MachineError,
    ModelError,
    SpecError,
    StoreError,
    StreamError,
    in_a_line,
)
from autopeft.common.seeds import WRITTEN_ROWS_STREAM, derive_seed
from autopeft.search import retrying
from autopeft.search.fold_models import fold_models, kept_folds
from autopeft.study.choice import CHOICE, Choice
from autopeft.study.record import by_score, records
from autopeft.study.states import STOPPED
from autopeft.tasks.writing import Writing
from autopeft.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    import optuna

    from autopeft.common.params import Params
    from autopeft.execution.problem import Problem
    from autopeft.methods.candidate import Candidate
    from autopeft.study.record import TrialRecord


def choice_of(problem: Problem, study: optuna.Study) -> Choice | None:
    """How the study chooses, with the scores known so far; None where the score of the search decides."""
    fresh = asked(problem)
    earlier = Choice.read(study.user_attrs) if fresh else None  # each access copies all of them
    return replace(earlier, among=fresh.among) if fresh and earlier and fresh.alike(earlier) else fresh


def asked(problem: Problem) -> Choice | None:
    """How the study file asks to choose, with no scores yet."""
    task = problem.task
    if not isinstance(task, Writing) or task.options.choose_by is None:
        return None
    by, rows = task.options.choose_by, min(task.options.written_rows, len(problem.rows.train))
    digest = task.own_scores[by].digest if by in task.own_scores else ""
    return Choice(by, task.options.choose_among, rows, digest)


def told(problem: Problem) -> list[str]:
    """Sentences for the user before the search: what the choice costs."""
    choice = asked(problem)
    if choice is None:
        return []
    return [
        f"At the end of the search the {choice.among} candidates with the best {problem.metric} each write texts for "
        f"{choice.rows} validation rows, and the one with the best {choice.by} wins. Their fold models are kept on "
        "disk until then."
    ]


def awaited(problem: Problem, study: optuna.Study) -> list[Params]:
    """The params of the trials that will write; what their folds learnt is kept."""
    choice = choice_of(problem, study)
    if choice is None:
        return []
    return [record.params for record in choice.awaited(by_score(records(study)))]


def tidy(problem: Problem, study: optuna.Study, ended: TrialRecord, running: Collection[Params]) -> None:
    """Remove what folds learnt and nobody needs any more: of the trial that ended, and of those that were overtaken.

    What a later start continues, or what will write, stays.

    Args:
        problem: the study's.
        study: has the record of the trial that `ended`.
        ended: the record of that trial.
        running: the params of those that still run.
    """
    choice, found = choice_of(problem, study), [ended]
    kept = [*running, *([ended.params] if ended.state == STOPPED else [])]
    if choice:
        every = records(study)
        found += [record for record in every if record.complete]
        kept += [record.params for record in choice.awaited(by_score(every))]
    for params in [record.params for record in found if record.params not in kept]:
        Checkpoint.of(problem.spec.output, params).remove()


def choose(problem: Problem, study: optuna.Study, say: Callable[[str], None], check: Callable[[], None]) -> None:
    """Have the best candidates write, and keep the scores of their texts, which `records` then include.

    Each score is kept as soon as it is known, so an interrupted choice goes on with the next candidate. The next best
    takes the place of a candidate that cannot write.

    Args:
        problem: the study's.
        study: whose search is over.
        say: prints a sentence.
        check: called before each candidate; raises what a signal raised.

    Raises:
        SpecError: a score of the user's own fails.
        StoreError: something could not be kept.
        MachineError: the machine failed; the next start goes on.
    """
    choice = choice_of(problem, study)
    if choice is None:
        return
    while waiting := choice.awaited(best := by_score(records(study))):
        if len(choice.best(best)) == 1:  # there is nothing to choose
            break
        check()
        began = time.monotonic()
        record, candidate = waiting[0], problem.space.parse(waiting[0].params)
        say(f"Trial {record.number} ({candidate}) writes texts for {choice.rows} validation rows")
        try:
            found = written_score(problem, candidate)
        except (StoreError, MachineError, StreamError, ModelError, SpecError):  # disk, machine, output,
            raise  # base model or user's score: not a method's fault
        except Exception as error:  # a method may do anything
            reason = in_a_line(error)
            say(f"Trial {record.number} cannot win, because its folds failed to write: {reason}")
            choice = replace(choice, failed={**choice.failed, record.number: reason})
        else:
            choice = replace(choice, scores={**choice.scores, record.number: found})
        choice = replace(choice, seconds=round(choice.seconds + time.monotonic() - began, 3))
        study.set_user_attr(CHOICE, choice.kept())
    Checkpoint.clear(problem.spec.output, retrying.to_come(study))


@unguarded()
def written_score(problem: Problem, candidate: Candidate) -> float:
    """The score of what the fold models write, over all rows together; each writes for rows that it validates.

    Where what a fold learnt was removed, as when more trials are added to a search, the trial runs once more.

    Raises:
        StudyError: the trial does not complete this time.
        Exception: whatever the candidate's method raises.
    """
    problem = problem.at_hand(candidate)
    task = problem.task
    assert isinstance(task, Writing)
    checkpoint = kept_folds(problem, candidate)
    rows = written_rows(problem)
    try:
        with guarded(problem.spec.search.hang_timeout):
            texts = _texts(problem, task, candidate, checkpoint, rows)
    finally:
        release_memory()
    truths = problem.train.truths[np.concatenate(rows)]
    return task.text_score(task.options.choose_by).of(texts, [[truth] for truth in truths])


def _texts(
    problem: Problem, task: Writing, candidate: Candidate, checkpoint: Checkpoint, rows: list[np.ndarray]
) -> list[str]:
    """What the model of each fold writes for its `rows`, one fold after the other."""
    texts: list[str] = []
    for model, few in zip(fold_models(problem, candidate, checkpoint, range(len(rows))), rows, strict=True):
        with problem.device.kernels(), problem.device.precision():
            texts += [*task.write(model, problem.rows.train.iloc[few], problem.reader)] if len(few) else []
    return texts


def written_rows(problem: Problem) -> list[np.ndarray]:
    """For each fold, positions of the training rows that it validates and writes for; `written_rows` over all folds.

    The draw is the same for all candidates.
    """
    found = [problem.train.rows_of(fold.validation) for fold in problem.folds]
    fold_of = np.repeat(np.arange(len(found)), [*map(len, found)])
    generator = np.random.default_rng(derive_seed(problem.spec.seed, WRITTEN_ROWS_STREAM))
    drawn = np.sort(generator.permutation(len(fold_of))[: problem.task.options.written_rows])
    every = np.concatenate(found)
    return [every[drawn[fold_of[drawn] == fold]] for fold in range(len(found))]
