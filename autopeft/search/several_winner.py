"""The winner of a study of several tasks: one refit, saved as a winner of each task and scored on its held-out rows."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING

from autopeft.budget.memory_watch import release_memory
from autopeft.common.containment import guarded
from autopeft.common.exceptions import ModelError, SpecError, StoreError, in_a_line
from autopeft.common.files import draft_folder, put, whole
from autopeft.common.units import counted
from autopeft.methods.sharing import SharingMethod, own
from autopeft.models.attach import attach, trainable
from autopeft.models.model_of_tasks import ModelOfTasks
from autopeft.reporting import tasks_view
from autopeft.reporting.short_name import short_name
from autopeft.search.announcer import refit_seconds
from autopeft.search.refit_guard import guarded_refit
from autopeft.search.select_winner import baseline, card_of, keep_answers, saved_score, score_default
from autopeft.search.single_tasks import AloneError, singles
from autopeft.search.story import source_of, test_interval
from autopeft.study import predictions as held_out
from autopeft.study import report_section
from autopeft.study.card import Card, Evidence
from autopeft.study.folder import PREDICTIONS, SECTIONS, TASKS, WINNER
from autopeft.study.journal import writing
from autopeft.study.phase import REFITTING, SCORING
from autopeft.study.raced import ruling_on
from autopeft.study.record import STOPPED_EARLY, TestScores, records
from autopeft.study.states import COUNTED
from autopeft.study.task_scores import TaskScore, alone_key, facts_in, scores_in
from autopeft.winner import winner

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import optuna

    from autopeft.execution.problem import Problem
    from autopeft.methods.candidate import Candidate
    from autopeft.search.announcer import Announcer
    from autopeft.search.scored import Scored
    from autopeft.study.record import TrialRecord

ALONE = "single-task defaults"
"""What a study of several tasks is compared with; its gain is 0 by definition."""


def select_winner(
    problem: Problem,
    best: Candidate,
    folder: Path,
    origins: Mapping[str, str],
    left_out: Mapping[str, str],
    announcer: Announcer,
    study: optuna.Study,
) -> TestScores:
    """Refit the best candidate on the rows of all tasks, save a winner for each task, and score everything.

    The score is the gain on the held-out rows: the mean over the tasks of the winner's score, as it is loaded from its
    folder, less that of the single-task default, refitted on the task's own rows. The other models are each method's
    untuned default on all tasks, except of methods that were `left_out`.

    Raises:
        AloneError: a single-task default cannot be trained again.
        Exception: as `select_winner.select_winner`.
    """
    started, found, alone = time.monotonic(), records(study), singles(study.user_attrs)
    record = next(one for one in found if one.complete and one.params == best.flat)
    rows, name = (
        counted(len(problem.rows.train), "training row"),
        short_name(best.flat, str(best), problem.space.defaults),
    )
    sentence = f"Refitting the winner on all {rows}: {name}"
    announcer.enter(REFITTING, "the winner", sentence, refit_seconds(problem, best, found))
    with ExitStack() as stack:
        with writing(folder):
            draft = stack.enter_context(draft_folder(folder))
        with guarded(problem.spec.search.hang_timeout):
            made = _refitted(problem, best, record, draft / "winner", origins[best.method.name], announcer)
        single = {
            name: _single(part, name, draft / f"alone_{name}", origins, alone[name], announcer)
            for name, part in problem.parts.items()
        }
        with writing(folder):
            (draft / "winner" / TASKS).write_text(json.dumps({"tasks": [*problem.parts]}) + "\n", encoding="utf-8")
            (folder.parent / SECTIONS).unlink(missing_ok=True)  # an earlier winner's
            put(draft / "winner", folder, {f"{name}/{file}" for name in made for file in winner.FILES}, last=TASKS)
        untuned: dict[str, dict[str, Scored] | str] = {
            name: made for name, part in problem.space.items() if part.default().flat == best.flat
        }
        by_default = untuned | {
            name: _default(problem, part.default(), draft / f"default_{name}", origins[name], found, announcer)
            for name, part in problem.space.items()
            if name not in untuned and name not in left_out
        }
    answers = {name: by_default.get(name, "left out of the search") for name in problem.space}
    of_alone = {alone_key(name): one.told for name, one in single.items() if one.told}
    for key, told in of_alone.items():
        announcer.say(f"{key}: {told}")
    notes = _notes({held_out.WINNER: made, **answers}) | of_alone
    defaults = {name: None if isinstance(one, str) else _gain(one, single) for name, one in answers.items()}
    tasks = _kept(problem, made, single, scores_in(record.facts), alone, notes)
    seconds = round(time.monotonic() - started, 3)
    return TestScores(_gain(made, single), 0.0, defaults, notes, seconds, ALONE, tasks=tasks)


def _notes(found: Mapping[str, Mapping[str, Scored] | str]) -> dict[str, str]:
    """What is to be said of models on all tasks: of their training, or why there is none."""
    told = {name: one if isinstance(one, str) else next(iter(one.values())).told for name, one in found.items()}
    return {name: note for name, note in told.items() if note}


def _kept(
    problem: Problem,
    made: Mapping[str, Scored],
    single: Mapping[str, Scored],
    folds: Mapping[str, tuple[float, ...]],
    alone: Mapping[str, TrialRecord],
    notes: Mapping[str, str],
) -> dict[str, TaskScore]:
    """The scores of each task; its answers, and the report's section on all of them, are written beside the winner."""
    tasks, output = dict[str, TaskScore](), problem.spec.output
    for name, part in problem.parts.items():
        least_name, least = baseline(part)
        tasks[name] = TaskScore(
            kind=part.task.kind,
            metric=part.metric,
            score=made[name].score,
            single=single[name].score,
            single_name=alone[name].method,
            baseline=least.score,
            baseline_name=least_name,
            folds=folds[name],
            single_folds=alone[name].fold_scores,
        )
        written = {
            held_out.WINNER: made[name].written,
            "single_task_default": single[name].written,
            held_out.column_of(least_name): least.written,
        }
        keep_answers(part, written, predictions_of(output, name))
    with writing(output), whole(output / SECTIONS, lasting=True) as draft:
        report_section.write([tasks_view.held_out(tasks, notes)], draft)
    return tasks


def describe(problem: Problem, study: optuna.Study, best: TrialRecord, test: TestScores) -> None:
    """Write what is known about each task's winner beside it, for programs and, as a README, for people."""
    spec, folder = problem.spec, problem.spec.output
    candidate = problem.space.parse(best.params)
    budget = {name: limit for name, limit in spec.budget.model_dump().items() if limit is not None}
    for name, task in test.tasks.items():
        part = problem.parts[name]
        evidence = Evidence(
            study=spec.name,
            data=source_of(part.spec.data.train, part),
            train_rows=len(part.rows.train),
            test_rows=len(part.rows.test),
            dropped_rows=part.rows.dropped,
            metric=task.metric,
            fold_scores=task.folds,
            test_score=task.score,
            test_interval=test_interval(part.task.metrics[task.metric], predictions_of(folder, name)),
            baseline=task.baseline,
            baseline_name=task.baseline_name,
            defaults={f"{task.single_name} on this task alone": task.single},
            trials=sum(record.state in COUNTED for record in records(study)),
            budget=budget,
            hyperparameters={key: value for key, value in candidate.dimensions.items()
                             if key not in own(candidate.params)},
            trained_params=_trained_params(part, candidate),
            stopped=study.user_attrs[STOPPED_EARLY],
            refit=test.notes.get(held_out.WINNER, ""),
            race=ruling.sentence if (ruling := ruling_on(study.user_attrs, best)) else "",
        )  # fmt: skip
        winner.describe(folder / WINNER / name, Card.read(folder / WINNER / name), evidence)


def _trained_params(part: Problem, candidate: Candidate) -> int:
    """How many parameters are trained of the model that answers for a task; an add-on may be shared with others."""
    assert isinstance(candidate.method, SharingMethod)
    model = attach(part.base, candidate.method.inner, own(candidate.params), meta=True)
    return sum(parameter.numel() for parameter in trainable(model).values())


def predictions_of(output: Path, task: str) -> Path:
    """The file with the answers to a task's held-out rows."""
    path = output / PREDICTIONS
    return path.with_name(f"{path.stem}_{task}{path.suffix}")


def _refitted(
    problem: Problem,
    candidate: Candidate,
    record: TrialRecord | None,
    folder: Path,
    origin: str,
    announcer: Announcer,
) -> dict[str, Scored]:
    """Train on the rows of all tasks, save each task's model, and score it."""
    refitted = guarded_refit(problem, candidate, record, announcer.say)
    model, told = refitted.model, refitted.told
    assert isinstance(model, ModelOfTasks)
    assert isinstance(candidate.method, SharingMethod)
    alone = replace(candidate, method=candidate.method.inner, params=own(candidate.params))
    tasks = {}
    for name, part in problem.parts.items():
        known = facts_in(record.facts, name) if record else {}
        tasks[name] = part.task.knowing({**part.task.facts, **known}, part.rows.labels)
        card = card_of(part, alone, tasks[name], origin)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        winner.save(model.of(name), alone.method, part.reader, card, folder / name)
    del refitted, model  # their memory is needed
    release_memory()
    announcer.enter(SCORING, str(candidate))
    return {
        name: saved_score(part, tasks[name], folder / name)._replace(told=told) for name, part in problem.parts.items()
    }


def _single(
    part: Problem, name: str, folder: Path, origins: Mapping[str, str], record: TrialRecord, announcer: Announcer
) -> Scored:
    """The single-task default of a task on its held-out rows."""
    candidate = part.space.parse(record.params)
    made = score_default(part, candidate, folder, origins[candidate.method.name], [record], announcer)
    if isinstance(made, str):
        raise AloneError(
            f'the task "{name}" could not be trained alone again, with which the winner is compared: {made}. Run the '
            "same command again to try once more."
        )
    return made


def _default(
    problem: Problem,
    default: Candidate,
    folder: Path,
    origin: str,
    found: list[TrialRecord],
    announcer: Announcer,
) -> dict[str, Scored] | str:
    """A method's untuned default on all tasks, or why it has no score: one that fails must not cost the winner."""
    record = next((one for one in found if one.complete and one.params == default.flat), None)
    try:
        with guarded(problem.spec.search.hang_timeout):
            if reason := problem.budget.reason(problem.cost_estimator(default)):
                return f"its default {reason}"
            return _refitted(problem, default, record, folder, origin, announcer)
    except (StoreError, ModelError, SpecError):  # not a method's fault
        raise
    except Exception as error:
        return f"its default failed: {in_a_line(error)}"


def _gain(made: Mapping[str, Scored], single: Mapping[str, Scored]) -> float:
    return fmean(made[name].score - single[name].score for name in single)
