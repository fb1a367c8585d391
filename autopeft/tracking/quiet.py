"""Silence what MLflow and its libraries print when they fail; autopeft says what matters in a sentence."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

SILENCE = 10.0
"""Seconds without an answer after which the user is told."""

THREAD = "mlflow"
"""The name of threads that talk to a store."""

LEVELS = {
    "mlflow": logging.ERROR,  # it warns of texts that it cuts, and of retries
    "alembic": logging.WARNING,
    "mlflow.store.db.utils": logging.CRITICAL,  # it prints a traceback of each error it raises
}


class NoAnswerError(TimeoutError):
    """A store took a request and did not answer in time."""


def hush() -> None:
    """Keep the libraries' own reports off stderr; called after MLflow's import, which sets up its loggers."""
    for name, level in LEVELS.items():
        logging.getLogger(name).setLevel(level)
    logging.getLogger("urllib3.connectionpool").addFilter(_not_ours)


def forget_active_model() -> None:
    """Keep MLflow from tying metrics that this thread logs to the model that MLFLOW_ACTIVE_MODEL_ID names."""
    with suppress(ImportError, AttributeError):  # in versions without an active model
        from mlflow.tracking import fluent

        context = fluent.ActiveModelContext()
        context._model_id = None
        fluent._ACTIVE_MODEL_CONTEXT.set(context)


def within(seconds: float, action: Callable[[], T], slow: Callable[[], None] | None = None) -> T:
    """Return the result of `action`, run in a separate thread that is left behind if it takes too long.

    Args:
        seconds: how long to wait.
        action: asks a store.
        slow: called once if there is no answer after `SILENCE`.

    Raises:
        NoAnswerError: it took longer.
        Exception: whatever `action` raises.
    """
    found: list[T] = []
    raised: list[BaseException] = []

    def work() -> None:
        try:
            found.append(action())
        except BaseException as error:  # raised again in the waiting thread
            raised.append(error)

    thread = threading.Thread(target=work, name=THREAD, daemon=True)
    thread.start()
    began = time.monotonic()
    until = began + seconds
    while thread.is_alive() and time.monotonic() < until:
        if slow and time.monotonic() - began > SILENCE:
            slow()
            slow = None
        thread.join(min(0.2, max(0.0, until - time.monotonic())))  # short, so that Ctrl-C is not kept waiting
    if raised:
        raise raised[0]
    if not found:
        raise NoAnswerError(f"it gave no answer within {seconds:.0f} s")
    return found[0]


def _not_ours(record: logging.LogRecord) -> bool:
    """Whether a record comes from a thread that does not talk to a study's store."""
    return record.threadName != THREAD
