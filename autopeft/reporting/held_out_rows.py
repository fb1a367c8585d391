"""The held-out rows: how sure the winner's score is, whether it beats models without a search, and where it errs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from autopeft.common.exceptions import SpecError
from autopeft.common.units import counted
from autopeft.reporting import tasks_view
from autopeft.reporting.bootstrap import Bootstrap, interval_of
from autopeft.reporting.statistics import CONFIDENCE, Difference, in_a_word
from autopeft.study.folder import PREDICTIONS
from autopeft.study.predictions import DEFAULT, WINNER, HeldOut, column_of
from autopeft.study.sections import SEVERAL_TASKS
from autopeft.study.task_scores import TaskScore
from autopeft.tasks.registry import find_task
from autopeft.tasks.user_metric import is_own

if TYPE_CHECKING:
    from autopeft.study.archive import Archive
    from autopeft.tasks.metric import Metric

NO_PLUGIN = (
    "There are no intervals, because no installed plugin knows this kind of task and its metric. Install the plugin "
    "again, and make the report again with `autopeft report`."
)

ROUNDING = 1e-6
"""Largest difference, as a share of a score above 1, of a score from the one that its predictions give again: earlier
versions computed some in float32."""

MOST_POINTS = 2000
"""Most points in one picture; more would hide each other."""


@dataclass(frozen=True)
class TestScore:
    """A score on the held-out rows; the interval is None where the predictions were not kept."""

    name: str
    score: float | None
    interval: tuple[float, float] | None = None
    note: str = ""


@dataclass(frozen=True)
class TestComparison:
    """The winner against a model that needs no search, on the same rows.

    Attributes:
        other: the other model's name among the scores.
        difference: how far the winner scores above it; interval and p-value allow for all such comparisons.
        real: whether the p-value is small enough, and so the interval is on one side of 0.
        verdict: the result in words.
    """

    other: str
    difference: Difference
    real: bool
    verdict: str


@dataclass(frozen=True)
class ClassScore:
    """How the winner does on the rows of one class; `support` counts them."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class TestRows:
    """The results on the held-out rows. Parts that need predictions are empty if these were not kept; `note` says so.

    Attributes:
        confusion: number of rows of each class, by predicted class (the columns), in `labels`' order.
        numbers: if answers are numbers, the true one and the winner's, for as many rows as can be shown.
    """

    scores: list[TestScore]
    verdict: str
    note: str = ""
    rows: int | None = None
    comparisons: list[TestComparison] = field(default_factory=list)
    classes: list[ClassScore] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    confusion: list[list[int]] = field(default_factory=list)
    numbers: list[tuple[float, float]] = field(default_factory=list)


def held_out_rows(archive: Archive) -> TestRows | None:
    """The results on the held-out rows; None if there is no winner yet, or a later trial has overtaken it."""
    kept = archive.attrs.get("test_scores")
    if not kept or not archive.ranked or kept["number"] != archive.ranked[0].number:
        return None
    scores, asked = kept["scores"], archive.given["task"]
    baseline = scores.get("baseline_name", "majority class")
    plain = [TestScore("the winner", scores["winner"], note=scores["notes"].get(WINNER, ""))]
    plain += [
        TestScore(_name(DEFAULT + method), score, note=scores["notes"].get(method, ""))
        for method, score in scores["defaults"].items()
    ]
    plain += [
        TestScore(_name(column_of(name)), score, note=scores["notes"].get(name, ""))
        for name, score in scores.get("references", {}).items()
    ]
    plain.append(TestScore(_name(column_of(baseline)), scores["baseline"]))
    told = (
        f"On the held-out rows the winner scores {scores['winner']:.4f}, and the {baseline} {scores['baseline']:.4f}."
    )
    if asked["kind"] == SEVERAL_TASKS:
        tasks = {name: TaskScore.read(content) for name, content in scores.get("tasks", {}).items()}
        told = f"On the held-out rows the gain of the winner is {scores['winner']:+.4f}. {tasks_view.verdict(tasks)}"
        return TestRows(plain, told, "The scores of each task are in a section of their own.")
    try:
        task = find_task(asked["kind"]).configured(asked.get("options", {}))
        metric = task.metrics[archive.given["validation"]["metric"]]
    except (SpecError, KeyError):
        own = is_own(archive.given["validation"]["metric"])
        why = "There are no intervals, because the metric is a function of your own, which a report does not run."
        return TestRows(plain, told, why if own else NO_PLUGIN)
    try:
        answers = HeldOut.read(archive.output / PREDICTIONS)
        # Without columns that equal the winner's: its own default would be compared with itself.
        others = {name: made for name, made in answers.predictions.items() if made != answers.predictions[WINNER]}
        bootstrap = Bootstrap(metric, answers.labels, {WINNER: answers.predictions[WINNER], **others})
    except FileNotFoundError:
        note = "The prediction for each row was not kept, so there are no intervals, no comparisons and no classes."
        return TestRows(plain, told, note)
    except ValueError as error:
        return TestRows(plain, told, f"The kept predictions cannot be used: {error}")
    if abs(bootstrap.score(WINNER) - scores["winner"]) > ROUNDING * max(1.0, abs(scores["winner"])):
        note = f"{PREDICTIONS} does not give the winner's score: it was changed, or belongs to another winner."
        return TestRows(plain, told, note)
    return _full(plain, answers, others, bootstrap, metric)


def _full(
    plain: list[TestScore],
    answers: HeldOut,
    others: dict[str, Any],
    bootstrap: Bootstrap,
    metric: Metric,
) -> TestRows:
    rows = len(answers.labels)
    columns = {_name(name): name for name in answers.predictions}
    scores = []
    for entry in plain:
        column = columns.get(entry.name)
        if column is None:
            scores.append(entry)
            continue
        same = column if column in {WINNER, *others} else WINNER
        interval = interval_of(metric, answers.labels, answers.predictions[column])
        note = entry.note or ("predicts the same as the winner" if column != WINNER and same == WINNER else "")
        scores.append(TestScore(entry.name, entry.score, interval, note))
    differences = bootstrap.differences(WINNER, [*others]) if others else []
    comparisons = [_judge(_name(name), found) for name, found in zip(others, differences, strict=True)]
    low, high = scores[0].interval or (0.0, 0.0)
    verdict = (
        f"On {counted(rows, 'held-out row')} the winner scores {scores[0].score:.4f} "
        f"({CONFIDENCE:.0%} interval {low:.4f} to {high:.4f})."
    )
    if metric.of_counts is None:
        return TestRows(scores, verdict, "", rows, comparisons, numbers=[] if metric.proportion else _numbers(answers))
    labels = sorted({*answers.labels, *answers.predictions[WINNER]})
    classes, confusion = _by_class(answers, labels)
    return TestRows(scores, verdict, "", rows, comparisons, classes, labels, confusion)


def _judge(other: str, difference: Difference) -> TestComparison:
    real = difference.p <= 1 - CONFIDENCE
    sure = f"{CONFIDENCE:.0%} interval {difference.low:+.4f} to {difference.high:+.4f}, p = {difference.p:.2g}"
    word, way = in_a_word(difference.mean, real), "above" if difference.mean > 0 else "below"
    gap = f"The winner is {abs(difference.mean):.4f} {way} {other}: {word}"
    return TestComparison(
        other, difference, real, f"The winner ties with {other}." if word == "tie" else f"{gap} ({sure})."
    )


def _numbers(answers: HeldOut) -> list[tuple[float, float]]:
    pairs = list(zip(answers.labels, answers.predictions[WINNER], strict=True))[:MOST_POINTS]
    try:
        return [(float(truth), float(answer)) for truth, answer in pairs]
    except ValueError:  # this kind of task does not answer with numbers
        return []


def _by_class(answers: HeldOut, labels: list[str]) -> tuple[list[ClassScore], list[list[int]]]:
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    true, made = list(answers.labels), list(answers.predictions[WINNER])
    columns = precision_recall_fscore_support(true, made, labels=labels, zero_division=0)
    classes = [
        ClassScore(label, float(precision), float(recall), float(f1), int(support))
        for label, precision, recall, f1, support in zip(labels, *columns, strict=True)
    ]
    return classes, confusion_matrix(true, made, labels=labels).tolist()


def default_name(method: str) -> str:
    """The name of a method's untuned default among the scores."""
    return f"the untuned default of {method}"


def _name(column: str) -> str:
    if column == WINNER:
        return "the winner"
    if column.startswith(DEFAULT):
        return default_name(column.removeprefix(DEFAULT))
    name = column.replace("_", " ")
    return name if name.endswith("tuning") else f"the {name}"  # "full fine-tuning" takes no article
