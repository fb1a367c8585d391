"""What a study says about itself besides its trials: in MLflow, in its report, and in its winner's README."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from autopeft.budget.limits import MEMORY, SAVED
from autopeft.common.locate import LOCAL, locate
from autopeft.models.device import name_of
from autopeft.reporting import tasks_view
from autopeft.reporting.bootstrap import interval_of
from autopeft.reporting.short_name import short_name
from autopeft.search import choosing
from autopeft.search.cheaper import cheaper
from autopeft.study import predictions
from autopeft.study.card import Evidence
from autopeft.study.folder import PREDICTIONS, ROWS
from autopeft.study.predictions import HeldOut, column_of
from autopeft.study.raced import ruling_on
from autopeft.study.record import STOPPED_EARLY, Result, TestScores, TrialRecord, ranked, records
from autopeft.study.states import COUNTED
from autopeft.tracking import Decided, Remarks, Tracker, dataset

if TYPE_CHECKING:
    from collections.abc import Mapping

    import optuna

    from autopeft.common.params import ParamValue
    from autopeft.execution.problem import Problem
    from autopeft.tasks.metric import Metric

LONGEST_NAME = 125
"""Number of characters kept of the name of a text score."""


def evidence_of(problem: Problem, study: optuna.Study, best: TrialRecord, test: TestScores) -> Evidence:
    """What a reader of the winner's README should know."""
    spec = problem.spec
    count, metric, source = len(problem.rows.test), problem.metric, spec.data.train
    budget = {name: limit for name, limit in spec.budget.model_dump().items() if limit is not None}
    candidate = problem.space.parse(best.params)
    return Evidence(
        study=spec.name,
        data=source_of(source, problem),
        train_rows=len(problem.rows.train),
        test_rows=count,
        dropped_rows=problem.rows.dropped,
        metric=metric,
        fold_scores=best.fold_scores,
        test_score=test.winner,
        test_interval=test_interval(problem.task.metrics[metric], spec.output / PREDICTIONS),
        baseline=test.baseline,
        baseline_name=test.baseline_name,
        defaults=test.defaults,
        references=test.references,
        trials=sum(record.state in COUNTED for record in records(study)),
        budget=budget,
        hyperparameters={name: value for name, value in candidate.dimensions.items() if name not in candidate.params},
        trained_params=best.trainable_params or 0,
        stopped=study.user_attrs[STOPPED_EARLY],
        chosen_by=chosen_by(problem, study, best),
        refit=test.notes.get(predictions.WINNER, ""),
        form=test.form,
        race=ruling.sentence if (ruling := ruling_on(study.user_attrs, best)) else "",
    )


def chosen_by(problem: Problem, study: optuna.Study, best: TrialRecord) -> str:
    """The text score that chose the best trial; "" where the score of the search did."""
    choice = choosing.choice_of(problem, study)
    return choice.by if choice and best.written is not None else ""


def decided(result: Result) -> Decided | None:
    """What decided among the best trials; None where the score that all have did."""
    if result.chosen_by:
        name = "written_" + re.sub(r"[^\w.-]", "_", result.chosen_by)[:LONGEST_NAME]  # MLflow allows few characters
        scores = {record.number: record.written for record in result.records if record.written is not None}
        return Decided(name, f"{result.chosen_by} of what its folds wrote", "whose folds wrote", scores)
    expected = {record.number: record.expected for record in result.records if record.expected is not None}
    if result.best.number not in expected:
        return None
    return Decided("expected_score", "the score expected after the race", "that ran in the race", expected)


def test_interval(metric: Metric, path: Path) -> tuple[float, float] | None:
    """The interval of the winner's test score that the report shows; None where its predictions cannot be read."""
    try:
        answers = HeldOut.read(path)
    except (FileNotFoundError, ValueError):
        return None
    return interval_of(metric, answers.labels, answers.predictions[predictions.WINNER])


def source_of(reference: str, problem: Problem) -> str:
    """A reference to rows that can be shown to anyone, without local folders."""
    if problem.kinds["data.train"] != LOCAL:
        return reference
    path = Path(reference)
    return "rows in memory" if path.parent == problem.spec.output / ROWS else path.name


def log_missing(tracker: Tracker, found: list[TrialRecord], defaults: Mapping[str, ParamValue]) -> None:
    """Log trials that MLflow does not know to have ended: killed in between, or logged to another store before."""
    for record in found:
        if record.number not in tracker.ended:
            short = short_name(record.params, record.name, defaults)
            run = tracker.trial(record.number, record.name, record.params, short)
            run.finish(record.state, record.reason, record.metrics)


def remarks_on(result: Result) -> Remarks:
    """Remarks on complete trials: which were passed over, where folds or the refit collapsed, what others save."""
    over = {record.number: record.passed_over for record in result.records if record.passed_over}
    found = {record.number: record.reason for record in result.records if record.complete and record.reason}
    if note := result.test.notes.get(predictions.WINNER):
        number = result.best.number
        found[number] = "; ".join(filter(None, (found.get(number), note)))
    lost = [record for record in result.records if record.complete and record.number != result.best.number]
    return Remarks(over, found, {record.number: cheaper(record, result.best) for record in lost})


def model_card(result: Result, description: str, task: str = "") -> str:
    """The description of the registered winner: its scores, and what its README says of the model.

    Args:
        result: of the study.
        description: from the README.
        task: whose winner it is, if there are several tasks.
    """
    metric, held_out, folds = _scores(result, task)
    return f"**{metric} {held_out:.4f}** on held-out rows, {folds:.4f} in cross-validation.\n\n{description}"


def _scores(result: Result, task: str) -> tuple[str, float, float | None]:
    """The metric, and the winner's scores by it on held-out rows and in cross-validation."""
    if own := result.test.tasks.get(task):
        return own.metric, own.score, fmean(own.folds)
    return result.metric, result.test.winner, result.best.score


def model_facts(result: Result, task: str = "") -> dict[str, object]:
    """The tags of the registered winner, or of that of one task."""
    metric, held_out, folds = _scores(result, task)
    return {
        "method": result.best.method,
        "metric": metric,
        "score": f"{folds:.4f}",
        "held_out_score": f"{held_out:.4f}",
        **({"task": task} if task else {}),
        "trained_parameters": result.best.trainable_params,
        "trial": result.best.number,
        "study": result.name,
    }


def test_metrics(result: Result) -> dict[str, float | None]:
    """The parent run's metrics: the best score, and those on the held-out rows."""
    return {
        "best_score": result.best.score,
        "race_chance": result.chance,
        "test_score": result.test.winner,
        f"test_{column_of(result.test.baseline_name)}": result.test.baseline,
        **{f"test_default_{method}": score for method, score in result.test.defaults.items()},
        **{f"test_{column_of(name)}": score for name, score in result.test.references.items()},
        **{f"test_{name}": task.score for name, task in result.test.tasks.items()},
        **{f"test_{name}_alone": task.single for name, task in result.test.tasks.items()},
    }


def note_on(result: Result) -> str:
    """What a reader of the parent run should see first: who won, and a short table."""
    defaults = [f"{method} {score:.4f}" for method, score in result.test.defaults.items() if score is not None]
    lines = [
        f"**{result.best.name}** won: {result.metric} {result.best.score:.4f} in cross-validation, "
        f"**{result.test.winner:.4f}** on the held-out rows ({result.test.baseline_name} {result.test.baseline:.4f}).",
        *([f"Untuned defaults score there: {', '.join(defaults)}."] if defaults else []),
        *([tasks_view.verdict(result.test.tasks)] if result.test.tasks else []),
        *([f"It was chosen by {result.chosen_by} of the texts that its folds wrote."] if result.chosen_by else []),
        *([result.race] if result.race else []),
        *([f"The search was {result.stopped}."] if result.stopped else []),
        *([f"Note on its training: {note}."] if (note := result.test.notes.get(predictions.WINNER)) else []),
        "",
        f"| candidate | mean {result.metric} | trained params |",
        "|---|---|---|",
    ]
    lines += [f"| {r.name} | {r.score:.4f} | {r.trainable_params:,} |" for r in ranked(result.records)[:10]]
    return "\n".join(lines)


def description_of(problem: Problem) -> str:
    """The experiment in one sentence."""
    models = " or ".join(one.spec.model.name_or_path for one in problem.each)
    return f"Search over {', '.join(problem.space.methods)} for {problem.task.kind} on {models}."


def given_settings(problem: Problem) -> dict[str, object]:
    """The parent run's params: the settings of the search; where base models differ, those of each."""
    found = {one.label: _given(one) for one in problem.each}
    first = next(iter(found.values()))
    return {
        name: value
        if all(other[name] == value for other in found.values())
        else "; ".join(f"{label}: {other[name]}" for label, other in found.items())
        for name, value in first.items()
    }


def _given(problem: Problem) -> dict[str, object]:
    """The same for one base model."""
    spec = problem.spec
    return {
        "model": spec.model.name_or_path,
        "model_digest": problem.base_digest,
        "task": problem.task.kind,
        "methods": ", ".join(problem.space.methods),
        "metric": problem.metric,
        "folds": len(problem.folds),
        "seed": spec.seed,
        "train_rows": len(problem.rows.train),
        "test_rows": len(problem.rows.test),
        **problem.reader.settings,
        "cut_rows": problem.truncated.cut_rows,
        "lost_tokens": problem.truncated.lost_tokens,
        **_limits(problem),
        "device": problem.device.type,
        "precision": name_of(problem.device.autocast),
    }


def _limits(problem: Problem) -> dict[str, object]:
    """The budget, with the unit in each name."""
    names = {MEMORY.name: f"{MEMORY.name}_mib", SAVED.name: f"{SAVED.name}_bytes"}
    values = problem.budget.values
    return {names.get(name, name): value / 2**20 if name == MEMORY.name else value for name, value in values.items()}


def data_sets(problem: Problem) -> list[dict[str, str]]:
    """The training and the held-out rows, for MLflow."""
    if problem.parts:
        return [found for part in problem.parts.values() for found in data_sets(part)]
    data, folder = problem.spec.data, problem.spec.folder
    taught = [key for key in ("label", *problem.task.taught_columns) if key in problem.rows.train]
    return [
        dataset(frame, problem.spec.name, context, locate(source, folder), next(iter(taught), None))
        for frame, context, source in (
            (problem.rows.train, "train", data.train),
            (problem.rows.test, "test", data.test or data.train),
        )
    ]


def notes(problem: Problem) -> list[str]:
    """What a user should know about the model and the rows, and what the task found out about them."""
    of_models = [f"{one.label}: {note}".removeprefix(": ") for one in problem.each for note in one.base.notes]
    return [*of_models, *problem.rows.notes, *problem.task.notes]


def data_card(problem: Problem) -> dict[str, object]:
    """The rows in numbers, with the notes about them."""
    return {
        "fingerprint": problem.rows.fingerprint,
        "train_rows": len(problem.rows.train),
        "test_rows": len(problem.rows.test),
        "dropped_rows": problem.rows.dropped,
        "labels": list(problem.rows.labels),
        "notes": notes(problem),
        "truncated": truncation_facts(problem),
    }


def truncation_facts(problem: Problem) -> dict[str, object]:
    """What truncation cost the rows, at which length, and which part is kept; on the model that cuts most."""
    most = max(problem.each, key=lambda one: one.truncated.lost_tokens)
    return {**asdict(most.truncated), **most.reader.settings}
