"""What MLflow and the libraries under it print while they fail: kept out, since what matters is said in a sentence."""

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
"""Seconds without an answer after which that is worth a sentence."""

THREAD = "mlflow"
"""The name of threads that talk to a store."""

LEVELS = {
    "mlflow": logging.ERROR,  # it warns of texts that it cuts, and of what it tries again
    "alembic": logging.WARNING,
    "mlflow.store.db.utils": logging.CRITICAL,  # it prints a traceback of each error it raises
}


class NoAnswerError(TimeoutError):
    """A store took a request and did not answer in time."""


def hush() -> None:
    """Keep the libraries' own reports away from stderr; called after MLflow's import, which sets its loggers."""
    for name, level in LEVELS.items():
        logging.getLogger(name).setLevel(level)
    logging.getLogger("urllib3.connectionpool").addFilter(_not_ours)


def forget_active_model() -> None:
    """Have MLflow tie no metric that this thread logs to the model that MLFLOW_ACTIVE_MODEL_ID names."""
    with suppress(ImportError, AttributeError):  # in versions that have no such model
        from mlflow.tracking import fluent

        context = fluent.ActiveModelContext()
        context._model_id = None
        fluent._ACTIVE_MODEL_CONTEXT.set(context)


def within(seconds: float, action: Callable[[], T], slow: Callable[[], None] | None = None) -> T:
    """What `action` returns, in a thread of its own that is left behind if it takes longer.

    Args:
        seconds: for which is waited.
        action: asks a store.
        slow: called once, where there is no answer after `SILENCE`.

    Raises:
        NoAnswerError: it took longer.
        Exception: whatever it raises.
    """
    found: list[T] = []
    raised: list[BaseException] = []

    def work() -> None:
        try:
            found.append(action())
        except BaseException as error:  # to be raised where somebody waits for it
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
    """Whether a record comes from another thread than those that talk to a study's store."""
    return record.threadName != THREAD
