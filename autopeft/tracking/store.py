"""The MLflow store of a study: where it is, how to reach it, and what to say when it cannot be reached."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from autopeft.exceptions import UserInputError
from autopeft.tracking.tables import lay
from autopeft.tracking.view import VIEW_TAG, ranking_view

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class TrackingError(UserInputError):
    """The tracking store cannot be used."""


def tracking_uri(uri: str | None, output: Path) -> str:
    """The store a study logs to: the one its file names, or SQLite in its output folder."""
    return uri or f"sqlite:///{(output / 'mlflow.db').absolute()}"


def connect(uri: str | None, output: Path, name: str) -> tuple[MlflowClient, str, str]:
    """A client, its tracking URI, and the id of the experiment `name`, which is made if it is not there.

    Raises:
        TrackingError: the store cannot be reached or used.
    """
    target = tracking_uri(uri, output)
    artifacts = None if is_server(target) else (output / "artifacts").absolute().as_uri()
    try:
        if not uri:
            lay(output / "mlflow.db")
            _use_write_ahead_log(output / "mlflow.db")
        client = MlflowClient(target)
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            tags = {VIEW_TAG: ranking_view(), "mlflow.experimentKind": "custom_model_development"}
            return client, target, client.create_experiment(name, artifacts, tags)
        if experiment.lifecycle_stage == "deleted":
            client.restore_experiment(experiment.experiment_id)
        if VIEW_TAG not in experiment.tags:
            client.set_experiment_tag(experiment.experiment_id, VIEW_TAG, ranking_view())
    except Exception as error:  # each kind of store raises its own: sqlalchemy's, a driver's ImportError, OSError
        advice = "check the path, or move a file that is no MLflow store out of the way"
        if is_server(target):
            advice = "check the address, that the server runs, and MLFLOW_TRACKING_USERNAME, _PASSWORD or _TOKEN"
        if isinstance(error, ImportError):
            advice = f"install the database's driver (pip install {error.name})"
        raise TrackingError(
            f"`uri` in [tracking] must lead to an MLflow store, but {public(target)} gave: "
            f"{public(first_line(error))}; {advice}."
        ) from None
    return client, target, experiment.experiment_id


@contextmanager
def reaching() -> Iterator[None]:
    """Turn a store that cannot be read into one sentence that says how to go on."""
    try:
        yield
    except (MlflowException, OSError) as error:
        raise TrackingError(
            f"the MLflow store cannot be read: {public(first_line(error))}. "
            "Once it can, run the same command again: the trials that finished are kept."
        ) from None


def is_server(uri: str) -> bool:
    """Whether the URI is an MLflow server's, not a database or folder that this process opens itself."""
    return not uri.startswith(("sqlite:", "file:", "mysql", "postgresql", "mssql", "/", "."))


def public(text: str) -> str:
    """`text` without the user and password of an address, and without what a query sets that may be a secret."""
    without = re.sub(r"//[^@\s]*@", "//", text)
    return re.sub(r"(?i)(\w*(?:passw|pwd|token|secret|key|credential|auth|sig)\w*(?:=|%3d))[^&;\s]*", r"\1…", without)


def first_line(error: BaseException) -> str:
    """What an error says, without its details."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:500].rstrip(".")


def _use_write_ahead_log(path: Path) -> None:
    """Let the UI read while a study writes, at less than half the time per write; SQLite remembers it in the file."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
