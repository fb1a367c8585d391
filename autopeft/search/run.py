"""A study from its file to its result: open its stores, search, then refit the winner and score it once.

Everything a later start of the same study needs is in its Optuna store, so a study that was stopped at any moment
goes on where it was, and a finished one only shows its result.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import optuna

from autopeft.budget.cost_estimator import require_room
from autopeft.budget.memory_watch import capped
from autopeft.common.containment import unguarded
from autopeft.common.exceptions import ModelError, SpecError, StoreError, StudyError, brief, in_a_line, nearest
from autopeft.common.files import whole
from autopeft.common.interrupt import Interrupt
from autopeft.common.locate import LOCAL, locate
from autopeft.data import in_memory
from autopeft.execution import preflight
from autopeft.execution.problem import Problem, precision_note
from autopeft.reporting import draw, gather, page
from autopeft.reporting.bootstrap import interval_of
from autopeft.search import resume
from autopeft.search.endings import without_winner
from autopeft.search.loop import Search
from autopeft.search.pruner import make_pruner
from autopeft.search.select_winner import select_winner
from autopeft.search.warm_start import RESULT, earlier_winner
from autopeft.study import predictions
from autopeft.study.card import CARD, Card, Evidence
from autopeft.study.journal import JOURNAL, StudyStorage, writing
from autopeft.study.output import taken
from autopeft.study.predictions import HeldOut
from autopeft.study.record import STOPPED_EARLY, TestScores, TrialRecord, ranked, records
from autopeft.study.states import COUNTED
from autopeft.tracking import Tracker, dataset, environment, public
from autopeft.winner import mlflow_model, winner

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from autopeft.methods.candidate import Candidate
    from autopeft.methods.registry import Registry
    from autopeft.reporting.progress import Progress
    from autopeft.study.file import StudySpec

SCORES = "test_scores"
"""The user attribute of the study that holds the winner's number and its scores on the held-out rows."""


@dataclass(frozen=True)
class Result:
    """A study with a winner: its trials, the best of them, and the scores on the held-out rows.

    `stopped` says how the search ended before its last trial, such as "stopped by the timeout after 4 of 12 trials";
    it is empty where it did not.
    """

    name: str
    metric: str
    records: list[TrialRecord]
    best: TrialRecord
    test: TestScores
    winner_folder: str
    tracking_uri: str
    stopped: str = ""


@unguarded()
def run(spec: StudySpec, registry: Registry, progress: Progress) -> Result:
    """Run a study to its end, or go on with one that was interrupted or stopped.

    Raises:
        UserInputError: the study file, the data or the model are wrong, or nothing fits the budget.
        StudyError: another process runs the study, trials keep failing for the same reason, none completed, or the
            machine failed.
        StreamError: nobody reads what `progress` prints.
        KeyboardInterrupt: on Ctrl-C, SIGTERM or SIGHUP.
    """
    with taken(spec.output):
        return _run(spec, registry, progress)


def _run(spec: StudySpec, registry: Registry, progress: Progress) -> Result:
    spec = resume.as_begun(spec)
    problem = Problem.from_spec(spec, registry)
    for note in filter(None, (*problem.base.notes, *problem.rows.notes, precision_note(problem.device))):
        progress.say(note)
    if cut := problem.truncated.sentence(problem.max_length, problem.truncation):
        progress.say(f"{cut} `max_length` and `truncation` in [model] say how.")
    for name in sorted({*spec.search.exclude} - {*registry.methods}):
        if not any(fault.concerns(name) for fault in registry.faults):
            progress.say(
                f'`exclude` in [search] names "{brief(name)}", which is no method; {nearest(name, registry.methods)}'
            )
    for name, reason in problem.refused.items():
        progress.say(f"{name} is left out: {reason}")
    require_room(problem.space, problem.cost_estimator, problem.budget, spec.search.hang_timeout)
    preflight.check(problem)
    study, storage = _open(problem, progress.say)
    with Tracker.connect(spec.tracking.uri, spec.output, spec.name, progress.say) as tracker:
        tracker.start(study_id=study.user_attrs["study_id"], description=_description(problem), params=_givens(problem))
        text = public(spec.text)
        tracker.log_text(text or json.dumps(spec.to_dict(), indent=2), "study.toml" if text else "study.json")
        tracker.log_text(json.dumps(environment.describe(), indent=2), "environment.json")
        tracker.log_text(json.dumps(_data_card(problem), indent=2), "data.json")
        tracker.log_data(_datasets(problem))
        _log_missing(tracker, records(study))
        load = tracker.system_metrics(on=spec.tracking.system_metrics)
        with capped(spec.budget.max_gpu_memory), progress, Interrupt() as interrupt, load:
            search = Search(problem, study, storage, tracker, progress, interrupt)
            search.run()
            best, test = _select_winner(problem, study, search.left_out, progress)
            winner.describe(
                spec.output / "winner",
                Card.read(spec.output / "winner"),
                _evidence(problem, study, best, test),
            )
        result = Result(
            name=spec.name,
            metric=spec.validation.metric,
            records=records(study),
            best=best,
            test=test,
            winner_folder=str(spec.output / "winner"),
            tracking_uri=tracker.uri,
            stopped=study.user_attrs[STOPPED_EARLY],
        )
        scores = {record.number: record.score for record in ranked(result.records) if record.score is not None}
        tracker.log_result(
            _note(result), _test_metrics(result), scores, best.number, spec.output / "winner", result.stopped
        )
        _register(problem, study, tracker, best)
        told, kept = json.dumps(asdict(result), indent=2), spec.output / RESULT
        earlier = kept.read_text(encoding="utf-8") if kept.is_file() else ""
        if told != earlier or not (spec.output / page.FILE).is_file():
            _report(problem, tracker, progress.say)
    if tracker.unsent:
        progress.say(
            f"MLflow could not be told everything; `autopeft sync` sends the {tracker.unsent} calls that are left."
        )
    with writing(kept), whole(kept, lasting=True) as draft:
        draft.write_text(told, encoding="utf-8")
    return result


def _open(problem: Problem, say: Callable[[str], None]) -> tuple[optuna.Study, StudyStorage]:
    """The study's Optuna store, made on the first start and checked against the study file on every later one.

    Raises:
        SpecError: the file changed in a way that would mix two searches, or what it is to start from is not there.
        UserInputError: the store is damaged.
    """
    spec = problem.spec
    # May refuse the file, so before anything is written.
    first = [] if (spec.output / JOURNAL).exists() else _first(problem, say)
    spec.output.mkdir(parents=True, exist_ok=True)
    storage = StudyStorage(spec.output)
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
        now[resume.DIGEST] = now[resume.DIGEST] or before.get(resume.DIGEST, "")
    study.set_user_attr(resume.GIVEN, now)
    study.set_user_attr("rows", {"train": len(problem.train), "test": len(problem.test)})
    study.set_user_attr("truncated", {**asdict(problem.truncated), **_truncation(problem)})
    return study, storage


def _first(problem: Problem, say: Callable[[str], None]) -> list[Candidate]:
    """What the search tries before it draws: what an earlier study found, then every method's default."""
    defaults = [part.default() for part in problem.space.values()]
    if problem.spec.search.warm_start is None:
        return defaults
    start, note = earlier_winner(problem.spec.search.warm_start, problem.spec.folder, problem.space)
    say(note)
    return [start, *defaults]


def _select_winner(
    problem: Problem, study: optuna.Study, left_out: Mapping[str, str], progress: Progress
) -> tuple[TrialRecord, TestScores]:
    """Pick the winner and score it; a study that is finished already gives what it found then.

    Where the best cannot be trained once more, saved and loaded, the best of another method takes its place.
    """
    found = ranked(records(study))
    failed = dict(left_out)
    while found:
        best = found[0]
        folder = problem.spec.output / "winner"
        earlier = study.user_attrs.get(SCORES)
        if earlier and earlier["number"] == best.number and (folder / CARD).is_file():
            return best, TestScores(**earlier["scores"])
        if earlier:  # they hold for what is about to be replaced, and a process that is killed meanwhile starts over
            study.set_user_attr(SCORES, {})
        candidate, origin = problem.space.parse(best.params), problem.origins[best.method]
        try:
            scores = select_winner(problem, candidate, folder, str(origin), failed, progress.say)
        except (StoreError, ModelError):  # the disk and the base model are no fault of a method
            raise
        except Exception as error:  # a method may do anything
            failed[best.method] = in_a_line(error)
            progress.say(f"{best.name} cannot be the winner. {origin}: {in_a_line(error)}")
            found = [record for record in found if record.method != best.method]
            continue
        study.set_user_attr(SCORES, {"number": best.number, "scores": asdict(scores)})
        return best, scores
    raise StudyError(without_winner(records(study), failed))


def _evidence(problem: Problem, study: optuna.Study, best: TrialRecord, test: TestScores) -> Evidence:
    """What a reader of the winner's README should know."""
    spec = problem.spec
    count, metric, source = len(problem.test), spec.validation.metric, spec.data.train
    budget = {name: limit for name, limit in spec.budget.model_dump().items() if limit is not None}
    hyper = {key.partition(".")[2]: value for key, value in best.params.items() if key != "method"}
    own = problem.space.parse(best.params).params
    return Evidence(
        study=spec.name,
        data=_source(source, problem),
        train_rows=len(problem.train),
        test_rows=count,
        metric=metric,
        fold_scores=best.fold_scores,
        test_score=test.winner,
        test_interval=_interval(metric, spec.output / predictions.FILE),
        baseline=test.baseline,
        defaults=test.defaults,
        trials=sum(record.state in COUNTED for record in records(study)),
        budget=budget,
        hyperparameters={name: value for name, value in hyper.items() if name not in own},
        trained_params=best.trainable_params or 0,
        stopped=study.user_attrs[STOPPED_EARLY],
    )


def _interval(metric: str, path: Path) -> tuple[float, float] | None:
    """Of the winner's test score, as the report has it; None where its predictions were not kept, or cannot be read."""
    try:
        answers = HeldOut.read(path)
    except (FileNotFoundError, ValueError):
        return None
    return interval_of(metric, answers.labels, answers.predictions[predictions.WINNER])


def _source(reference: str, problem: Problem) -> str:
    """A reference to rows as it may be shown to anyone."""
    if problem.kinds["data.train"] != LOCAL:
        return reference
    path = Path(reference)
    return "rows in memory" if path.parent == problem.spec.output / in_memory.FOLDER else path.name


def _register(problem: Problem, study: optuna.Study, tracker: Tracker, best: TrialRecord) -> None:
    """Give MLflow the winner as a model, once for each store, winner and what is known of it (the trials it beat)."""
    there = [public(tracker.uri), best.number]
    spec = problem.spec
    if study.user_attrs.get("registered") == there and mlflow_model.holds(
        spec.output / "mlflow_model", spec.output / "winner"
    ):
        return
    mlflow_model.save(spec.output / "winner", spec.output / "mlflow_model", problem.rows.test)
    tracker.log_model(spec.output / "mlflow_model", spec.name, best.number, best.params)
    study.set_user_attr("registered", there)


def _report(problem: Problem, tracker: Tracker, say: Callable[[str], None]) -> None:
    """Write the report beside the winner, and give it and its pictures to MLflow."""
    path = problem.spec.output / page.FILE
    try:
        report = gather(problem.spec.output, ended=True)
        plots = draw(report)
        pictures = {plot.name: plot.png() for plot in plots}
        text = page.render(report, plots)
        page.write(text, path)
    except Exception as error:  # the winner is saved and registered, and must not be lost to a picture
        say(f"The report could not be written: {type(error).__name__}: {error}")
        return
    tracker.log_text(text, page.FILE)
    for plot in plots:
        tracker.log_text(plot.svg, f"plots/{plot.name}.svg")
        tracker.log_image(pictures[plot.name], f"plots/{plot.name}", step=len(report.trials))


def _log_missing(tracker: Tracker, found: list[TrialRecord]) -> None:
    """Log trials that ended without MLflow learning of it: killed in between, or logged to another store before."""
    for record in found:
        if record.number not in tracker.ended:
            run = tracker.trial(record.number, record.name, record.params)
            run.finish(record.state, record.reason, record.metrics)


def _test_metrics(result: Result) -> dict[str, float | None]:
    return {
        "best_score": result.best.score,
        "test_score": result.test.winner,
        "test_majority_class": result.test.baseline,
        **{f"test_default_{method}": score for method, score in result.test.defaults.items()},
    }


def _note(result: Result) -> str:
    """What a reader of the parent run should see first: who won, and a short table."""
    lines = [
        f"**{result.best.name}** won: {result.metric} {result.best.score:.4f} in cross-validation, "
        f"**{result.test.winner:.4f}** on the held-out rows (majority class {result.test.baseline:.4f}).",
        *([f"The search was {result.stopped}."] if result.stopped else []),
        "",
        f"| candidate | mean {result.metric} | trained params |",
        "|---|---|---|",
    ]
    lines += [f"| {r.name} | {r.score:.4f} | {r.trainable_params:,} |" for r in ranked(result.records)[:10]]
    return "\n".join(lines)


def _description(problem: Problem) -> str:
    methods = ", ".join(problem.space)
    return f"Search over {methods} for {problem.task.kind} on {problem.spec.model.name_or_path}."


def _givens(problem: Problem) -> dict[str, object]:
    spec = problem.spec
    return {
        "model": spec.model.name_or_path,
        "model_digest": problem.base_digest,
        "task": problem.task.kind,
        "methods": ", ".join(problem.space),
        "metric": spec.validation.metric,
        "folds": len(problem.folds),
        "seed": spec.seed,
        "train_rows": len(problem.train),
        "test_rows": len(problem.test),
        **_truncation(problem),
        "cut_rows": problem.truncated.cut_rows,
        "lost_tokens": problem.truncated.lost_tokens,
        **{limit: getattr(problem.budget, limit) for limit in problem.budget.limits},
        "device": problem.device.type,
        "precision": str(problem.device.autocast or "float32").removeprefix("torch."),
    }


def _datasets(problem: Problem) -> list[dict[str, str]]:
    """The training and the held-out rows, for MLflow."""
    data, folder = problem.spec.data, problem.spec.folder
    return [
        dataset(frame, problem.spec.name, context, locate(source, folder))
        for frame, context, source in (
            (problem.rows.train, "train", data.train),
            (problem.rows.test, "test", data.test or data.train),
        )
    ]


def _data_card(problem: Problem) -> dict[str, object]:
    return {
        "fingerprint": problem.rows.fingerprint,
        "train_rows": len(problem.train),
        "test_rows": len(problem.test),
        "labels": list(problem.rows.labels),
        "notes": [*problem.base.notes, *problem.rows.notes],
        "truncated": {**asdict(problem.truncated), **_truncation(problem)},
    }


def _truncation(problem: Problem) -> dict[str, object]:
    """From how many tokens on a row is cut, and what is kept of it."""
    return {"max_length": problem.max_length, "truncation": problem.truncation}
