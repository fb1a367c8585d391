"""The runs of a study: the parent run of the search, and the nested run of each trial."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from autopeft.tracking.store import TrackingError, connect, reaching

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from mlflow import MlflowClient
    from mlflow.entities import Run

PARENT, NOTE = "mlflow.parentRunId", "mlflow.note.content"
"""MLflow's own tags: they nest a run and describe it."""

ROLE = "autopeft.role"
STUDY = "autopeft.study_id"
STATUS = {"FAIL": "FAILED", "INTERRUPTED": "KILLED"}
"""MLflow's run status by trial state; every other one is FINISHED."""


class TrialRun:
    """The nested run of one trial."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client, self.run_id = client, run_id
        self._unsent: list[Metric] = []

    def log_rung(self, step: int, fold_scores: Sequence[float], mean: float, *, loss: float, epoch: float) -> None:
        """Log where the trial stands at rung `step`: folds' scores, their mean, the training loss, epochs so far."""
        values = {"mean_score": mean, "training_loss": loss, "epoch": epoch}
        values |= {f"fold_{index}": score for index, score in enumerate(fold_scores)}
        self._unsent += _metrics(values, step)
        with suppress(MlflowException):  # a server that is away must not fail a healthy trial; sent with the next call
            self._client.log_batch(self.run_id, metrics=self._unsent)
            self._unsent = []

    def finish(self, state: str, reason: str, metrics: Mapping[str, float | None]) -> None:
        """Close the run with its state and what it came to; a metric that is None is left out.

        Raises:
            TrackingError: the server cannot be reached any more.
        """
        with reaching():
            tags = _tags(state=state, reason=reason, **{NOTE: _sentence(state, reason)})
            self._client.log_batch(self.run_id, metrics=self._unsent + _metrics(metrics), tags=tags)
            self._client.set_terminated(self.run_id, STATUS.get(state, "FINISHED"))


class Tracker:
    """A study's place in MLflow. Use as a context manager: no run is left RUNNING, whatever ends the block.

    Attributes:
        uri: the MLflow tracking URI.
        experiment_id: MLflow's id of the study.
        ended: numbers of the trials that an earlier start logged to their end; known once `start` was called.
    """

    def __init__(self, client: MlflowClient, uri: str, experiment_id: str) -> None:
        self._client, self.uri, self.experiment_id = client, uri, experiment_id
        self.ended: set[int] = set()
        self._interrupted: dict[int, str] = {}
        self._parent = ""

    @classmethod
    def open(cls, uri: str | None, output: Path, name: str) -> Tracker:
        """Connect, and find or make the experiment `name`.

        Args:
            uri: any MLflow tracking URI; None is a SQLite store in `output`.
            output: the study's folder; artifacts go there too, unless the URI is a server's, which has its own place.
            name: the study's name.

        Raises:
            TrackingError: the store cannot be reached or used.
        """
        return cls(*connect(uri, output, name))

    def start(self, study_id: str, description: str, params: Mapping[str, object]) -> None:
        """Make the parent run, or take up the one an earlier start of this study made.

        Runs that a killed process left RUNNING are closed as KILLED.
        """
        with reaching():
            earlier = self._runs(f"tags.`{STUDY}` = '{study_id}'")
            if earlier:
                self._parent = earlier[0].info.run_id
                self._close_left_open("interrupted: the process ended while this trial ran")
                for run in self._trials():
                    number = int(run.data.tags["trial"])
                    if run.data.tags["state"] == "INTERRUPTED":
                        self._interrupted[number] = run.info.run_id
                    else:
                        self.ended.add(number)
                self._client.update_run(self._parent, status="RUNNING")
                return
            tags = {ROLE: "search", STUDY: study_id, NOTE: description, "state": "SEARCH"}
            self._parent = self._client.create_run(self.experiment_id, tags=tags, run_name="search").info.run_id
            self._client.log_batch(self._parent, params=_params(params))

    def trial(self, number: int, name: str, params: Mapping[str, object]) -> TrialRun:
        """Open the nested run of a trial; params are logged without their method's prefix, so that columns line up.

        A run of the same number that was interrupted is taken up again.
        """
        method = str(params["method"])
        own = {key.removeprefix(f"{method}."): value for key, value in params.items()}
        tags = {PARENT: self._parent, ROLE: "trial", "trial": str(number), "method": method, "state": "RUNNING"}
        tags |= {"candidate": name, NOTE: name}
        with reaching():
            run_id = self._interrupted.pop(number, None)
            if run_id is None:
                run_name = f"{number:03d} {method}"
                run_id = self._client.create_run(self.experiment_id, tags=tags, run_name=run_name).info.run_id
            else:
                self._client.update_run(run_id, status="RUNNING")
                self._client.log_batch(run_id, tags=_tags(state="RUNNING", reason=""))
            self._client.log_batch(run_id, params=_params(own))
        return TrialRun(self._client, run_id)

    def log_text(self, text: str, name: str) -> None:
        """Keep a text as an artifact of the parent run."""
        with reaching():
            self._client.log_text(self._parent, text, name)

    def log_result(self, note: str, metrics: Mapping[str, float | None], winner_number: int, folder: Path) -> None:
        """Log what the search came to: its note, scores and saved winner on the parent run, on each trial its place.

        A complete trial that lost gets by how much as its reason, so that the runs table answers for every run.
        """
        with reaching():
            complete = [run for run in self._trials() if run.data.tags["state"] == "COMPLETE"]
            best = max((run.data.metrics["score"] for run in complete), default=0.0)
            for run in complete:
                won = run.data.tags["trial"] == str(winner_number)
                gap = best - run.data.metrics["score"]
                lost = f"lost by {gap:.4f}" if gap else "tied with the winner, which is smaller or came first"
                reason = "won" if won else lost
                tags = _tags(winner=str(won).lower(), reason=reason, **{NOTE: _sentence("COMPLETE", reason)})
                self._client.log_batch(run.info.run_id, tags=tags)
            tags = _tags(reason=f"won by trial {winner_number}", **{NOTE: note})
            self._client.log_batch(self._parent, metrics=_metrics(metrics), tags=tags)
            # A folder of its own per winner: a study that goes on with more trials may crown another one.
            self._client.log_artifacts(self._parent, str(folder), f"winner/trial_{winner_number:03d}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._parent:
            return
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        status = "FINISHED" if kind is None else "KILLED" if interrupted else "FAILED"
        try:
            with reaching():
                self._close_left_open("interrupted" if interrupted else f"the search ended: {error}")
                self._client.set_terminated(self._parent, status)
        except TrackingError:
            if error is None:
                raise  # otherwise what ended the block matters more than the store it could not be logged to

    def _trials(self, condition: str = "") -> list[Run]:
        return self._runs(f"tags.`{PARENT}` = '{self._parent}'{condition}")

    def _runs(self, condition: str) -> list[Run]:
        page = self._client.search_runs([self.experiment_id], condition)
        found = list(page)
        while page.token:
            page = self._client.search_runs([self.experiment_id], condition, page_token=page.token)
            found += page
        return found

    def _close_left_open(self, reason: str) -> None:
        for run in self._trials(" and attributes.status = 'RUNNING'"):
            TrialRun(self._client, run.info.run_id).finish("INTERRUPTED", reason, {})


def _sentence(state: str, reason: str) -> str:
    return f"**{state}**" + f": {reason}" * bool(reason)


def _metrics(values: Mapping[str, float | None], step: int = 0) -> list[Metric]:
    now = time.time_ns() // 10**6
    return [Metric(name, float(value), now, step) for name, value in values.items() if value is not None]


def _params(values: Mapping[str, object]) -> list[Param]:
    """MLflow keeps texts of at most 6,000 characters in a param, 8,000 in a tag."""
    return [Param(name, str(value)[:6000]) for name, value in values.items() if value is not None]


def _tags(**values: str) -> list[RunTag]:
    return [RunTag(name, value[:8000]) for name, value in values.items()]
