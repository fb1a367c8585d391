"""The MLflow store of a study: how to reach it, and what to say when it cannot be reached."""

from __future__ import annotations

import random
import re
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from autopeft.common.address import public
from autopeft.common.exceptions import TrackingError
from autopeft.common.sqlite import use_write_ahead_log
from autopeft.common.units import format_seconds
from autopeft.study.folder import ARTIFACTS, STORE
from autopeft.tracking.address import (
    DATABASES,
    is_server,
    open_afresh,
    registry_uri,
    sqlite_path,
    tracking_uri,
)
from autopeft.tracking.moved import follow
from autopeft.tracking.quiet import NoAnswerError, within
from autopeft.tracking.tables import lay
from autopeft.tracking.view import VIEW_TAG, ranking_view

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds that a study waits until its calls are sent: at its end, and at a start for those left from before."""

LONGEST_SILENCE = 300.0
"""Seconds that a start waits for answers of its store, which can be slow on a machine under load."""

SOON = re.compile(
    r"already exists|duplicate|unique constraint|database is locked|deadlock|could not serialize|concurrently updated|"
    r"out-of-date database schema|no such table|no such column|timed out",
    re.IGNORECASE,
)
"""What databases say while other processes make the same tables or the same experiment, and what a timeout says."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds between attempts to set up a store that others are setting up at the same time."""


def connect(
    uri: str | None,
    output: Path,
    name: str,
    patience: float = LONGEST_SILENCE,
    say: Callable[[str], None] = lambda _: None,
    artifacts: str | None = None,
) -> tuple[MlflowClient, str, str]:
    """A client, its tracking URI, and the id of the experiment `name`, which is made if it is not there.

    Args:
        uri: as in the study file.
        output: the study's folder.
        name: of the experiment.
        patience: seconds that all of it may take.
        say: gets a sentence if this takes long.
        artifacts: where the experiment keeps files; None: what a server is set to, or a folder in `output`.

    Raises:
        TrackingError: the store cannot be reached or used, does not answer in time, or the experiment is there already
            and keeps files elsewhere.
    """
    target = tracking_uri(uri, output)
    try:
        client, experiment_id = answered(patience, lambda: _open(uri, target, output, name, artifacts), say)
    except TrackingError:
        raise
    except Exception as error:  # each kind of store raises its own: sqlalchemy's, a driver's ImportError, OSError
        raise TrackingError(
            f"`uri` in [tracking] must lead to an MLflow store, but {public(target)} gave: "
            f"{public(first_line(error))}; {_advice(error, target)}."
        ) from None
    return client, target, experiment_id


def answered(patience: float, ask: Callable[[], T], say: Callable[[str], None]) -> T:
    """What a store answers; it is asked again while others set it up or lock it, or while it is silent.

    Args:
        patience: seconds that this may take.
        ask: asks the store.
        say: gets a sentence if this takes long.

    Raises:
        NoAnswerError: there was no answer, and no earlier error says more.
        Exception: any other error of the store.
    """
    until, met = time.monotonic() + patience, list[Exception]()
    told = f"MLflow's store does not answer; the study waits for it for up to {format_seconds(patience)}."
    try:
        return within(patience, lambda: _until(until, ask, met), lambda: say(told))
    except NoAnswerError:
        if met:
            raise met[-1] from None
        raise


@contextmanager
def reaching() -> Iterator[None]:
    """Turn the error of a store that cannot be read into one sentence that says how to go on."""
    try:
        yield
    except (MlflowException, OSError) as error:
        raise TrackingError(
            f"the MLflow store cannot be read: {public(first_line(error))}. "
            "Once it can, run the same command again: the trials that finished are kept."
        ) from None


def first_line(error: BaseException) -> str:
    """What an error says, without its details."""
    lines = [line for line in str(error).strip().splitlines() if not line.startswith("(raised as a result of")]
    return (lines or [type(error).__name__])[0][:500].rstrip(".")


def _until(until: float, ask: Callable[[], T], met: list[Exception]) -> T:
    """Ask repeatedly, at most until `until` (`time.monotonic`); `met` collects the errors on the way."""
    pause = FIRST_PAUSE
    while True:
        try:
            return ask()
        except Exception as error:  # of any kind, as above
            wait = pause * random.uniform(0.5, 1.5)  # processes that collided once should not collide again
            if not SOON.search(str(error)) or time.monotonic() + wait > until:
                raise
            met.append(error)
        time.sleep(wait)
        pause = min(2 * pause, LONGEST_PAUSE)


def _open(uri: str | None, target: str, output: Path, name: str, artifacts: str | None) -> tuple[MlflowClient, str]:
    path = sqlite_path(target)
    if path is not None:
        lay(path)
    if not uri:
        use_write_ahead_log(output / STORE)
        follow(output / STORE, output / ARTIFACTS)
    if target.startswith(DATABASES):
        open_afresh(target)
        _knock(target)
    client = MlflowClient(target, registry_uri(target))
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        place = artifacts or (None if is_server(target) else (output / ARTIFACTS).absolute().as_uri())
        tags = {VIEW_TAG: ranking_view(), "mlflow.experimentKind": "custom_model_development"}
        return client, client.create_experiment(name, place, tags)
    there = experiment.artifact_location
    if artifacts and there.rstrip("/") != artifacts.rstrip("/"):
        raise TrackingError(
            f"`artifacts` in [tracking] cannot change once a study has begun: the experiment {name} keeps its files in "
            f"{public(there)}; restore that, or give the study another `name`."
        )
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    if VIEW_TAG not in experiment.tags:
        client.set_experiment_tag(experiment.experiment_id, VIEW_TAG, ranking_view())
    return client, experiment.experiment_id


def _knock(uri: str) -> None:
    """Read from a database once: MLflow itself would try ten times, for 90 seconds, before it says what is wrong.

    Raises:
        Exception: what the database's driver raises.
    """
    from mlflow.store.db.utils import create_sqlalchemy_engine
    from sqlalchemy import inspect

    engine = create_sqlalchemy_engine(uri)
    try:
        inspect(engine).get_table_names()
    finally:
        engine.dispose()


def _advice(error: Exception, target: str) -> str:
    if isinstance(error, ImportError):
        return f"install the database's driver (pip install {error.name})"
    if "locate revision" in str(error):
        return "another program's tables are in this database; give MLflow a database, or a schema, of its own"
    if "database is locked" in str(error):
        return "another program has locked it: end that program, or wait, and run the same command again"
    if is_server(target):
        return "check the address, that the server runs, and MLFLOW_TRACKING_USERNAME, _PASSWORD or _TOKEN"
    if not target.startswith("sqlite:") and target.startswith(DATABASES):
        return "check the address, that the database runs, and the variables its driver reads, such as PGPASSWORD"
    return "check the path, or move a file that is not an MLflow store out of the way"
