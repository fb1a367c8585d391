"""Collects what concurrent requests ask, and has one thread answer it together."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from autopeft.common import machine
from autopeft.common.exceptions import AutopeftError, in_a_line
from autopeft.models import generation
from autopeft.shelf import texts
from autopeft.shelf.texts import Prompts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from autopeft.shelf.shelf import Question, Shelf
    from autopeft.shelf.texts import Text

    Asked = tuple[Question | Prompts, asyncio.Future[Any]]

ROOM = 16
"""So many full batches may wait; further requests are refused until there is room."""


class BusyError(AutopeftError):
    """There is no answer soon: too many rows wait, or the server ends."""


class Batcher:
    """Answers questions and prompts in batches.

    Requests that come while the model runs wait, and are answered together when it is done.

    Args:
        shelf: the winners.
        wait: seconds to wait for more after the first of a batch, if no other is there yet.
        most: rows of a batch; a single request may have more.
    """

    def __init__(self, shelf: Shelf, wait: float, most: int) -> None:
        self._shelf, self._wait, self._most = shelf, wait, most
        self._queue: asyncio.Queue[Asked] = asyncio.Queue()
        self._rows = 0
        self._thread = ThreadPoolExecutor(1, "autopeft-shelf")
        self._ended = threading.Event()

    async def ask(self, question: Question) -> Question:
        """The question, answered.

        Raises:
            AutopeftError: it cannot be answered, too many wait, or the server ends.
        """
        found: Question = await self._put(question)
        if found.error:
            raise found.error
        return found

    async def write(self, prompts: Prompts) -> list[Text]:
        """The texts for prompts.

        Raises:
            AutopeftError: they cannot be written, too many wait, or the server ends.
        """
        found: list[Text] = await self._put(prompts)
        return found

    async def run(self) -> None:
        """Answer until it is cancelled; a text that is being written then ends with its next token."""
        loop = asyncio.get_running_loop()
        with self._thread, self._ending():  # the thread is waited for, so it must be told first
            held = None
            while True:
                jobs = [held or await self._queue.get()]
                if self._queue.empty() and self._wait:
                    await asyncio.sleep(self._wait)
                more, held = self._more(len(jobs[0][0].cells))
                jobs += more
                found = await loop.run_in_executor(self._thread, self._in_thread, [job for job, _ in jobs])
                for (job, future), answer in zip(jobs, found, strict=True):
                    self._rows -= len(job.cells)
                    if future.cancelled():  # its client is gone
                        continue
                    if isinstance(answer, Exception):
                        future.set_exception(answer)
                    else:
                        future.set_result(answer)

    @contextmanager
    def _ending(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._ended.set()

    def _more(self, rows: int) -> tuple[list[Asked], Asked | None]:
        """What waits and goes into a batch that has so many rows; and the first one that has no room in it."""
        found: list[Asked] = []
        while rows < self._most and not self._queue.empty():
            following = self._queue.get_nowait()
            rows += len(following[0].cells)
            if rows > self._most:
                return found, following
            found.append(following)
        return found, None

    async def _put(self, job: Question | Prompts) -> Any:
        if self._rows > ROOM * self._most:
            raise BusyError(f"{self._rows:,} rows wait for an answer already; ask again in a moment.")
        future = asyncio.get_running_loop().create_future()
        self._rows += len(job.cells)
        self._queue.put_nowait((job, future))
        try:
            return await future
        except asyncio.CancelledError:  # left as it is, it would be told as a fault of this program
            raise BusyError("the server ends before this could be answered; ask again when it runs.") from None

    def _in_thread(self, jobs: Sequence[Question | Prompts]) -> list[Any]:
        with generation.until(self._ended.is_set):
            return self._answered(jobs)

    def _answered(self, jobs: Sequence[Question | Prompts]) -> list[Any]:
        """The answer to each job, or its error; runs in the thread."""
        found: dict[int, Any] = {}
        questions = {place: job for place, job in enumerate(jobs) if not isinstance(job, Prompts)}
        try:
            if questions:
                self._shelf.answer([*questions.values()])
            found |= questions
        except (Exception, SystemExit) as error:  # one batch that fails must not end the server
            found |= dict.fromkeys(questions, _told(error))
        prompts = {place: job for place, job in enumerate(jobs) if isinstance(job, Prompts)}
        while prompts:
            first = next(iter(prompts.values()))
            alike = {place: job for place, job in prompts.items() if job is first or job.alike(first)}
            found |= self._written(alike)
            prompts = {place: job for place, job in prompts.items() if place not in alike}
        return [found[place] for place in range(len(jobs))]

    def _written(self, prompts: dict[int, Prompts]) -> dict[int, Any]:
        """The texts for prompts that are alike, or the error of each."""
        try:
            winner = self._shelf[next(iter(prompts.values())).winner]
            return dict(zip(prompts, texts.write(winner, [*prompts.values()]), strict=True))
        except (Exception, SystemExit) as error:
            if len(prompts) == 1:
                return dict.fromkeys(prompts, _told(error))
            return {place: found for one in prompts for place, found in self._written({one: prompts[one]}).items()}


def _told(error: Exception | SystemExit) -> AutopeftError:
    if isinstance(error, AutopeftError):
        return error
    return AutopeftError(machine.fault(error) or f"the model failed: {in_a_line(error)}.")
