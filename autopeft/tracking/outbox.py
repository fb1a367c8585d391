"""A queue that outlives its process: entries are kept in a file, in order, until a receiver has taken them.

A separate thread hands them over, so nobody who adds one waits. While the receiver is away, entries are kept, and they
are sent when it is back, in this start or a later one. An entry that the receiver would never take is set aside, so
that it does not hold up others.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Protocol

from filelock import FileLock, Timeout

from autopeft.common.exceptions import StoreError, TrackingError
from autopeft.study.lock import NO_LOCKS
from autopeft.tracking.backlog import Backlog

if TYPE_CHECKING:
    from pathlib import Path

    from autopeft.tracking.backlog import Entry

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""Seconds between attempts to reach a receiver that is away; each pause is twice the one before."""

ATTEMPTS = 5
"""How often a receiver that answers other requests may fail at an entry before the entry is set aside."""

MOST_HELD = 100
"""Most entries that wait while the outbox is held: this many an interrupted search still has time to send."""


class RefusedError(Exception):
    """The receiver will never take the entry; the text says why."""


class RetryError(Exception):
    """The receiver did not take the entry this time; the text says why.

    Attributes:
        answers: whether it answers other requests, so that the entry may be at fault.
    """

    def __init__(self, reason: str, *, answers: bool) -> None:
        super().__init__(reason)
        self.answers = answers


class Receiver(Protocol):
    """Where an outbox's entries go. The sending thread calls all methods but `is_entry` and `damaged`."""

    def is_entry(self, found: object) -> bool:
        """Whether JSON from the outbox's file can be an entry."""

    def damaged(self, number: int, line: str) -> None:
        """Called for a line of the outbox's file that is not an entry and was set aside."""

    def begin(self) -> None:
        """Prepare the sending thread."""

    def send(self, entry: Entry, *, repeated: bool) -> None:
        """Take an entry; taking one twice must do no harm.

        Args:
            entry: what to take.
            repeated: whether it may have been sent before.

        Raises:
            RefusedError: it will never be taken.
            RetryError: it may be taken later.
        """

    def away(self, reason: str) -> None:
        """Called when entries have to wait."""

    def back(self) -> None:
        """Called when entries are taken again."""

    def refused(self, entry: Entry, reason: str) -> None:
        """Called for an entry that was set aside."""


class Outbox:
    """Entries waiting to be sent, in the order they came.

    Args:
        receiver: takes them.
        path: of the file, in an existing folder.
        aside: of the file for entries that are set aside.
        thread: the name of the sending thread.
        again: send entries that were set aside earlier once more.

    Raises:
        TrackingError: another process has it open.
        StoreError: a file could not be written.
    """

    def __init__(self, receiver: Receiver, path: Path, aside: Path, *, thread: str, again: bool = False) -> None:
        self._receiver = receiver
        self._backlog = Backlog(path, aside, receiver.is_entry)
        self._lock = FileLock(f"{path}.lock", timeout=0, thread_local=False, fallback_to_soft=False)
        try:
            self._lock.acquire()
        except Timeout:
            raise TrackingError(
                f"one process at a time may run a study, but another one has {path} open; wait until it ends."
            ) from None
        except OSError as error:  # a file system without locks: the study's own lock keeps others away
            if error.errno not in NO_LOCKS:
                raise
        try:
            entries = self._backlog.take_up(receiver.damaged)
            self._waiting: deque[Entry] = deque(self._backlog.take_back(entries) if again else entries)
            path.touch()
        except BaseException:
            self._lock.release()
            raise
        self._repeated = True  # an earlier start may have sent the entries it left
        self._changed = threading.Condition()
        self._held = 0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name=thread, daemon=True)
        self._thread.start()

    def put(self, entry: Entry) -> None:
        """Send an entry of plain JSON as soon as possible.

        Raises:
            StoreError: the outbox's file could not be written.
            ValueError: the outbox is closed.
        """
        with self._changed:
            if self._closed.is_set():
                raise ValueError("the outbox is closed")
            self._backlog.add(entry)
            self._waiting.append(entry)
            self._changed.notify_all()

    def hold(self) -> None:
        """Keep new entries, up to `MOST_HELD`, until `release` or `drain`.

        Two threads of one Python program slow each other down.
        """
        with self._changed:
            self._held = MOST_HELD

    def release(self) -> None:
        """Send the entries that were held."""
        with self._changed:
            self._held = 0
            self._changed.notify_all()

    def drain(self, seconds: float) -> int:
        """Wait until everything is sent, but at most `seconds`; returns how many entries are left."""
        self.release()
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, timeout=seconds)
            return len(self._waiting)

    def close(self, seconds: float) -> int:
        """Send what can be sent in `seconds`; returns how many entries are left in the file."""
        left = self.drain(seconds)
        with self._changed:
            self._closed.set()
            self._changed.notify_all()
        self._thread.join(timeout=1.0)
        self._lock.release()
        return left

    def reasons(self) -> list[str]:
        """Why entries and damaged lines were set aside, in this start and earlier ones, one reason for each."""
        return self._backlog.reasons()

    def _work(self) -> None:
        self._receiver.begin()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: len(self._waiting) > self._held or self._closed.is_set())
                if self._closed.is_set():
                    return
                entry = self._waiting[0]
            if not self._deliver(entry):
                return
            with self._changed:
                if self._closed.is_set():  # it took so long that nobody waited; sending it again does no harm
                    return
                self._waiting.popleft()
                if not self._waiting:
                    self._backlog.clear()
                    self._repeated = False
                self._changed.notify_all()

    def _deliver(self, entry: Entry) -> bool:
        """Send an entry, after any number of attempts, or set it aside; False if the outbox was closed before."""
        pause, failures, away = FIRST_PAUSE, 0, False
        while not self._closed.is_set():
            try:
                self._receiver.send(entry, repeated=self._repeated)
            except (RefusedError, RetryError) as error:
                reason, final = str(error), isinstance(error, RefusedError)
                failures += isinstance(error, RetryError) and error.answers
                if (final or failures >= ATTEMPTS) and self._set_aside(entry, reason):
                    return True
                if not away and not failures:
                    away = True
                    self._receiver.away(reason)
                self._repeated = True
                self._closed.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                if away:
                    self._receiver.back()
                return True
        return False

    def _set_aside(self, entry: Entry, reason: str) -> bool:
        """Set aside an entry that would never be taken; False if it could not be written."""
        try:
            new = self._backlog.set_aside(entry, reason)
        except StoreError:
            return False
        if new:
            self._receiver.refused(entry, reason)
        return True
