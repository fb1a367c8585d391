"""What happens once the search is over: refit, save, score once on the held-out rows, and compare with baselines."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from autopeft.budget.memory_watch import release_memory
from autopeft.budget.time_watch import OverTimeError
from autopeft.common.containment import guarded
from autopeft.common.exceptions import ModelError, SpecError, StoreError, in_a_line
from autopeft.common.files import draft_folder, put, whole
from autopeft.common.units import counted
from autopeft.data.load import table_columns
from autopeft.reporting import writing_report
from autopeft.reporting.short_name import short_name
from autopeft.search import layer_drop, method_sections, references
from autopeft.search.announcer import refit_seconds
from autopeft.search.layer_drop import LayerDrop
from autopeft.search.refit import train_whole
from autopeft.search.scored import Scored, scored, scored_here, texts_of
from autopeft.search.served import REFIT, served
from autopeft.study import predictions as held_out
from autopeft.study import report_section
from autopeft.study.card import CARD, Card
from autopeft.study.folder import PREDICTIONS, SECTIONS
from autopeft.study.journal import writing
from autopeft.study.phase import REFITTING, SCORING
from autopeft.study.predictions import HeldOut
from autopeft.study.record import TestScores
from autopeft.study.report_section import ReportSection
from autopeft.tasks.writing import Writing
from autopeft.winner import winner

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from autopeft.execution.problem import Problem
    from autopeft.methods.candidate import Candidate
    from autopeft.search.announcer import Announcer
    from autopeft.study.record import TrialRecord
    from autopeft.tasks.contract import Task


@dataclass
class Table:
    """Collects answers to the held-out rows: by column (`written`), by shown name (`texts`), and notes by name."""

    written: dict[str, list[str] | None] = field(default_factory=dict)
    texts: dict[str, Scored] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def add(self, column: str, name: str, shown: str, made: Scored | str) -> float | None:
        """Add a model's answers, or why there are none; returns the score."""
        if isinstance(made, str):
            self.written[column], self.notes[name] = None, made
            return None
        self.written[column], self.texts[shown] = made.written, made
        self.notes |= made.note(name)
        return made.score


def select_winner(
    problem: Problem,
    best: Candidate,
    folder: Path,
    origin: str,
    left_out: Mapping[str, str],
    announcer: Announcer,
    found: Sequence[TrialRecord] = (),
    late: Callable[[], bool] = lambda: False,
) -> TestScores:
    """Refit and save the best candidate, load it back from disk, and score it and the baselines on the test rows.

    The score is that of exactly what the folder holds, in float32. A new folder appears whole or not at all. In an
    existing one an earlier winner's card is removed first, and the new card is written last; other files stay.
    Predictions are kept beside the folder in `PREDICTIONS`. A default is not scored if its method was left out, or if
    it is on another base model than the winner and has no complete trial. The trials `found` hold what answers need
    from their folds (`Task.calibrated`). Once it is `late`, the defaults are the only reference models trained.

    Raises:
        StoreError: something could not be written; not a method's fault.
        ModelError: the base model is gone or has changed; not a method's fault either.
        CollapsedError: the best candidate's refits collapsed.
        Exception: whatever its method raises.
    """
    started, own = time.monotonic(), problem.at_hand(best)
    rows = counted(len(problem.rows.train), "training row")
    announcer.enter(
        REFITTING,
        "the winner",
        f"Refitting the winner on all {rows}: {short_name(best.flat, str(best), problem.space.defaults)}",
        refit_seconds(own, best, found),
    )
    with ExitStack() as stack:
        with writing(folder):
            draft = stack.enter_context(draft_folder(folder))
        with guarded(problem.spec.search.hang_timeout):
            first = _score(own, best, draft / "winner", origin, found, announcer, wins=True)
        with writing(folder):
            for name in (PREDICTIONS, SECTIONS):
                (folder.parent / name).unlink(missing_ok=True)  # an earlier winner's
            put(draft / "winner", folder, winner.FILES, last=CARD)
        table, defaults = Table(), dict[str, float | None]()
        table.add(held_out.WINNER, held_out.WINNER, f"winner: {best.name}", first)
        slowest = time.monotonic() - started
        for name, part in problem.space.items():
            default, column, began = part.default(), held_out.DEFAULT + name, time.monotonic()
            if default.flat == best.flat and first.form == REFIT and not first.drop.count:
                defaults[name], table.written[column] = first.score, first.written
                continue
            tried = "left out of the search" if name in left_out else _elsewhere(default, best, found)
            made = tried or score_default(problem.at_hand(default), default, draft / name, origin, found, announcer)
            defaults[name] = table.add(column, name, f"untuned {name}", made)
            slowest = max(slowest, time.monotonic() - began)
        others = _references(problem.at_hand(best), table, slowest, late, announcer)
        name, least = baseline(own)
        table.add(held_out.column_of(name), name, name, least)
        keep_answers(own, table.written, folder.parent / PREDICTIONS)
        _show(own, best, first, table.texts, folder, announcer.say)
    seconds = round(time.monotonic() - started, 3)
    return TestScores(first.score, least.score, defaults, table.notes, seconds, name, first.form, others)


def _elsewhere(default: Candidate, best: Candidate, found: Sequence[TrialRecord]) -> str:
    """Why a default on another base model than the winner's is not trained here; "" where it is.

    There is one for each method and model, and the search has tried those that it took for the best.
    """
    known = default.model == best.model or any(one.complete and one.params == default.flat for one in found)
    return "" if known else "it is on another base model, and the search has no complete trial of it"


def score_default(
    problem: Problem,
    default: Candidate,
    folder: Path,
    origin: str,
    found: Sequence[TrialRecord],
    announcer: Announcer,
) -> Scored | str:
    """A method's untuned default, or why it has no score: one that fails must not cost the winner."""
    try:
        with guarded(problem.spec.search.hang_timeout):
            if reason := problem.budget.reason(problem.cost_estimator(default)):
                return f"its default {reason}"
            what = f"the untuned default of {default.name}"
            seconds = refit_seconds(problem, default, found)
            announcer.enter(SCORING, what, f"Scoring {what} on the held-out rows", seconds)
            return _score(problem, default, folder, origin, found, announcer)
    except (
        StoreError,
        ModelError,
        SpecError,
    ):  # the disk, the base model and a user's metric are not a method's fault
        raise
    except Exception as error:
        return f"its default failed: {in_a_line(error)}"


def baseline(problem: Problem) -> tuple[str, Scored]:
    """The model that looks at no input, or the pretrained base model where the task writes; and its name."""
    if problem.task.writes:
        return references.BASE, _base(problem)
    name, answers = problem.task.baseline(problem.train.truths, problem.test.truths, problem.rows.labels)
    return name, scored(problem, problem.task, answers)


def _base(problem: Problem) -> Scored:
    """The pretrained base model, scored."""
    return scored_here(problem, problem.base.copy().to(problem.device.type).eval())


def _references(
    problem: Problem, table: Table, slowest: float, late: Callable[[], bool], announcer: Announcer
) -> dict[str, float | None]:
    """The scores of reference models without an add-on, by name; None where there is none, and a note says why.

    The base model is among them if it can answer and is not already the baseline.
    """
    if not problem.spec.search.references:
        return {}
    found = dict[str, float | None]()
    if not problem.task.new_head and not problem.task.writes:
        column = held_out.column_of(references.BASE)
        found[references.BASE] = table.add(column, references.BASE, references.BASE, _base(problem))
    for candidate in references.candidates(problem):
        name = candidate.method.name
        seconds = max(references.LEAST_SECONDS, references.PATIENCE * slowest)
        made = "the study's time is up" if late() else _reference(problem, candidate, seconds, announcer)
        if isinstance(made, str):
            announcer.say(f"No score of {name} on the held-out rows: {made}")
        found[name] = table.add(held_out.column_of(name), name, name, made)
    return found


def _reference(problem: Problem, candidate: Candidate, seconds: float, announcer: Announcer) -> Scored | str:
    """A reference model without an add-on, trained and scored, or why it has no score."""
    try:
        with guarded(problem.spec.search.hang_timeout):
            if reason := references.refusal(problem, candidate):
                return reason
            name = candidate.method.name
            announcer.enter(SCORING, name, f"Scoring {name} on the held-out rows", seconds, latest=True)
            made = train_whole(problem, candidate, watch=references.Patience(seconds))
            return scored_here(problem, made.model)
    except (StoreError, ModelError, SpecError):
        raise
    except Exception as error:  # a model may raise anything
        return f"it failed: {in_a_line(error)}" if not isinstance(error, OverTimeError) else str(error)
    finally:
        release_memory()


def _score(
    problem: Problem,
    candidate: Candidate,
    folder: Path,
    origin: str,
    found: Sequence[TrialRecord],
    announcer: Announcer,
    *,
    wins: bool = False,
) -> Scored:
    """Refit, save to `folder`, load from there, and score on the test rows; the winner in the form the study asks for.

    A default whose trial did not complete has no facts from its folds.

    Raises:
        CollapsedError: the winner collapsed in every form.
    """
    record = next((record for record in found if record.complete and record.params == candidate.flat), None)
    task = problem.task.knowing({**problem.task.facts, **(record.facts if record else {})}, problem.rows.labels)
    drop = layer_drop.decide(problem, candidate, announcer.say) if wins else LayerDrop()
    found_models = served(problem, candidate, record, announcer.say, wins=wins)
    found_models = layer_drop.dropped(problem, candidate, found_models, drop.count)
    card = replace(card_of(problem, candidate, task, origin), dropped_layers=drop.count)
    winner.save(found_models.models, candidate.method, problem.reader, card, folder)
    told, form = "; ".join(filter(None, (found_models.told, drop.told))), found_models.form
    del found_models  # their memory is needed
    release_memory()
    if wins:
        announcer.enter(SCORING, "the winner")
    return saved_score(problem, task, folder)._replace(told=told, form=form, drop=drop)


def card_of(problem: Problem, candidate: Candidate, task: Task, origin: str) -> Card:
    """The card of a model of that candidate; `task` knows the facts that its answers need."""
    spec = problem.spec
    return Card(
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
        method_facts=dict(candidate.method.facts()),
        inputs=problem.task.inputs,
        columns={key: name for key, name in table_columns(spec.data, task).items() if name != key},
    )


def saved_score(problem: Problem, task: Task, folder: Path) -> Scored:
    """The answers of the model saved in a folder to the test rows, with their score."""
    return scored(problem, task, *_predict(problem, folder))


def _predict(problem: Problem, folder: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """What a saved model predicts for the test rows: on the study's device, or on the CPU where that has no room."""
    task = problem.task
    rows = problem.rows.test[[*task.inputs, *(task.taught_columns if task.writes else ())]]  # by their keys, no others

    def predicted(device: str) -> tuple[np.ndarray, np.ndarray | None]:
        loaded = winner.load(folder, device, trust_remote_code=problem.spec.model.trust_remote_code)
        return loaded.answers(rows), texts_of(problem, loaded.module)

    with problem.off_the_card():
        with suppress(torch.OutOfMemoryError):  # in float32 it may need more memory than training did
            return predicted(problem.device.type)
        release_memory()
        return predicted("cpu")


def keep_answers(problem: Problem, written: Mapping[str, list[str] | None], path: Path) -> None:
    """Write each predictor's answer to each row."""
    answers = {name: made for name, made in written.items() if made is not None}
    truths = problem.task.written_truths(problem.test.truths, problem.rows.labels)
    rows = [str(row) for row in problem.rows.test.index]
    with writing(path), whole(path, lasting=True) as draft:
        HeldOut(rows, truths, answers).write(draft)


def _show(
    problem: Problem,
    best: Candidate,
    made: Scored,
    texts: Mapping[str, Scored],
    folder: Path,
    say: Callable[[str], None],
) -> None:
    """Keep the report's sections on the held-out rows; a failure there costs nothing else."""
    sections, path = list[ReportSection](), folder.parent / SECTIONS
    parts: tuple[Callable[[], Sequence[ReportSection]], ...] = (
        lambda: _sections(problem, made, texts),
        lambda: made.drop.sections,
        lambda: method_sections.sections(problem, best, made, folder),
    )
    for make in parts:
        try:
            with guarded(problem.spec.search.hang_timeout):
                sections += make()
        except Exception as error:  # in a plugin's task or method, or in a score; the winner is saved by now
            say(f"A section of the report on the held-out rows could not be made: {in_a_line(error)}")
    if sections:
        with writing(path), whole(path, lasting=True) as draft:
            report_section.write(sections, draft)


def _sections(problem: Problem, made: Scored, texts: Mapping[str, Scored]) -> Sequence[ReportSection]:
    """What the task shows about the held-out rows, and about the `texts` written for them, if there are any."""
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
