"""The runs of a study: the parent run of the search, and the nested run of each trial."""

from __future__ import annotations

import re
from base64 import b64encode
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Self

from autopeft.common.exceptions import TrackingError
from autopeft.common.units import counted
from autopeft.study.folder import OUTBOX, REFUSED
from autopeft.study.lock import held
from autopeft.tracking import values
from autopeft.tracking.decided import Decided, place
from autopeft.tracking.load import sampling
from autopeft.tracking.outbox import Outbox
from autopeft.tracking.quiet import THREAD
from autopeft.tracking.receiver import MlflowReceiver
from autopeft.tracking.remarks import NO_REMARKS
from autopeft.tracking.sender import KEY, Sender, weights_of
from autopeft.tracking.store import LONGEST_SILENCE, PATIENCE, answered, connect, reaching

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path
    from types import TracebackType

    from mlflow import MlflowClient
    from mlflow.entities import Run

    from autopeft.tracking.remarks import Remarks

PARENT, NOTE = "mlflow.parentRunId", "mlflow.note.content"
"""MLflow's own tags: they nest a run and describe it."""

ROLE, TRAIN = "autopeft.role", "train"
STATUS = {"FAIL": "FAILED", "INTERRUPTED": "KILLED", "STOPPED": "KILLED"}
"""MLflow's run status by trial state; every other one is FINISHED."""

KILLED = "interrupted: the process ended while this trial ran"
LONGEST_NAME = 40
"""Characters of a trial's name that the column of the runs table shows."""

SHOWN = 3
"""How many reasons a message about unsent calls shows."""


class TrialRun:
    """The nested run of one trial."""

    def __init__(self, tracker: Tracker, key: str) -> None:
        self._tracker, self.key = tracker, key

    def log_rung(self, step: int, fold_scores: Sequence[float], mean: float, *, loss: float, epoch: float) -> None:
        """Log where the trial stands at rung `step`: folds' scores, their mean, the training loss, epochs so far."""
        found = {"mean_score": mean, "training_loss": loss, "epoch": epoch}
        found |= {f"fold_{index}": score for index, score in enumerate(fold_scores)}
        self._tracker.put("log", self.key, metrics=values.metrics(found, step))

    def finish(self, state: str, reason: str, metrics: Mapping[str, float | None]) -> None:
        """Close the run with its state and its results; a metric that is None is left out."""
        tags = values.tags(state=state, reason=reason, **{NOTE: values.sentence(state, reason)})
        self._tracker.put("log", self.key, metrics=values.metrics(metrics), tags=tags)
        self._tracker.put("status", self.key, status=STATUS.get(state, "FINISHED"), end=values.now())
        self._tracker.open.pop(self.key, None)


class Tracker:
    """A study's place in MLflow. Use as a context manager: no run is left RUNNING, whatever ends the block.

    Attributes:
        uri: the MLflow tracking URI.
        experiment_id: MLflow's id of the study.
        outbox: takes everything to be logged.
        open: the runs of trials that are still going, by key.
        patience: seconds that the end of a study waits until everything is sent, and a start until what was left is.
        unsent: number of calls left in the outbox's file; known once the block has ended.
        ended: numbers of the trials that earlier starts logged to their end; known once `start` was called.
    """

    def __init__(
        self,
        client: MlflowClient,
        uri: str,
        experiment_id: str,
        sender: Sender,
        outbox: Outbox,
        output: Path,
        patience: float | None,
        say: Callable[[str], None],
    ) -> None:
        self._client, self.uri, self.experiment_id = client, uri, experiment_id
        self._sender, self.outbox, self._output, self._say = sender, outbox, output, say
        self.patience, self._silence = patience or PATIENCE, patience or LONGEST_SILENCE
        self.open: dict[str, TrialRun] = {}
        self.ended: set[int] = set()
        self.unsent = 0
        self._began = 0
        self._interrupted: set[str] = set()
        self._study = ""
        self._data = list[dict[str, str]]()

    @classmethod
    def connect(
        cls,
        uri: str | None,
        output: Path,
        name: str,
        say: Callable[[str], None] = lambda _: None,
        *,
        artifacts: str | None = None,
        patience: float | None = None,
        again: bool = False,
    ) -> Tracker:
        """Connect, and find or make the experiment `name`.

        Args:
            uri: any MLflow tracking URI; None: a SQLite store in `output`.
            output: the study's folder.
            name: the study's name.
            say: gets a sentence when the store is silent, goes away or refuses something.
            artifacts: where MLflow keeps files; None: what a server is set to, or a folder in `output`.
            patience: seconds that a start waits for an answer, and the end of the study until everything is sent; None:
                `LONGEST_SILENCE` and `PATIENCE`.
            again: send again what the store refused earlier.

        Raises:
            TrackingError: the store cannot be reached or used, or another process runs this study.
        """
        client, target, experiment_id = connect(uri, output, name, patience or LONGEST_SILENCE, say, artifacts)
        sender = Sender(client, experiment_id, output)
        receiver = MlflowReceiver(sender, output, say)
        outbox = Outbox(receiver, output / OUTBOX, output / REFUSED, thread=THREAD, again=again)
        return cls(client, target, experiment_id, sender, outbox, output, patience, say)

    def put(self, do: str, run: str, **content: Any) -> None:
        """Have the sender make a call as soon as possible.

        Args:
            do: its name.
            run: its run's key.
            content: of plain JSON.

        Raises:
            StoreError: the outbox's file could not be written.
            ValueError: the outbox is closed.
        """
        self.outbox.put({"do": do, "run": run, **content})

    def start(self, study_id: str, description: str, params: Mapping[str, object]) -> None:
        """Make the parent run, or resume the one that an earlier start of this study made.

        What earlier starts could not send is sent first. Runs that a killed process left RUNNING are closed as KILLED.

        Raises:
            TrackingError: the store cannot be reached.
        """
        self.outbox.drain(self.patience)
        with reaching():
            earlier, trials = answered(self._silence, lambda: self._earlier(study_id), self._say)
        self._study = study_id
        self._began = earlier[0].info.start_time if earlier else values.now()
        for run in (*earlier, *trials):
            self._sender.know(run.data.tags[KEY], run.info.run_id)
        for run in trials:
            if run.info.status == "RUNNING":
                TrialRun(self, run.data.tags[KEY]).finish("INTERRUPTED", KILLED, {})
            if run.info.status == "RUNNING" or run.data.tags["state"] == "INTERRUPTED":
                self._interrupted.add(run.data.tags[KEY])
            else:
                self.ended.add(int(run.data.tags["trial"]))
        if earlier:
            self.put("status", self._parent, status="RUNNING")
        else:
            tags = {ROLE: "search", "autopeft.study_id": study_id, NOTE: description, "state": "SEARCH"}
            self.put("create", self._parent, name="search", tags=tags, start=self._began)
            self.put("log", self._parent, params=values.params(params))

    def trial(self, number: int, name: str, params: Mapping[str, object], short: str = "") -> TrialRun:
        """Open the nested run of a trial, with the rows it trains on.

        Params are logged without their method's prefix, so that columns line up. An interrupted run of the same number
        is resumed.

        Args:
            number: of the trial.
            name: of its candidate.
            params: of its candidate.
            short: a short name for the run; default: `name`.
        """
        method = str(params["method"])
        own = {key.removeprefix(f"{method}."): value for key, value in params.items()}
        run = TrialRun(self, self._key(number))
        self.open[run.key] = run
        if run.key in self._interrupted:
            self.put("status", run.key, status="RUNNING")
            self.put("log", run.key, params=values.params(own), tags=values.tags(state="RUNNING", reason=""))
        else:
            tags = values.tags(
                trial=str(number), method=method, state="RUNNING", candidate=name, **{ROLE: "trial", NOTE: name}
            )
            title = f"{number:03d} {short or name}"
            title = title if len(title) <= LONGEST_NAME else f"{title[: LONGEST_NAME - 1]}…"
            self.put("create", run.key, name=title, tags=tags, start=values.now(), parent=self._parent)
            self.put("log", run.key, params=values.params(own))
            if taught := [found for found in self._data if found["context"] == TRAIN]:
                self.put("datasets", run.key, datasets=taught)
        return run

    def log_fresh_fold(self, number: int, fold: int, score: float) -> None:
        """Log the score of a trial's candidate on a fresh fold; the step is the fold, from 1."""
        self.put("log", self._key(number), metrics=values.metrics({"fresh_fold": score}, fold + 1))

    def log_text(self, text: str, name: str) -> None:
        """Log a text as an artifact of the parent run."""
        self.put("text", self._parent, text=text, name=name)

    def log_image(self, png: bytes, key: str, step: int) -> None:
        """Show a picture among the parent run's charts; several steps of a key become one chart with a slider."""
        self.put("image", self._parent, key=key, step=step, png=b64encode(png).decode())

    def system_metrics(self, *, on: bool = True) -> AbstractContextManager[None]:
        """Log the machine's load on the parent run while the block runs; its steps are seconds since the run began."""

        def log(sample: Mapping[str, float]) -> None:
            self.put("log", self._parent, metrics=values.metrics(sample, (values.now() - self._began) // 1000))

        return sampling(log) if on else nullcontext()

    def log_data(self, datasets: Sequence[dict[str, str]]) -> None:
        """Log on the parent run the rows that the search uses, as `datasets.dataset` describes them.

        Trials opened after this log the rows they train on.
        """
        self._data = list(datasets)
        self.put("datasets", self._parent, datasets=self._data)

    def log_result(
        self,
        note: str,
        metrics: Mapping[str, float | None],
        scores: Mapping[int, float],
        winner_number: int,
        folder: Path,
        stopped: str = "",
        decided: Decided | None = None,
        remarks: Remarks = NO_REMARKS,
    ) -> None:
        """Log the result of the search: note, scores and saved winner on the parent run, and on each trial its place.

        The reason of a complete trial that lost says by how much, and what it would have saved, so that the runs table
        explains every run.

        Args:
            note: what a reader of the parent run sees first.
            metrics: of the parent run.
            scores: of the complete trials, by number.
            winner_number: the trial that won.
            folder: of the saved winner.
            stopped: how the search ended before its last trial, such as "stopped by the timeout after 4 of 12 trials";
                empty if it did not. It becomes the tag of that name.
            decided: what the winner was chosen by among the best, if the scores of all did not decide.
            remarks: on some of the trials.
        """
        compared = {number: score for number, score in scores.items() if number not in remarks.passed_over}
        for number in scores:
            reason = place(number, winner_number, compared, decided, remarks.cheaper.get(number))
            if number in remarks.passed_over:
                reason = f"could not be the winner: {remarks.passed_over[number]}"
            reason = "; ".join(filter(None, (reason, remarks.collapsed.get(number))))
            won = str(number == winner_number).lower()
            tags = values.tags(winner=won, reason=reason, **{NOTE: values.sentence("COMPLETE", reason)})
            more = {"metrics": values.metrics({decided.metric: decided.scores.get(number)})} if decided else {}
            self.put("log", self._key(number), tags=tags, **more)
        tags = values.tags(reason=f"won by trial {winner_number}", stopped=stopped, **{NOTE: note})
        self.put("log", self._parent, metrics=values.metrics(metrics), tags=tags)
        # One folder per winner: a study that goes on with more trials may select another one.
        self.put("files", self._parent, path=f"winner/trial_{winner_number:03d}", **_folder(folder, self._output))

    def log_model(
        self,
        folder: Path,
        name: str,
        number: int,
        params: Mapping[str, object],
        facts: Mapping[str, object] | None = None,
        card: str = "",
    ) -> None:
        """Log a winner, saved as an MLflow model, with its trial, and register it with the alias `winner`.

        Args:
            folder: of the MLflow model.
            name: of the registered model; `/` and `:`, which MLflow does not allow, become `-`.
            number: of the trial that won.
            params: of the winner.
            facts: about the winner, such as its scores; they become tags of the registered model and its version.
            card: what it is and how good, in Markdown; it becomes their description.
        """
        registered = re.sub(r"[/:]", "-", name)
        self.put(
            "model",
            self._key(number),
            name=registered,
            alias="winner",
            params=values.params(params),
            tags=values.tags(**{key: str(value) for key, value in (facts or {}).items() if value is not None}),
            description=values.description(card),
            **_folder(folder, self._output),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        try:
            if self._study:
                for run in list(self.open.values()):
                    run.finish("INTERRUPTED", "interrupted" if interrupted else f"the search ended: {error}", {})
                status = "FINISHED" if kind is None else "KILLED" if interrupted else "FAILED"
                self.put("status", self._parent, status=status, end=values.now())
        finally:
            self.unsent = self.outbox.close(self.patience if self._study else 0.0)

    def _earlier(self, study_id: str) -> tuple[list[Run], list[Run]]:
        """The parent run of a study and the runs of its trials, as far as they exist."""
        found = self._runs(f"tags.`{KEY}` = '{_parent(study_id)}'")
        return found, self._runs(f"tags.`{PARENT}` = '{found[0].info.run_id}'") if found else []

    @property
    def _parent(self) -> str:
        return _parent(self._study)

    def _key(self, number: int) -> str:
        return f"{self._study}/trial/{number}"

    def _runs(self, condition: str) -> list[Run]:
        page = self._client.search_runs([self.experiment_id], condition)
        found = list(page)
        while page.token:
            page = self._client.search_runs([self.experiment_id], condition, page_token=page.token)
            found += page
        return found


def sync(uri: str | None, output: Path, name: str, say: Callable[[str], None]) -> int:
    """Send what a study could not send, and again what MLflow refused; returns how many calls are left.

    Raises:
        TrackingError: there is no study, the store cannot be reached, or something can never be sent.
        StudyError: the study is running, and sends its calls itself.
    """
    if not (output / OUTBOX).is_file():
        raise TrackingError(f"{output} holds no study with anything to send; start one with `autopeft run`.")
    with held(output), Tracker.connect(uri, output, name, say, again=True) as tracker:
        left = tracker.outbox.drain(PATIENCE)
    reasons = tracker.outbox.reasons()
    if reasons and not left:
        different = sorted({*reasons})
        raise TrackingError(
            f"MLflow has what this study logged, except {counted(len(reasons), 'call')}: "
            f"{'; '.join(different[:SHOWN])}{'; …' * (len(different) > SHOWN)}. "
            f"What is missing is in {output / REFUSED}: fix what the reasons name and run the same command again, "
            "or remove that file."
        )
    return left


def _parent(study_id: str) -> str:
    return f"{study_id}/search"


def _folder(folder: Path, output: Path) -> dict[str, str]:
    """A folder to send, relative to the study's own, which may be moved before; with a digest of the weights in it."""
    whole, base = folder.absolute(), output.absolute()
    return {
        "folder": str(whole.relative_to(base) if whole.is_relative_to(base) else whole),
        "weights": weights_of(folder),
    }
