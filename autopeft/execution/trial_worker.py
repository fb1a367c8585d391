"""Trains trials for a study of another process, perhaps on another machine: the far end of a `StudyWork`."""

from __future__ import annotations

import hashlib
import queue
import shutil
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from autopeft.budget.memory_watch import cap
from autopeft.common.containment import beats, unguarded
from autopeft.common.exceptions import SpecError, StoreError, StreamError
from autopeft.common.units import format_seconds
from autopeft.execution.leak_check import LeakCheck
from autopeft.execution.problem import Problem
from autopeft.execution.runner import Findings, Runner
from autopeft.execution.sent_model import SentModel
from autopeft.execution.study_work import about
from autopeft.execution.work_order import Message, TrialOrder, WorkOrder
from autopeft.execution.worker import Reporter
from autopeft.methods import registry
from autopeft.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from autopeft.execution.sent_rows import SentRows
    from autopeft.training.rungs import Rung

LONGEST_LOOK = 1.0
"""Seconds between two looks at the progress of a trial."""


class TrialWorker:
    """Trains one trial at a time in a thread of its own, so that its owner can always ask how it goes.

    A backend makes one on each machine, or for each GPU there, and passes on what `StudyWork` gives. All methods return
    at once, except `messages`.

    Args:
        order: `StudyWork.order`.
        folder: where it may make a folder for its own files. Default: the system's for temporary files.
    """

    def __init__(self, order: WorkOrder, folder: Path | None = None) -> None:
        self._order, self._model = order, SentModel(order)
        self._folder = Path(tempfile.mkdtemp(prefix="autopeft-worker-", dir=folder))
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._training = False
        self._watch = _Watch(order.spec.search.hang_timeout)

    @property
    def lacks_model(self) -> bool:
        """Whether this machine does not have the base model, so that `begin` needs its files."""
        return self._model.lacking

    def begin(self, rows: SentRows, threads: int, files: Iterable[tuple[str, bytes]] = ()) -> None:
        """Prepare to train: the first messages say when that is done, or what is wrong.

        Args:
            rows: `StudyWork.rows`.
            threads: CPU threads to use.
            files: pieces of `StudyWork.model_files` with the names of the files, in order; read only if they are
                needed.
        """
        threading.Thread(target=self._work, args=(rows, threads, files), name="trials", daemon=True).start()

    def start(self, trial: TrialOrder) -> None:
        """Run a trial: `StudyWork.trial_order`."""
        self._training = True
        self._inbox.put(trial)

    def answer(self, stop: str | None) -> None:
        """Answer the trial's last rung: `StudyWork.hear`."""
        self._training = True
        self._inbox.put(stop)

    def messages(self, seconds: float) -> list[Message]:
        """What was reported since the last call; waits at most so many seconds for it."""
        until = time.monotonic() + seconds
        self._watch.begin()
        while True:
            left = until - time.monotonic()
            try:
                found = [self._outbox.get(timeout=max(0.0, min(left, LONGEST_LOOK)))]
            except queue.Empty:
                if self._training and (why := self._watch.silent()):
                    return [Message("silent", why)]
                if left <= 0:
                    return []
                continue
            while not self._outbox.empty():
                found.append(self._outbox.get())
            self._watch.heard()
            self._training = self._training and found[-1].what not in ("rung", "end")
            return found

    def close(self) -> None:
        """Remove its files, before its process is ended."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _work(self, rows: SentRows, threads: int, files: Iterable[tuple[str, bytes]]) -> None:
        """Prepare, then run trials until the process ends."""
        if not sys.warnoptions:
            warnings.simplefilter("ignore")  # as in the study's process, which has shown the warnings for the user
        torch.set_num_threads(threads)
        try:
            with unguarded():
                problem = self._problem(rows, files)
                cap(problem.budget.max_gpu_memory)
                with LeakCheck() as leak_check:
                    runner = Runner(problem, lambda text: self._tell("say", text), Findings({}, {}), leak_check)
                    self._tell("ready", about(problem))
                    while True:
                        self._run(problem, runner, self._inbox.get())
        except (StoreError, SpecError, StreamError) as error:
            self._tell("raise", error)
        except BaseException as error:  # the study's process reports it in one sentence
            self._tell("broken", f"{type(error).__name__}: {str(error).strip() or 'no message'}")

    def _problem(self, rows: SentRows, files: Iterable[tuple[str, bytes]]) -> Problem:
        """The study's problem, with this worker's folder in the place of the study's."""
        order, folder = self._order, self._folder
        for name, content in order.user_files.items():
            (folder / name).write_bytes(content)
        spec = order.spec.with_model(name_or_path=self._model.ready(files))
        spec = spec.model_copy(update={"folder": folder, "output": folder})
        return Problem.from_spec(spec, registry.discover(order.blocked), read=rows)

    def _run(self, problem: Problem, runner: Runner, trial: TrialOrder) -> None:
        runner.learn(trial.known)
        checkpoint = Checkpoint.of(problem.spec.output, trial.params)
        checkpoint.receive(trial.files)
        reporter = _Reporter(self, checkpoint)
        try:
            outcome = runner(problem.space.parse(dict(trial.params)), reporter)
        finally:
            checkpoint.remove()
        self._tell("end", outcome)

    def _tell(self, what: str, content: Any) -> None:
        self._outbox.put(Message(what, content))


class _Channel:
    """The two queues of a worker as its trial sees them: like a pipe to the study's process."""

    def __init__(self, worker: TrialWorker) -> None:
        self._worker = worker

    def send(self, message: tuple[str, Any]) -> None:
        self._worker._tell(*message)

    def recv(self) -> Any:
        return self._worker._inbox.get()


class _Reporter(Reporter):
    """Reports of a trial; with a rung it sends the files of the checkpoint that changed since the last one."""

    def __init__(self, worker: TrialWorker, checkpoint: Checkpoint) -> None:
        super().__init__(_Channel(worker))  # type: ignore[arg-type]  # it only sends and receives
        self._checkpoint = checkpoint
        self._known = _digests(checkpoint.files())  # the study's process has these: they came from there

    def rung(self, rung: Rung) -> str | None:
        """Send it with its files, and wait for the answer."""
        now = self._checkpoint.files()
        before, self._known = self._known, _digests(now)
        files = {name: content for name, content in now.items() if before.get(name) != self._known[name]}
        self._pipe.send(("rung", (rung, files)))
        answer: str | None = self._pipe.recv()
        return answer


def _digests(files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {name: hashlib.sha256(content).digest() for name, content in files.items()}


class _Watch:
    """How long a trial has been silent, on a clock that stops while this process is stopped.

    Args:
        limit: seconds after which that is too long.
    """

    def __init__(self, limit: float) -> None:
        self._limit, self._lasted, self._beats, self._last = limit, 0.0, 0, time.monotonic()

    def begin(self) -> None:
        """Time until now does not count, beyond one look: nobody may have asked, or the process was stopped."""
        self._last = max(self._last, time.monotonic() - LONGEST_LOOK)

    def heard(self) -> None:
        """It has just reported."""
        self._lasted, self._beats, self._last = 0.0, beats(), time.monotonic()

    def silent(self) -> str:
        """What its worker did that it must be ended for, to be told after its name; empty if it goes on."""
        now, count = time.monotonic(), beats()
        if count != self._beats:
            self._lasted, self._beats = 0.0, count
        else:
            self._lasted += min(now - self._last, 2 * LONGEST_LOOK)
        self._last = now
        return f"made no progress for {format_seconds(self._limit)}" if self._lasted > self._limit else ""
