"""Every trial as an MLflow run: experiment = study, one parent run for the search, one nested run per trial.

Only `MlflowClient` is used, never MLflow's process-wide state. In the runs table, `score` exists for complete trials
alone, so that sorting by it ranks what may win; a pruned trial has its last mean as `score_when_stopped`. The tags
`state`, `reason` and `method` say why the others lost.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Self

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # no network that the user did not ask for
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from autopeft.exceptions import UserInputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

for _name in ("mlflow", "alembic"):
    logging.getLogger(_name).setLevel(logging.WARNING)

PARENT, NOTE = "mlflow.parentRunId", "mlflow.note.content"
"""MLflow's own tags: they nest a run and describe it."""

ROLE = "autopeft.role"
STUDY = "autopeft.study_id"
STATUS = {"FAIL": "FAILED", "INTERRUPTED": "KILLED"}
"""MLflow's run status by trial state; every other one is FINISHED."""


class TrackingError(UserInputError):
    """The tracking store cannot be used."""


class TrialRun:
    """The nested run of one trial."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client, self.run_id = client, run_id

    def log_rung(self, epoch: int, fold_scores: Sequence[float], mean: float, loss: float) -> None:
        """Log where the trial stands after an epoch: the folds' scores, their mean, and the training loss."""
        values = {"mean_score": mean, "training_loss": loss, **{f"fold_{i}": s for i, s in enumerate(fold_scores)}}
        self._client.log_batch(self.run_id, metrics=_metrics(values, epoch))

    def finish(self, state: str, reason: str, metrics: Mapping[str, float | None]) -> None:
        """Close the run with its state and what it came to; a metric that is None is left out."""
        note = f"**{state}**" + f": {reason}" * bool(reason)
        tags = {"state": state, "reason": reason[:5000], NOTE: note}
        self._client.log_batch(self.run_id, metrics=_metrics(metrics), tags=[RunTag(k, v) for k, v in tags.items()])
        self._client.set_terminated(self.run_id, STATUS.get(state, "FINISHED"))


class Tracker:
    """A study's place in MLflow. Use as a context manager: no run is left RUNNING, whatever ends the block."""

    def __init__(self, client: MlflowClient, uri: str, experiment_id: str) -> None:
        self._client, self.uri, self.experiment_id = client, uri, experiment_id
        self._parent = ""

    @classmethod
    def open(cls, uri: str | None, output: Path, name: str) -> Tracker:
        """Connect, and find or make the experiment `name`.

        Args:
            uri: any MLflow tracking URI; None is a SQLite store in `output`.
            output: the study's folder.
            name: the study's name.

        Raises:
            TrackingError: the store cannot be reached or used.
        """
        target = tracking_uri(uri, output)
        # With a server, where artifacts go is the server's business.
        artifacts = None if uri else (output / "artifacts").absolute().as_uri()
        try:
            client = MlflowClient(target)
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                return cls(client, target, client.create_experiment(name, artifact_location=artifacts))
            if experiment.lifecycle_stage == "deleted":
                client.restore_experiment(experiment.experiment_id)
            return cls(client, target, experiment.experiment_id)
        except (MlflowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise TrackingError(
                f"`uri` in [tracking] must lead to an MLflow store, but {target} gave: {reason}"
            ) from None

    def start(self, study_id: str, description: str, params: Mapping[str, object]) -> None:
        """Make the parent run, or take up the one an earlier start of this study made.

        Runs that a killed process left RUNNING are closed as KILLED.
        """
        earlier = self._client.search_runs([self.experiment_id], f"tags.`{STUDY}` = '{study_id}'", max_results=1)
        if earlier:
            self._parent = earlier[0].info.run_id
            self._close_left_open("interrupted: the process ended while this trial ran; it was run again")
            self._client.update_run(self._parent, status="RUNNING")
            return
        tags = {ROLE: "search", STUDY: study_id, NOTE: description, "state": "SEARCH"}
        self._parent = self._client.create_run(self.experiment_id, tags=tags, run_name="search").info.run_id
        self._client.log_batch(self._parent, params=_params(params))

    def trial(self, number: int, name: str, params: Mapping[str, object]) -> TrialRun:
        """Open the nested run of a trial; params are logged without their method's prefix, so that columns line up."""
        method = str(params["method"])
        own = {key.removeprefix(f"{method}."): value for key, value in params.items()}
        tags = {
            PARENT: self._parent,
            ROLE: "trial",
            "trial": str(number),
            "method": method,
            "state": "RUNNING",
        }
        run = self._client.create_run(self.experiment_id, tags=tags, run_name=f"{number:03d} {name}")
        self._client.log_batch(run.info.run_id, params=_params(own))
        return TrialRun(self._client, run.info.run_id)

    def log_text(self, text: str, name: str) -> None:
        """Keep a text as an artifact of the parent run."""
        self._client.log_text(self._parent, text, name)

    def log_result(self, note: str, metrics: Mapping[str, float | None], winner_number: int, folder: Path) -> None:
        """Log what the search came to on the parent run, and mark the winner's run."""
        runs = self._client.search_runs(
            [self.experiment_id],
            f"tags.`{PARENT}` = '{self._parent}' and tags.trial = '{winner_number}'",
            max_results=1,
        )
        for run in runs:
            self._client.set_tag(run.info.run_id, "winner", "true")
        self._client.log_batch(self._parent, metrics=_metrics(metrics), tags=[RunTag(NOTE, note)])
        self._client.log_artifacts(self._parent, str(folder), "winner")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._parent:
            return
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        self._close_left_open("interrupted" if interrupted else f"the search ended: {error}")
        status = "FINISHED" if kind is None else "KILLED" if interrupted else "FAILED"
        self._client.set_terminated(self._parent, status)

    def _close_left_open(self, reason: str) -> None:
        running = f"tags.`{PARENT}` = '{self._parent}' and attributes.status = 'RUNNING'"
        for run in self._client.search_runs([self.experiment_id], running):
            TrialRun(self._client, run.info.run_id).finish("INTERRUPTED", reason, {})


def tracking_uri(uri: str | None, output: Path) -> str:
    """The store a study logs to: the one its file names, or SQLite in its output folder."""
    return uri or f"sqlite:///{(output / 'mlflow.db').absolute()}"


def serve(uri: str | None, output: Path, name: str, port: int) -> None:
    """Serve the MLflow UI on a study's store on 127.0.0.1 until Ctrl-C; a tracking server already is one.

    Raises:
        TrackingError: the study has no store yet.
    """
    if uri and uri.startswith(("http://", "https://")):
        sys.stdout.write(f"The study logs to a tracking server; open {uri}\n")
        return
    if not uri and not (output / "mlflow.db").is_file():
        raise TrackingError(f"{output} holds no MLflow store yet; run the study first.")
    tracker = Tracker.open(uri, output, name)
    port = _free_port(port)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", tracker.uri]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    if not uri:
        command += ["--artifacts-destination", (output / "artifacts").absolute().as_uri()]
    address = f"http://127.0.0.1:{port}/#/experiments/{tracker.experiment_id}/runs"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_until_up(process, port)
        sys.stdout.write(f"MLflow UI: {address}\nCtrl-C ends it.\n")
        sys.stdout.flush()
        process.wait()
    except KeyboardInterrupt:
        pass
    finally:
        process.terminate()
        process.wait()


def _wait_until_up(process: subprocess.Popen[bytes], port: int, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise TrackingError("the MLflow server did not come up; run `mlflow server` by hand to see why.")


def _free_port(wanted: int) -> int:
    """`wanted` if nothing listens there, else one the system picks."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise TrackingError("no free port was found on 127.0.0.1.")


def _metrics(values: Mapping[str, float | None], step: int = 0) -> list[Metric]:
    now = time.time_ns() // 10**6
    return [Metric(name, float(value), now, step) for name, value in values.items() if value is not None]


def _params(values: Mapping[str, object]) -> list[Param]:
    """MLflow keeps texts of at most 6,000 characters."""
    return [Param(name, str(value)[:6000]) for name, value in values.items() if value is not None]
