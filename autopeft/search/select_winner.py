"""What happens once the search is over: refit, save, score once on the rows held out, and set beside the baselines."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, NamedTuple

import torch

from autopeft.budget.memory_watch import release_memory
from autopeft.common.containment import by_host, guarded
from autopeft.common.exceptions import AutopeftError, ModelError, SpecError, StoreError, in_a_line
from autopeft.common.files import draft_folder, put, whole
from autopeft.reporting import writing_report
from autopeft.search.refit_guard import guarded_refit
from autopeft.study import predictions as held_out
from autopeft.study import report_section
from autopeft.study.card import CARD, Card
from autopeft.study.folder import PREDICTIONS, SECTIONS
from autopeft.study.journal import writing
from autopeft.study.predictions import HeldOut
from autopeft.study.record import TestScores
from autopeft.tasks.writing import Writing
from autopeft.training.learner import evaluate
from autopeft.winner import winner

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from torch import nn

    from autopeft.execution.problem import Problem
    from autopeft.methods.candidate import Candidate
    from autopeft.study.record import TrialRecord
    from autopeft.study.report_section import ReportSection
    from autopeft.tasks.contract import Task

BASE = "base model"
"""What the baseline of tasks that write is called."""


class CollapsedError(AutopeftError):
    """Every refit of a candidate collapsed, although its folds learnt."""


def select_winner(
    problem: Problem,
    best: Candidate,
    folder: Path,
    origin: str,
    left_out: Mapping[str, str],
    say: Callable[[str], None],
    found: Sequence[TrialRecord] = (),
) -> TestScores:
    """Refit and save the best candidate, load it back from disk, and score that, and the baselines, on the test rows.

    The score is of exactly what the folder holds, in float32. A new folder appears whole or not at all. From one that
    is there the files of an earlier winner go, its card first, and the new card comes last; other files stay. What each
    predicted is kept beside the folder in `PREDICTIONS`. Of the methods left out no default is scored. The trials that
    were `found` have what their folds told that answers need (`Task.calibrated`).

    Raises:
        StoreError: something could not be written; no fault of a method's.
        ModelError: the base model is not there any more, or is another; no fault of a method's either.
        CollapsedError: the best candidate's refits collapsed.
        Exception: whatever its method raises.
    """
    started, say = time.monotonic(), by_host(say)
    say(f"Refitting the winner on all {len(problem.rows.train)} training rows: {best}")
    with ExitStack() as stack:
        with writing(folder):
            draft = stack.enter_context(draft_folder(folder))
        with guarded(problem.spec.search.hang_timeout):
            first = _score(problem, best, draft / "winner", origin, found, say, wins=True)
        written: dict[str, list[str] | None] = {held_out.WINNER: first.written}
        texts = {f"winner: {best.method.name}": first}
        with writing(folder):
            for name in (PREDICTIONS, SECTIONS):
                (folder.parent / name).unlink(missing_ok=True)  # an earlier winner's
            put(draft / "winner", folder, winner.FILES, last=CARD)
        defaults, notes = dict[str, float | None](), first.note(held_out.WINNER)
        for name, part in problem.space.items():
            default, column = part.default(), held_out.DEFAULT + name
            defaults[name] = written[column] = None
            if default.flat == best.flat:
                defaults[name], written[column] = first.score, first.written
                continue
            if name in left_out:
                notes[name] = "left out of the search"
                continue
            tried = _default(problem, default, draft / name, origin, found, say)
            if isinstance(tried, str):
                notes[name] = tried
            else:
                defaults[name], written[column] = tried.score, tried.written
                notes |= tried.note(name)
                texts[f"untuned {name}"] = tried
        name, least = _baseline(problem)
        written[held_out.column_of(name)] = least.written
        _keep(problem, written, folder.parent / PREDICTIONS)
        _show(problem, first, {**texts, name: least}, folder.parent / SECTIONS, say)
    return TestScores(
        first.score, least.score, defaults, notes, round(time.monotonic() - started, 3), baseline_name=name
    )


class _Made(NamedTuple):
    """What was answered to the test rows, by a task that knows what its folds told, and the score of that.

    Of a task that writes also what was written for the first of them. Where trainings collapsed that is told.
    """

    score: float
    answers: np.ndarray
    task: Task
    written: list[str]
    texts: np.ndarray | None = None
    told: str = ""

    def note(self, name: str) -> dict[str, str]:
        """What is told of its training, by that name."""
        return {name: self.told} if self.told else {}


def _default(
    problem: Problem,
    default: Candidate,
    folder: Path,
    origin: str,
    found: Sequence[TrialRecord],
    say: Callable[[str], None],
) -> _Made | str:
    """A method's untuned default, or why it has no score: one that fails must not cost the winner."""
    try:
        with guarded(problem.spec.search.hang_timeout):
            if reason := problem.budget.reason(problem.cost_estimator(default)):
                return f"its default {reason}"
            say(f"Scoring the untuned default of {default.method.name} on the test rows")
            return _score(problem, default, folder, origin, found, say)
    except (
        StoreError,
        ModelError,
        SpecError,
    ):  # the disk, the base model and a metric of the user's are no method's fault
        raise
    except Exception as error:
        return f"its default failed: {in_a_line(error)}"


def _made(problem: Problem, task: Task, answers: np.ndarray, texts: np.ndarray | None = None) -> _Made:
    score = task.score(problem.metric, problem.test.truths, answers)
    told = task.written(task.worded(answers, problem.rows.test), problem.rows.labels)
    return _Made(score, answers, task, told, texts)


def _texts(problem: Problem, model: nn.Module) -> np.ndarray | None:
    """What a model writes for the first held-out rows; None where the task does not write."""
    task = problem.task
    if not isinstance(task, Writing) or not task.options.written_rows:
        return None
    return task.write(model, problem.rows.test[: task.options.written_rows], problem.reader)


def _baseline(problem: Problem) -> tuple[str, _Made]:
    """What looks at no input, or the base model as it was pretrained where the task writes; and its name."""
    if problem.task.writes:
        base = problem.base.copy().to(problem.device.type).eval()
        (answers,) = evaluate(base, problem.test, [problem.test.everything], problem.task, problem.device)
        with problem.device.kernels(), problem.device.precision():
            return BASE, _made(problem, problem.task, answers, _texts(problem, base))
    name, answers = problem.task.baseline(problem.train.truths, problem.test.truths, problem.rows.labels)
    return name, _made(problem, problem.task, answers)


def _score(
    problem: Problem,
    candidate: Candidate,
    folder: Path,
    origin: str,
    found: Sequence[TrialRecord],
    say: Callable[[str], None] = lambda _: None,
    *,
    wins: bool = False,
) -> _Made:
    """Refit, save to `folder`, load from there, and score on the test rows.

    A default whose trial did not complete does without what folds tell.

    Raises:
        CollapsedError: every refit of what `wins` collapsed, although its folds learnt.
    """
    record = next((record for record in found if record.complete and record.params == candidate.flat), None)
    task = problem.task.knowing({**problem.task.facts, **(record.facts if record else {})}, problem.rows.labels)
    made = guarded_refit(problem, candidate, record, say)
    if wins and made.fault and made.faults:
        raise CollapsedError(f"{made.told}.")
    spec = problem.spec
    card = Card(
        base_model=problem.base_model,
        task=problem.task.kind,
        labels=problem.rows.labels,
        **problem.reader.settings,
        method=candidate.method.name,
        params=dict(candidate.params),
        plugin=origin,
        seed=spec.seed,
        trust_remote_code=spec.model.trust_remote_code,
        quantization=spec.model.quantization,
        base_digest=problem.base_digest,
        task_options=dict(spec.task.options),
        task_facts=dict(task.facts),
        inputs=problem.task.inputs,
    )
    winner.save(made.model, candidate.method, problem.reader, card, folder)
    told = made.told
    del made  # its memory is needed
    release_memory()
    return _made(problem, task, *_predict(problem, folder))._replace(told=told)


def _predict(problem: Problem, folder: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """What a saved model predicts of the test rows: on the study's device, or on the CPU where it has no room."""

    def predicted(device: str) -> tuple[np.ndarray, np.ndarray | None]:
        loaded = winner.load(folder, device, trust_remote_code=problem.spec.model.trust_remote_code)
        return loaded.answers(problem.rows.test), _texts(problem, loaded.module)

    with problem.off_the_card():
        with suppress(torch.OutOfMemoryError):  # in float32 it may take more than a step of training did
            return predicted(problem.device.type)
        release_memory()
        return predicted("cpu")


def _keep(problem: Problem, written: Mapping[str, list[str] | None], path: Path) -> None:
    """Write what each predictor answered to each row."""
    answers = {name: made for name, made in written.items() if made is not None}
    truths = problem.task.written_truths(problem.test.truths, problem.rows.labels)
    rows = [str(row) for row in problem.rows.test.index]
    with writing(path), whole(path, lasting=True) as draft:
        HeldOut(rows, truths, answers).write(draft)


def _show(problem: Problem, made: _Made, texts: Mapping[str, _Made], path: Path, say: Callable[[str], None]) -> None:
    """Keep what is shown of the held-out rows for the report; one that cannot be made costs nothing else."""
    try:
        sections = _sections(problem, made, texts)
    except Exception as error:  # of a kind of task that a plugin brings, or of a score; the winner is saved by now
        say(f"What the report shows of the held-out rows could not be made: {in_a_line(error)}")
        return
    if sections:
        with writing(path), whole(path, lasting=True) as draft:
            report_section.write(sections, draft)


def _sections(problem: Problem, made: _Made, texts: Mapping[str, _Made]) -> Sequence[ReportSection]:
    """What the task shows of the held-out rows, and of `texts` that were written for them, where there is any."""
    rows = problem.rows
    sections = made.task.sections(rows.test, problem.test.truths, made.answers, rows.labels)
    if isinstance(made.task, Writing) and made.texts is not None:
        few = slice(len(made.texts))
        sections = sections + writing_report.sections(
            made.task.asked(rows.test[few]),
            list(problem.test.truths[few]),
            {name: list(one.texts) for name, one in texts.items() if one.texts is not None},
            {name: one.score for name, one in texts.items()},
            problem.metric,
            {name: made.task.text_score(name) for name in made.task.options.scores},
            made.task.untrained(rows.test[few]),
            made.task.options.choose_by,
        )
    return sections
