"""The record of a trial, read back from the Optuna study: the source of every view and report."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from autopeft.study.choice import Choice
from autopeft.study.raced import Raced
from autopeft.study.states import COMPLETE, ENDS
from autopeft.study.task_scores import TaskScore, scores_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import optuna

    from autopeft.common.params import ParamValue

RECORD = "record"
"""The user attribute of an Optuna trial that holds its record."""

STOPPED_EARLY = "stopped"
"""The user attribute of a study that says how its search ended: None while it goes on, empty if every wanted trial has
ended, else the end of a sentence such as "stopped by the timeout after 4 of 12 trials"."""

WORKERS = "workers"
"""The user attribute of a study that says on what its trials train now, as a sentence; empty for a single process whose
device PyTorch chose."""

PASSED_OVER = "passed_over"
"""The user attribute of a study with the methods whose best trial came first but could not be refitted, saved and
loaded, each with the reason."""

DEFAULTS = "defaults"
"""The user attribute of a study with the default of every dimension, as `<method>.<name>`."""

RETRY_OF = "retry_of"
"""The user attribute of a trial that runs again: the number it had before."""


@dataclass(frozen=True)
class TrialRecord:
    """One trial. Memory is in bytes, time in seconds; None where there is no value (an infeasible trial has no score).

    `needs` is what it uses of the limits that have no field, by measure. `facts` are facts from its folds that answers
    need (`Task.calibrated`). `written` is the score of what its folds wrote, if the study chose by that and the trial
    was among those to choose from. `passed_over` says why it cannot be the winner although it is complete: the best
    trial of its method could not be refitted, saved and loaded. `collapsed` counts the folds that did not learn, at the
    last rung, and `fold_losses` are the training losses there of those that did. `place` is its place, from 1, in the
    race on fresh folds that chose the winner, and `expected` its expected score then; None where there was no race, or
    it was not in it.
    """

    number: int
    name: str
    method: str
    state: str
    reason: str
    score: float | None
    fold_scores: tuple[float, ...]
    curve: tuple[float, ...]
    epochs: int
    trainable_params: int | None
    saved_params: int | None
    predicted_memory: int | None
    measured_memory: int | None
    seconds: float
    epochs_trained: float = 0.0
    rung_epochs: tuple[float, ...] = ()
    execution: str = ""
    params: dict[str, ParamValue] = field(default_factory=dict)
    saved_bytes: int | None = None
    unseen_memory: int = 0
    leaked: int = 0
    machine: bool = False
    needs: dict[str, float] = field(default_factory=dict)
    facts: dict[str, ParamValue] = field(default_factory=dict)
    written: float | None = None
    passed_over: str = ""
    collapsed: int = 0
    fold_losses: tuple[float, ...] = ()
    place: int | None = None
    expected: float | None = None

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> TrialRecord:
        """The record that was written as this JSON."""
        sequences = ("fold_scores", "curve", "rung_epochs", "fold_losses")
        return cls(**{**content, **{name: tuple(content.get(name, ())) for name in sequences}})

    @property
    def complete(self) -> bool:
        """Whether it trained to its end and so may win."""
        return self.state == COMPLETE

    @property
    def metrics(self) -> dict[str, float | None]:
        """Columns of the MLflow runs table; only complete trials have `score`, so that sorting by it is fair."""
        return {
            "score": self.score if self.complete else None,
            "score_when_stopped": None if self.complete else self.score,
            "trainable_params": self.trainable_params,
            "saved_params": self.saved_params,
            "saved_bytes": self.saved_bytes,
            "predicted_memory_mib": _mib(self.predicted_memory),
            "measured_memory_mib": _mib(self.measured_memory),
            "epochs_trained": self.epochs_trained,
            "collapsed_folds": self.collapsed or None,
            "seconds": self.seconds,
            **self.needs,
            **{f"score_{task}": sum(scores) / len(scores) for task, scores in scores_in(self.facts).items()},
        }

    def used(self, measure: str) -> float | None:
        """What the trial uses of the limit with that measure; None where that is not known."""
        found: float | None = self.needs.get(measure, getattr(self, measure, None))
        return found


def _mib(count: int | None) -> float | None:
    """Bytes as MiB, rounded to two places."""
    return None if count is None else round(count / 2**20, 2)


def plain(content: Any) -> dict[str, Any]:
    """A dataclass with its content for JSON, without empty values that most studies have."""
    spared = (
        "needs", "facts", "written", "chosen_by", "passed_over", "fold_losses", "references", "place", "expected",
        "race", "chance", "tasks",
    )  # fmt: skip
    nothing: tuple[Any, ...] = (None, "", {}, ())
    return asdict(
        content,
        dict_factory=lambda items: {key: value for key, value in items if key not in spared or value not in nothing},
    )


def records(study: optuna.Study) -> list[TrialRecord]:
    """Every trial that ended, in order, except those that run again or have done so.

    If the study chose by written texts, the best trials have the scores of theirs; if by a race, the finalists have
    their place. If a method was passed over when the winner was selected, its trials say so.
    """
    found, trials = [], study.get_trials(deepcopy=False)
    again = {trial.user_attrs.get(RETRY_OF) for trial in trials}
    for trial in trials:
        content = trial.user_attrs.get(RECORD)
        if content is not None and trial.number not in again:
            found.append(TrialRecord.read(content))
    attrs = study.user_attrs  # each access copies all of them
    choice, raced = Choice.read(attrs), Raced.read(attrs)
    found = raced.put_in(found) if raced else found
    chosen = choice.put_in(by_score(found)) if choice else {}
    found, over = [chosen.get(record.number, record) for record in found], attrs.get(PASSED_OVER, {})
    return [replace(one, passed_over=over[one.method]) if one.complete and one.method in over else one for one in found]


def by_score(found: list[TrialRecord]) -> list[TrialRecord]:
    """Complete trials by the score of the search, the best first; of equal ones, fewer trained parameters first."""
    complete = [record for record in found if record.complete and record.score is not None]
    return sorted(complete, key=lambda record: (-(record.score or 0.0), record.trainable_params or 0, record.number))


def ranked(found: list[TrialRecord]) -> list[TrialRecord]:
    """Complete trials, the winner first: those with scored texts by that score, then the others by their own scores.

    Those that raced come first too, by their places. Those that cannot be the winner come last.
    """

    def key(record: TrialRecord) -> tuple[bool, float, float]:
        written = math.inf if record.written is None else -record.written
        return bool(record.passed_over), written, math.inf if record.place is None else record.place

    return sorted(by_score(found), key=key)


def listed(found: Sequence[TrialRecord]) -> list[TrialRecord]:
    """All trials in the order of a leaderboard: the `ranked` ones, then the others by how they ended and by score."""
    first = ranked([*found])
    numbers = {record.number for record in first}
    others = [record for record in found if record.number not in numbers]
    return [*first, *sorted(others, key=lambda one: (ENDS.index(one.state), -(one.score or 0.0), one.number))]


@dataclass(frozen=True)
class TestScores:
    """Scores on the held-out rows: of the winner, the baseline (`baseline_name`), and each method's untuned default.

    A default is None if it was not trained, for example because it is over the budget; `notes` says why. `seconds` is
    the wall time of the refits and their scoring; None in a study that finished before it was kept. `form` is the form
    of the winner: "refit", "average" or "ensemble" (`autopeft.search.served`). `references` are the scores of reference
    models without an add-on, by name (`autopeft.search.references`); None likewise. `tasks` are
    the scores of each of several tasks, by its name; the other scores are then gains.
    """

    winner: float
    baseline: float
    defaults: dict[str, float | None]
    notes: dict[str, str]
    seconds: float | None = None
    baseline_name: str = "majority class"
    form: str = "refit"
    references: dict[str, float | None] = field(default_factory=dict)
    tasks: dict[str, TaskScore] = field(default_factory=dict)

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> TestScores:
        """The scores that were written as this JSON."""
        tasks = {name: TaskScore.read(task) for name, task in content.get("tasks", {}).items()}
        return cls(**{**content, "tasks": tasks})


@dataclass(frozen=True)
class Result:
    """A study with a winner: its trials, the best of them, and the scores on the held-out rows.

    `stopped` says how the search ended before its last trial, such as "stopped by the timeout after 4 of 12 trials";
    it is empty if it did not. `chosen_by` names the score of texts that chose the winner, if one did. If a race on
    fresh folds chose it, `race` says how sure that is, and `chance` is the probability that it is better than the best
    other default.
    """

    name: str
    metric: str
    records: list[TrialRecord]
    best: TrialRecord
    test: TestScores
    winner_folder: str
    tracking_uri: str
    stopped: str = ""
    chosen_by: str = ""
    race: str = ""
    chance: float | None = None

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Result:
        """The result that `plain` wrote."""
        found = [TrialRecord.read(record) for record in content["records"]]
        parts = {"records": found, "best": TrialRecord.read(content["best"]), "test": TestScores.read(content["test"])}
        return cls(**{**content, **parts})
