"""Processes that train the trials of one study side by side, as the study's own process sees them."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context, resource_tracker
from typing import TYPE_CHECKING, Any, Self

import torch

from autopeft.common.exceptions import StudyError
from autopeft.common.units import format_seconds
from autopeft.execution.backend import Backend, TrialHandle
from autopeft.execution.pulse import Pulse, Silence
from autopeft.execution.strikes import Strikes
from autopeft.execution.worker import Given, Task, work
from autopeft.models import digest
from autopeft.models.cards import VISIBLE
from autopeft.study.states import ELSEWHERE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from multiprocessing.context import SpawnProcess
    from types import TracebackType

    from autopeft.execution.problem import Problem
    from autopeft.execution.runner import Findings
    from autopeft.execution.shares import Share

LISTEN_SECONDS = 1.0
"""Longest wait before Ctrl-C is checked again."""

ASKED = {getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")}
"""Signals by which people and schedulers end a process, often a study's workers together with it."""

MACHINE = {getattr(signal, name, None) for name in ("SIGKILL", "SIGBUS", "SIGXCPU")}
"""Signals by which a system ends one that runs out of memory, of shared memory or of its CPU time."""

FAREWELL_SECONDS = 10.0
"""Time for a worker to leave before it is killed."""

ASSERTION = "assert"
"""In the text of a CUDA error it says that a kernel found its input wrong: that is never the GPU's fault."""


@dataclass(eq=False)
class Job:
    """A trial that was given to the workers.

    Attributes:
        handle: the trial.
        over: bytes that did not suffice for it in a worker.
    """

    handle: TrialHandle
    over: float = 0.0

    @property
    def key(self) -> str:
        """What identifies the candidate: a trial that runs again has another number."""
        return repr(sorted(self.handle.candidate.flat.items()))


@dataclass(eq=False)
class Worker:
    """A worker process.

    Attributes:
        place: of its share among those of the study; a replacement takes over the place.
        fault: why it is about to end, if that is known.
        at_card: whether its GPU may be at fault.
    """

    place: int
    share: Share
    process: SpawnProcess
    pipe: connection.Connection[Any, Any]
    silence: Silence
    ready: bool = False
    job: Job | None = None
    fault: str = ""
    at_card: bool = False

    @property
    def card(self) -> str:
        """Its GPU, for people; empty on a CPU."""
        return str(self.share.card or "")


class Processes(Backend):
    """The workers of a study. Use as a context manager: none outlives the block, nor the process itself.

    A trial that has no room in one worker goes to one with a larger share of memory. One whose worker died goes to
    another GPU, if there is one.

    Args:
        problem: the study's; each worker makes its own from the same study file.
        count: of workers.
        known: returns what a worker need not find out again.
        say: gets sentences for the user.
    """

    def __init__(self, problem: Problem, count: int, known: Callable[[], Findings], say: Callable[[str], None]) -> None:
        self._problem, self._known, self._say = problem, known, say
        self._shares = problem.shares[:count]
        self._threads = max(1, torch.get_num_threads() // count)
        self._workers: list[Worker] = []
        self._queue: list[Job] = []
        self._strikes = Strikes()
        self._polled = time.monotonic()
        self._stack = ExitStack()

    @property
    def free(self) -> bool:
        """Whether a worker waits for a trial, and not too many wait for a worker of their own."""
        return any(self._waiting) and len(self._queue) < len(self._workers)

    @property
    def busy(self) -> bool:
        """Whether a trial runs or waits, or no worker is ready for one yet."""
        return any(worker.job for worker in self._workers) or bool(self._queue) or not self.free

    @property
    def _waiting(self) -> list[Worker]:
        return [worker for worker in self._workers if worker.ready and not worker.job]

    def give(self, trial: TrialHandle) -> None:
        """Have a free worker run a trial."""
        self._queue.append(Job(trial))
        self._assign()

    def _assign(self) -> None:
        """Give each waiting worker the first trial that suits it; those with little memory choose first."""
        for worker in sorted(self._waiting, key=lambda worker: worker.share.memory):
            if job := next((job for job in self._queue if self._suits(worker, job)), None):
                self._queue.remove(job)
                worker.job = job
                worker.silence.broken()
                with suppress(OSError):  # it has just died, and `poll` will hear of it
                    worker.pipe.send(Task(job.handle.candidate.flat, self._known(), self._most_memory))

    def _suits(self, worker: Worker, job: Job) -> bool:
        """Whether a worker may have room for a trial, and is not on the GPU that its process may have died of.

        If no other GPU is left for the trial, it gets the same one again.
        """
        able = [other for other in self._workers if other.share.memory > job.over]
        able = able or [other for other in self._workers if other.share.memory == self._most_memory]
        suspect = self._strikes.suspect(job.key)
        return worker in able and (worker.card != suspect or all(other.card == suspect for other in able))

    @property
    def _most_memory(self) -> float:
        """Bytes that a step may take in the worker with the largest share."""
        return max(worker.share.memory for worker in self._workers)

    def poll(self) -> None:
        """Wait a moment at most for reports of the workers, and pass them on.

        Raises:
            StudyError: a worker cannot go on, or all have died.
        """
        pipes = {worker.pipe: worker for worker in self._workers}
        for pipe in connection.wait(list(pipes), LISTEN_SECONDS):
            worker = pipes[pipe]  # type: ignore[index]  # only pipes were asked for
            if worker not in self._workers:  # it was ended with others on its GPU
                continue
            try:
                what, content = worker.pipe.recv()
            except (EOFError, OSError):
                self._on_exit(worker)
            else:
                worker.silence.broken()
                self._hear(worker, what, content)
        self._end_silent()
        self._assign()

    def _hear(self, worker: Worker, what: str, content: Any) -> None:
        """Handle a message: a method of the worker's trial, or "ready", "say", "raise", "card_lost" or "broken"."""
        if what == "ready":
            rows, base = content
            if rows != self._problem.rows.fingerprint:
                raise StudyError("the data changed while the study ran; restore the rows and run it again.")
            if base != self._problem.base_digest:
                raise StudyError("the base model changed while the study ran; restore it and run it again.")
            worker.ready = True
        elif what == "say":
            self._say(content)
        elif what == "raise":
            raise content
        elif what == "card_lost":
            worker.ready = False  # it ends now, and must get no other trial
            worker.fault = f"a worker process lost its GPU ({content})"
            worker.at_card = ASSERTION not in content
        elif what == "broken":
            place, advice = f" on {worker.card}" * bool(worker.card), "lower `workers`"
            advice += ", or name other `devices`" * bool(worker.card)
            raise StudyError(f"a worker process{place} cannot go on: {content} Fix it, or {advice} in [search].")
        elif worker.job:
            job = worker.job
            if what == "end":
                worker.job = None
                if content.state == ELSEWHERE:
                    job.over = worker.share.memory
                    self._queue.append(job)
                    return
                self._strikes.ended(worker.place, job.key)
            answer = getattr(job.handle, what)(content)
            if what == "rung":
                with suppress(OSError):  # it has just died, and `poll` will hear of it
                    worker.pipe.send(answer)

    def _end_silent(self) -> None:
        """End the workers that make no progress: they would hold their trials for ever."""
        now = time.monotonic()
        passed = min(now - self._polled, 2 * LISTEN_SECONDS)  # more is time in which this process did not run either
        self._polled = now
        for worker in [worker for worker in self._workers if worker.job or not worker.ready]:
            worker.silence.lasts(passed)
            if worker in self._workers and worker.silence.seconds > worker.silence.allowed(prepared=worker.ready):
                told = format_seconds(worker.silence.seconds)
                worker.fault = f"a worker process made no progress for {told} and was ended"
                worker.at_card = bool(worker.share.card)
                worker.process.kill()
                self._on_exit(worker)

    def _on_exit(self, worker: Worker) -> None:
        """Replace a worker that died, unless its place or its GPU failed too often, and give its trial back."""
        number, how = self._bury(worker)
        job, machine, asked = worker.job, number in MACHINE, number in ASKED
        guilty = self._strikes.died(
            worker.place,
            worker.card,
            job.key if job and not asked else "",
            at_card=worker.at_card,
            outside=machine or asked,
        )
        lost = [(job, how, (machine or worker.at_card) and not guilty, asked)] if job else []
        left_out = self._strikes.out(worker.card)
        for other in [other for other in self._workers if left_out and other.card == worker.card]:
            other.process.kill()
            self._bury(other)
            lost += [(other.job, f"its GPU was left out: {how}", True, True)] if other.job else []
        if replaced := not (left_out or self._strikes.out(worker.place)):
            self._workers.append(self._start(worker.place))
        if not self._workers:
            advice = f"Name other `devices` than {worker.card}" if worker.at_card else "Lower `workers`"
            raise StudyError(
                f"{how}, and no worker is left, though each was started twice. {advice} in [search] and run the same "
                "command again: the trials that finished are kept."
            )
        left = "It is replaced" if replaced else f"Workers left: {len(self._workers)}"
        gone = f" {worker.card} failed twice and is left out until the study is started again." * left_out
        self._say(f"{how[0].upper()}{how[1:]}.{gone} {left}; its trial, if any, is not lost.")
        for each, why, by_machine, by_somebody in lost:
            each.handle.lost(why, machine=by_machine, asked=by_somebody)

    def _bury(self, worker: Worker) -> tuple[int, str]:
        """Take a worker that ended off the list; returns the signal that ended it unasked, or 0, and how it ended."""
        worker.process.join(FAREWELL_SECONDS)
        if worker.process.exitcode is None:  # it would go on beside the one that gets its trial
            worker.fault = worker.fault or "a worker process hung as it ended and was killed"
            worker.process.kill()
        worker.pipe.close()
        self._workers.remove(worker)
        code, who = worker.process.exitcode or 0, "a worker process" + f" on {worker.card}" * bool(worker.card)
        if worker.fault:
            return 0, worker.fault.replace("a worker process", who, 1)
        how = f"{who} was killed by signal {-code}" if code < 0 else f"{who} exited with code {code}"
        return max(0, -code), how + ", as the system does when memory runs out" * (code == -signal.SIGKILL)

    def _start(self, place: int) -> Worker:
        context = get_context("spawn")  # a forked process can use neither CUDA nor torch's threads
        here, there = context.Pipe()
        spec, share, pulse = self._problem.spec, self._shares[place], Pulse(context)
        search = spec.search.model_copy(update={"workers": 1, "devices": None})  # that is decided already
        # A path stays a path, even if its folder is gone, and a hub model stays at the study's commit.
        revision = digest.revision_of(self._problem.base_digest) or spec.model.revision
        base = spec.model.model_copy(update={"name_or_path": self._problem.base_model, "revision": revision})
        given = Given(
            spec.model_copy(update={"search": search, "model": base}),
            self._problem.blocked,
            share,
            self._problem.shares,
            self._threads,
            self._known(),
        )
        # Both must be set before the first import.
        inherited = {"OMP_NUM_THREADS": str(self._threads), **({VISIBLE: share.card.visible} if share.card else {})}
        process = context.Process(target=work, args=(there, given, pulse), daemon=True)
        with _inherited(inherited), _interrupts_held_back():
            process.start()
        there.close()  # so that the pipe ends when the worker does
        return Worker(place, share, process, here, Silence(pulse, spec.search.hang_timeout))

    def __enter__(self) -> Self:
        try:
            self._stack.enter_context(self._problem.off_the_card())
            for place in range(len(self._shares)):
                self._workers.append(self._start(place))
        except BaseException as error:  # Ctrl-C among them
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            if kind:  # its trial is on disk up to the last rung of each fold
                worker.process.kill()
            with suppress(OSError):
                worker.pipe.send(None)
        for worker in self._workers:
            worker.process.join(FAREWELL_SECONDS)
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()
        self._stack.close()


@contextmanager
def _inherited(variables: Mapping[str, str]) -> Iterator[None]:
    """Start processes with these environment variables."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Start processes that ignore Ctrl-C, which a terminal sends to all of them: the study's process ends them."""
    resource_tracker.ensure_running()  # it would unblock the signal if the first process started it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
