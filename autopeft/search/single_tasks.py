"""The single-task default of each of several tasks: trained first, so that a study's score is the gain over them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from autopeft.common.containment import guarded, unguarded
from autopeft.common.exceptions import BudgetError, StudyError
from autopeft.execution.run_trial import run_trial
from autopeft.search.start import fixed_defaults
from autopeft.search.trial import record_of
from autopeft.study.phase import SEARCHING
from autopeft.study.record import TrialRecord, plain
from autopeft.study.states import STOPPED, TIMED_OUT
from autopeft.study.task_scores import SINGLES
from autopeft.tasks.several import SeveralTasks
from autopeft.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    import optuna

    from autopeft.execution.problem import Problem
    from autopeft.methods.candidate import Candidate
    from autopeft.search.announcer import Announcer


class AloneError(StudyError):
    """A task cannot be trained alone, with which the score of the study is compared; no method's fault."""


USUAL = "lora"
"""The method whose default is trained where nothing says which fixed default is best."""


def train(
    problem: Problem,
    study: optuna.Study,
    announcer: Announcer,
    check: Callable[[], None],
    late: Callable[[], bool] = lambda: False,
) -> None:
    """Train each task's single-task default on the folds of the study, if it was not trained before.

    Args:
        problem: the study's; nothing is done unless it has several tasks.
        study: keeps the records.
        announcer: says what is done.
        check: called at each rung; raises what a signal raised.
        late: whether the search's time is up; asked at each rung.

    Raises:
        StudyError: one fails, or the time is up; the next start goes on from the last rung.
        BudgetError: no default of a task is within the budget.
        MachineError: the machine failed; the next start goes on.
    """
    if not isinstance(problem.task, SeveralTasks):
        return
    for name, part in problem.parts.items():
        if name not in study.user_attrs.get(SINGLES, {}):
            record = _trained(name, part, announcer, check, late)
            study.set_user_attr(SINGLES, {**study.user_attrs.get(SINGLES, {}), name: plain(record)})
    for name, record in singles(study.user_attrs).items():
        if record.score is not None:
            problem.task.references[name] = record.score
    with suppress(OSError):  # it is empty, or never was
        next(iter(problem.parts.values())).spec.output.parent.rmdir()


def singles(attrs: Mapping[str, Any]) -> dict[str, TrialRecord]:
    """The record of each task's single-task default that is trained, by the task's name."""
    return {name: TrialRecord.read(content) for name, content in attrs.get(SINGLES, {}).items()}


@unguarded()
def default_of(part: Problem) -> Candidate:
    """A task's single-task default: the best fixed default on recorded tasks, or else LoRA's, within the budget.

    Raises:
        BudgetError: none is within the budget.
    """
    spaces = part.space.methods
    usual = [USUAL] if USUAL in spaces else []
    found = [
        *fixed_defaults(part.spec, part.space, len(part.rows.train)),
        *(spaces[name].default() for name in dict.fromkeys([*usual, *spaces])),
    ]
    with guarded(part.spec.search.hang_timeout):
        for candidate in found:
            if part.budget.admits(part.cost_estimator(candidate)):
                return candidate
        reason = part.budget.reason(part.cost_estimator(found[0]))
    raise BudgetError(
        f"no method's default is within the budget for one task alone, with which the score is compared: {found[0]} "
        f"{reason}. Raise this limit in [budget]."
    )


def _trained(
    name: str, part: Problem, announcer: Announcer, check: Callable[[], None], late: Callable[[], bool]
) -> TrialRecord:
    candidate = default_of(part)
    announcer.enter(
        SEARCHING, f"{name} alone", f'The task "{name}" alone, with the untuned default of {candidate.name}'
    )
    usage, checkpoint = part.cost_estimator(candidate), Checkpoint.of(part.spec.output, candidate.flat)

    def at_rung(_: object) -> str | None:
        check()
        return TIMED_OUT if late() else None

    outcome = run_trial(part, candidate, at_rung, checkpoint)
    if outcome.state == STOPPED:
        raise StudyError(
            f'{outcome.reason} while the task "{name}" was trained alone, with which the score is compared. Run the '
            "same command again to go on, or raise `timeout` in [search]."
        )
    changed = part.weight_check.restore()
    record = record_of(0, str(candidate), candidate.flat, candidate.hyper.epochs, usage, outcome)
    if not record.complete or changed:
        why = f"it changed weights of the base model: {changed[0]}" if changed else outcome.why
        raise StudyError(
            f'the task "{name}" could not be trained alone by the default of {candidate.name}: {why}. Its score is '
            "what the others are compared with, so fix this, or leave that method out with `exclude` in [search]."
        )
    told = f", but {record.reason}" if record.reason else ""
    announcer.say(f"{name} alone: {part.metric} {record.score:.4f}{told}")
    Checkpoint.clear(part.spec.output)
    with suppress(OSError):
        part.spec.output.rmdir()
    return record
