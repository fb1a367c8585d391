"""What a study has to tell MLflow: kept in a file until the store has taken it, and sent by a thread of its own.

So a search never waits for MLflow. While a server is away the search goes on, and what it logs is sent when the server
is back, in this start or a later one. A call that the store would never take is set aside, so that it
holds up no other.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from autopeft.common.exceptions import StoreError
from autopeft.study.lock import NO_LOCKS
from autopeft.tracking import backlog
from autopeft.tracking.address import TrackingError, public
from autopeft.tracking.quiet import THREAD, forget_active_model
from autopeft.tracking.refusal import Verdict, verdict
from autopeft.tracking.sender import Sender
from autopeft.tracking.store import first_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mlflow import MlflowClient

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""Seconds between attempts to reach a server that is away; each pause is twice the one before."""

ATTEMPTS = 5
"""How often a store that answers otherwise may fail at a call before the call is set aside."""

MOST_HELD = 100
"""Calls that wait at most while the outbox is held: what an interrupted search still has time to send."""


class Outbox:
    """Calls to MLflow on their way, in the order they came.

    Args:
        client: of the store.
        experiment_id: where its runs are.
        path: of the file, in a folder that is there.
        say: told in a sentence when the store cannot be reached, when it can again, and what it refused.
        again: send what was refused earlier once more.

    Raises:
        TrackingError: another process has it open.
        StoreError: a file could not be written.
    """

    def __init__(
        self,
        client: MlflowClient,
        experiment_id: str,
        path: Path,
        say: Callable[[str], None],
        *,
        again: bool = False,
    ) -> None:
        self._sender, self._path, self._say = Sender(client, experiment_id, path.parent), path, say
        self._lock = FileLock(f"{path}.lock", timeout=0, thread_local=False, fallback_to_soft=False)
        try:
            self._lock.acquire()
        except Timeout:
            raise TrackingError(
                f"one process at a time may run a study, but another one has {path} open; wait until it ends."
            ) from None
        except OSError as error:  # of a file system without locks: the study's own lock keeps others away
            if error.errno not in NO_LOCKS:
                raise
        try:
            calls = backlog.take_up(path, self._tell)
            self._waiting: deque[dict[str, Any]] = deque(backlog.take_back(path, calls) if again else calls)
            path.touch()
        except BaseException:
            self._lock.release()
            raise
        self._told: set[str] = set()
        self._changed = threading.Condition()
        self._held = 0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name=THREAD, daemon=True)
        self._thread.start()

    def put(self, do: str, run: str, **content: Any) -> None:
        """Send a call as soon as that can be: `do` names it, `run` is its run's key, `content` is plain JSON.

        Raises:
            StoreError: the outbox's file could not be written.
            ValueError: the outbox is closed.
        """
        call = {"do": do, "run": run, **content}
        with self._changed:
            if self._closed.is_set():
                raise ValueError("the outbox is closed")
            backlog.add(self._path, call)
            self._waiting.append(call)
            self._changed.notify_all()

    def hold(self) -> None:
        """Keep what comes, as far as it is not much, until `release` or `drain`.

        Two threads of one Python program take each other's time.
        """
        with self._changed:
            self._held = MOST_HELD

    def release(self) -> None:
        """Send what was held."""
        with self._changed:
            self._held = 0
            self._changed.notify_all()

    def drain(self, seconds: float) -> int:
        """Wait until all is sent, but not longer than that; returns how many calls are left."""
        self.release()
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, timeout=seconds)
            return len(self._waiting)

    def close(self, seconds: float) -> int:
        """Send what can be sent in that time; returns how many calls are left in the file."""
        left = self.drain(seconds)
        with self._changed:
            self._closed.set()
            self._changed.notify_all()
        self._thread.join(timeout=1.0)
        self._lock.release()
        return left

    def know(self, key: str, run_id: str) -> None:
        """Take note of a run that was found in the store."""
        self._sender.know(key, run_id)

    def _tell(self, sentence: str) -> None:
        with suppress(Exception):  # a stream that is closed must not end the thread that sends
            self._say(sentence)

    def _work(self) -> None:
        forget_active_model()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: len(self._waiting) > self._held or self._closed.is_set())
                if self._closed.is_set():
                    return
                call = self._waiting[0]
            if not self._deliver(call):
                return
            with self._changed:
                if self._closed.is_set():  # it took so long that nobody waited; sent once more it does no harm
                    return
                self._waiting.popleft()
                if not self._waiting:
                    with suppress(OSError), self._path.open("r+b") as file:  # what stays is sent once more, no harm
                        file.truncate(0)
                    self._sender.sure = True
                self._changed.notify_all()

    def _deliver(self, call: dict[str, Any]) -> bool:
        """Send a call, however often that takes, or set it aside; False if the outbox was closed before."""
        pause, failures, away = FIRST_PAUSE, 0, False
        while not self._closed.is_set():
            try:
                self._sender.send(**call)
            except Exception as error:  # stores raise their own: requests', sqlalchemy's, OSError
                found, reason = verdict(error), public(first_line(error))
                if found is Verdict.DOUBTFUL:
                    failures += self._sender.answers()
                if (found is Verdict.FINAL or failures >= ATTEMPTS) and self._set_aside(call, reason):
                    return True
                if not away and not failures:
                    away = True
                    self._tell(
                        f"MLflow cannot be reached: {reason}. The search goes on; what it logs is kept in {self._path} "
                        "and sent when the store is back."
                    )
                self._sender.sure = False
                self._closed.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                if away:
                    self._tell("MLflow can be reached again.")
                return True
        return False

    def _set_aside(self, call: dict[str, Any], reason: str) -> bool:
        """Keep a call that MLflow would never take out of the way; False if that could not be written."""
        call = {key: value for key, value in call.items() if key != backlog.LATE}
        try:
            new = backlog.set_aside(self._path, reason, {"call": call})
        except StoreError:
            return False
        if new and reason not in self._told:
            self._told.add(reason)
            self._tell(
                f"MLflow refused to log something ({call['do']}): {reason}. It is kept in "
                f"{self._path.with_name(backlog.REFUSED)}, and `autopeft sync` tries it again."
            )
        return True
