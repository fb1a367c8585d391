"""Runs a study from its file to its result: opens its stores, searches, then refits the winner and scores it once.

Everything that a later start of the same study needs is in its Optuna store, so a study that was stopped at any moment
goes on where it was, and a finished one only shows its result.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import optuna

from autopeft.budget.memory_watch import capped
from autopeft.common.collector import settled
from autopeft.common.containment import unguarded
from autopeft.common.exceptions import (
    MachineError,
    ModelError,
    SpecError,
    StoreError,
    StudyError,
    brief,
    in_a_line,
    nearest,
)
from autopeft.common.files import whole
from autopeft.common.interrupt import Interrupt
from autopeft.common.units import counted
from autopeft.execution import preparation, shares
from autopeft.execution.backend_factory import backend_mistakes
from autopeft.models import cards
from autopeft.models.device import precision_note
from autopeft.reporting import draw, gather, page
from autopeft.search import choosing, racing, resume, retrying, several_winner, single_tasks, start
from autopeft.search.announcer import Announcer
from autopeft.search.endings import without_winner
from autopeft.search.layer_drop import require_layers
from autopeft.search.loop import Search
from autopeft.search.pruner import make_pruner
from autopeft.search.select_winner import select_winner
from autopeft.search.served import REFIT, require_mean
from autopeft.search.story import (
    chosen_by,
    data_card,
    data_sets,
    decided,
    description_of,
    evidence_of,
    given_settings,
    log_missing,
    model_card,
    model_facts,
    note_on,
    notes,
    remarks_on,
    test_metrics,
    truncation_facts,
)
from autopeft.study import finished, own_file
from autopeft.study.card import Card
from autopeft.study.folder import MLFLOW_MODEL, REPORT, RESULT, WINNER, holds_study
from autopeft.study.journal import writing
from autopeft.study.output import taken
from autopeft.study.phase import CHOOSING, REPORTING
from autopeft.study.raced import RACE, ruling_on
from autopeft.study.record import (
    DEFAULTS,
    PASSED_OVER,
    STOPPED_EARLY,
    WORKERS,
    Result,
    TestScores,
    TrialRecord,
    plain,
    ranked,
    records,
)
from autopeft.study.storage import StudyStorage
from autopeft.study.winner_of_task import is_winner
from autopeft.tracking import Tracker, environment, public
from autopeft.winner import mlflow_model, readme, winner

if TYPE_CHECKING:
    from collections.abc import Callable

    from autopeft.execution.problem import Problem
    from autopeft.methods.candidate import Candidate
    from autopeft.methods.registry import Registry
    from autopeft.reporting.progress import Progress
    from autopeft.study.file import StudySpec

SCORES = "test_scores"
"""The user attribute of the study that holds the winner's number and its scores on the held-out rows."""


@unguarded()
def run(spec: StudySpec, registry: Registry, progress: Progress) -> Result:
    """Run a study to its end, or go on with one that was interrupted or stopped.

    Raises:
        UserInputError: the study file, the data or the model is wrong, or nothing fits the budget.
        StudyError: another process runs the study, trials keep failing for the same reason, none completed, or the
            machine failed.
        StreamError: nobody reads what `progress` prints.
        KeyboardInterrupt: on Ctrl-C, SIGTERM or SIGHUP.
    """
    for mistake in backend_mistakes(spec, registry.blocked):
        raise SpecError(mistake)
    with taken(spec.output), cards.kept():
        return _run(spec, registry, progress)


def _run(spec: StudySpec, registry: Registry, progress: Progress) -> Result:
    given, plugins = spec, registry.provenance
    spec = resume.as_begun(spec)
    problem, precision = preparation.made_ready(spec, registry, commits=resume.commits_of(spec))
    spec = problem.spec
    _say_notes(problem, registry, progress.say)
    if precision:
        progress.say(precision)
    preparation.check(problem)
    require_mean(problem)
    require_layers(problem)
    study, storage = _open(problem, progress.say)
    finished.forget(spec.output)
    announcer = Announcer(spec.output, progress)
    place = spec.tracking
    with Tracker.connect(place.uri, spec.output, spec.name, progress.say, artifacts=place.artifacts) as tracker:
        _log_start(problem, study, tracker)
        load = tracker.system_metrics(on=place.system_metrics)
        with capped(spec.budget.max_gpu_memory), progress, Interrupt() as interrupt, load, settled():
            search = Search(problem, study, storage, tracker, progress, interrupt)
            single_tasks.train(problem, study, announcer, interrupt.check, search.late)
            search.run(announcer)
            if choosing.asked(problem):
                announcer.enter(CHOOSING, "among the best by what they write")
            choosing.choose(problem, study, progress.say, interrupt.check)
            books = racing.Books(study, tracker, announcer, interrupt.check, search.over)
            racing.race(problem, books, finished=_has_winner(problem, study))
            best, test = _select_winner(problem, study, search, announcer)
            announcer.enter(REPORTING)
            _describe(problem, study, best, test)
        ruling = ruling_on(study.user_attrs, best)
        result = Result(
            name=spec.name,
            metric=problem.metric,
            records=records(study),
            best=best,
            test=test,
            winner_folder=str(spec.output / WINNER),
            tracking_uri=tracker.uri,
            stopped=study.user_attrs[STOPPED_EARLY],
            chosen_by=chosen_by(problem, study, best),
            race=ruling.sentence if ruling else "",
            chance=ruling.chance if ruling else None,
        )
        _log_end(tracker, result)
        _register(problem, study, tracker, result)
        told, kept = json.dumps(plain(result), indent=2), spec.output / RESULT
        earlier = kept.read_text(encoding="utf-8") if kept.is_file() else ""
        if told != earlier or not (spec.output / REPORT).is_file():
            _report(problem, tracker, progress.say)
        else:
            progress.say(finished.NOTHING_TO_DO)
    if tracker.unsent:
        progress.say(f"MLflow did not receive everything; `autopeft sync` sends the {tracker.unsent} missing calls.")
    with writing(kept), whole(kept, lasting=True) as draft:
        draft.write_text(told, encoding="utf-8")
    if not retrying.due(study):  # else the next start has something to do
        finished.mark(given, plugins, result)
    return result


def _describe(problem: Problem, study: optuna.Study, best: TrialRecord, test: TestScores) -> None:
    """Write what is known of the winner beside it."""
    if problem.parts:
        several_winner.describe(problem, study, best, test)
        return
    folder = problem.spec.output / WINNER
    winner.describe(folder, Card.read(folder), evidence_of(problem, study, best, test))


def _say_notes(problem: Problem, registry: Registry, say: Callable[[str], None]) -> None:
    """Say what a user should know about the model, the rows and the methods before the search begins."""
    where = shares.where(problem)
    for note in filter(None, (*notes(problem), where, precision_note(problem.device), *choosing.told(problem))):
        say(note)
    for one in problem.each:
        for told in one.reader.told(one.truncated):
            say(f"{one.label}: {told} {one.reader.hint}".removeprefix(": ").rstrip())
    for name in sorted({*problem.spec.search.exclude} - {*registry.methods}):
        if not any(fault.concerns(name) for fault in registry.faults):
            say(
                f'`exclude` in [search] names "{brief(name)}", which is not a method; {nearest(name, registry.methods)}'
            )
    for name, reason in problem.refused.items():
        say(f"{name} is left out: {reason}")


def _log_start(problem: Problem, study: optuna.Study, tracker: Tracker) -> None:
    """Tell MLflow what is searched, on which data and where."""
    tracker.start(
        study_id=study.user_attrs["study_id"], description=description_of(problem), params=given_settings(problem)
    )
    spec = problem.spec
    text = public(spec.text)
    tracker.log_text(text or json.dumps(spec.to_dict(), indent=2), "study.toml" if text else "study.json")
    tracker.log_text(json.dumps(environment.describe(), indent=2), "environment.json")
    tracker.log_text(json.dumps(data_card(problem), indent=2), "data.json")
    tracker.log_data(data_sets(problem))
    log_missing(tracker, records(study), problem.space.defaults)


def _log_end(tracker: Tracker, result: Result) -> None:
    """Tell MLflow the result of the search."""
    tracker.log_result(
        note_on(result),
        test_metrics(result),
        {record.number: record.score for record in ranked(result.records) if record.score is not None},
        result.best.number,
        Path(result.winner_folder),
        result.stopped,
        decided(result),
        remarks_on(result),
    )


def _open(problem: Problem, say: Callable[[str], None]) -> tuple[optuna.Study, StudyStorage]:
    """The study's Optuna store, made on the first start and checked against the study file on every later one.

    Raises:
        SpecError: the file changed in a way that would mix two searches, or an earlier study to start from is missing.
        UserInputError: the store is damaged.
    """
    spec = problem.spec
    # May refuse the file, so before anything is written.
    first = [] if holds_study(spec.output) else _first(problem, say)
    spec.output.mkdir(parents=True, exist_ok=True)
    storage = StudyStorage(spec.output, spec.tracking.database)
    others = {other.study_name for other in storage.get_all_studies()} - {spec.name}
    if others:
        raise SpecError(
            f'an output folder must hold one study, but {spec.output} holds "{others.pop()}" and not "{spec.name}"; '
            "give another `output`."
        )
    study = optuna.create_study(
        study_name=spec.name,
        storage=storage,
        direction="maximize",
        pruner=make_pruner(spec.search.pruner, len(problem.rung_ends(problem.space.max_epochs))),
        load_if_exists=True,
    )
    now, before = resume.given(problem), study.user_attrs.get(resume.GIVEN)
    if before is None:
        study.set_user_attr("study_id", uuid.uuid4().hex)
        for candidate in first or _first(problem, say):
            study.enqueue_trial(candidate.flat, skip_if_exists=True)
    else:
        resume.check(before, now, spec)
        resume.keep_known(before, now)
        if _has_winner(problem, study) and (
            told := resume.without_effect(before, now, _done_once(problem, study), spec.output / WINNER)
        ):
            say(told)
    study.set_user_attr(resume.GIVEN, now)
    if study.user_attrs.get(DEFAULTS) != problem.space.defaults:
        study.set_user_attr(DEFAULTS, problem.space.defaults)
    if study.user_attrs.get(WORKERS, "") != (where := shares.where(problem)):
        study.set_user_attr(WORKERS, where)
    own_file.keep(spec)
    rows = problem.rows
    study.set_user_attr("rows", {"train": len(rows.train), "test": len(rows.test), "dropped": rows.dropped})
    study.set_user_attr("truncated", truncation_facts(problem))
    return study, storage


def _first(problem: Problem, say: Callable[[str], None]) -> list[Candidate]:
    """What the search tries before it draws."""
    found, notes = start.first(problem.spec, problem.space, len(problem.rows.train))
    for note in notes:
        say(note)
    if recorded := sum(one.source == start.RECORDED for one in found):
        say(
            f"The search first tries {counted(recorded, 'candidate')} that did best on recorded tasks; `autopeft "
            "recommend` shows what to expect."
        )
    return [one.candidate for one in found]


def _has_winner(problem: Problem, study: optuna.Study) -> bool:
    """Whether the best trial is already the winner, scored and saved."""
    best, earlier = ranked(records(study))[:1], study.user_attrs.get(SCORES)
    saved = is_winner(problem.spec.output / WINNER)
    if not (earlier and saved):
        return False
    return [one.number for one in best if not one.passed_over] == [earlier["number"]]


def _done_once(problem: Problem, study: optuna.Study) -> list[str]:
    """Those of `resume.AT_THE_END` whose work this study with a winner has done, or has no use for."""
    attrs = study.user_attrs
    references = problem.parts or attrs[SCORES]["scores"].get("references")
    race = attrs.get(RACE) or not racing.share(problem)
    return [name for name, done in (("references", references), ("race", race)) if done]


def _select_winner(
    problem: Problem, study: optuna.Study, search: Search, announcer: Announcer
) -> tuple[TrialRecord, TestScores]:
    """Pick the winner and score it; a study that is already finished gives its earlier result.

    Where the best cannot be refitted, saved and loaded, the best of another method takes its place. A study that is
    finished then stays so; if its winner's folder is missing, the best is tried again.
    """
    folder, over = problem.spec.output / WINNER, dict(study.user_attrs.get(PASSED_OVER, {}))
    if over and not is_winner(folder):
        study.set_user_attr(PASSED_OVER, over := {})
    while found := [record for record in ranked(records(study)) if not record.passed_over]:
        best = found[0]
        earlier, wanted = study.user_attrs.get(SCORES, {}), problem.spec.winner
        made = {"number": best.number, "form": wanted.form, "drop_layers": wanted.drop_layers}
        same = {"form": REFIT, "drop_layers": 0, **earlier, "scores": None} == {**made, "scores": None}
        if same and is_winner(folder):
            return best, TestScores.read(earlier["scores"])
        if earlier:  # they belong to the folder that is about to be replaced; a process killed meanwhile starts over
            study.set_user_attr(SCORES, {})
        candidate, origin = problem.space.parse(best.params), problem.origins[best.method]
        failed, found = {**search.left_out, **over}, records(study)
        try:
            if problem.parts:
                origins = {name: str(one) for name, one in problem.origins.items()}
                scores = several_winner.select_winner(problem, candidate, folder, origins, failed, announcer, study)
            else:
                scores = select_winner(problem, candidate, folder, str(origin), failed, announcer, found, search.over)
        except (StoreError, MachineError, ModelError, SpecError, single_tasks.AloneError):
            raise  # disk, machine, base model, own metric, what several tasks are compared with: not a method's fault
        except Exception as error:  # a method may do anything
            over[best.method] = in_a_line(error)
            study.set_user_attr(PASSED_OVER, over)
            announcer.say(f"{best.name} cannot be the winner. {origin}: {in_a_line(error)}")
            continue
        study.set_user_attr(SCORES, {**made, "scores": asdict(scores)})
        return best, scores
    study.set_user_attr(PASSED_OVER, {})  # the next start tries them again
    raise StudyError(without_winner(records(study), {**search.left_out, **over}))


def _register(problem: Problem, study: optuna.Study, tracker: Tracker, result: Result) -> None:
    """Register the winner in MLflow as a model, once for each store, winner, and set of trials that it beat."""
    spec, best = problem.spec, result.best
    there = [public(tracker.uri), best.number]
    made = problem.parts or {"": problem}
    folders = {name: (spec.output / WINNER / name, spec.output / MLFLOW_MODEL / name) for name in made}
    known = study.user_attrs.get("registered") == there
    if known and all(mlflow_model.holds(folder, saved) for saved, folder in folders.values()):
        return
    for name, part in made.items():
        saved, folder = folders[name]
        folder.parent.mkdir(parents=True, exist_ok=True)
        mlflow_model.save(saved, folder, part.rows.test)
        card = model_card(result, readme.description(saved), name)
        called = f"{spec.name}-{name}" if name else spec.name
        tracker.log_model(folder, called, best.number, best.params, model_facts(result, name), card)
    study.set_user_attr("registered", there)


def _report(problem: Problem, tracker: Tracker, say: Callable[[str], None]) -> None:
    """Write the report beside the winner, and give it and its pictures to MLflow."""
    path = problem.spec.output / REPORT
    try:
        report = gather(problem.spec.output, ended=True)
        plots = draw(report)
        pictures = {plot.name: plot.png() for plot in plots}
        text = page.render(report, plots)
        page.write(text, path)
    except Exception as error:  # the winner is saved and registered, and must not be lost to a picture
        say(f"The report could not be written: {type(error).__name__}: {error}")
        return
    tracker.log_text(text, REPORT)
    for plot in plots:
        tracker.log_text(plot.svg, f"plots/{plot.name}.svg")
        tracker.log_image(pictures[plot.name], f"plots/{plot.name}", step=len(report.trials))
