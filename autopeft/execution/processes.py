"""Processes that train the trials of one study side by side.

A worker loads the study's data and model for itself, then trains one candidate after another. It opens no store: it
reports on a trial to the study's process through a pipe, and the same pipe tells it when to stop. So nothing is locked,
and a worker may die at any moment without harm to what is on disk.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process, resource_tracker
from typing import TYPE_CHECKING, Any, Self

import torch

from autopeft.budget.memory_watch import cap
from autopeft.common.containment import unguarded
from autopeft.common.exceptions import SpecError, StoreError, StreamError, StudyError
from autopeft.execution.backend import Backend, TrialHandle
from autopeft.execution.leak_check import LeakCheck
from autopeft.execution.problem import Problem
from autopeft.execution.runner import Runner
from autopeft.methods import registry
from autopeft.models import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from multiprocessing.context import SpawnProcess
    from types import TracebackType

    from autopeft.budget.usage import Usage
    from autopeft.common.params import ParamValue
    from autopeft.execution.runner import Findings
    from autopeft.study.file import StudySpec
    from autopeft.training.rungs import Rung

LIVES = 2
"""How often a worker is started: one that died is replaced once."""

LISTEN_SECONDS = 1.0
"""Longest wait before Ctrl-C is checked again."""

ASKED = {getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")}
"""Signals by which people and schedulers end a process, often a study's workers together with it."""

MACHINE = {getattr(signal, name, None) for name in ("SIGKILL", "SIGBUS", "SIGXCPU")}
"""Signals by which a system ends one that runs out of memory, of shared memory or of its CPU time."""

FAREWELL_SECONDS = 10.0
"""Time for a worker to leave before it is killed."""


@dataclass
class Worker:
    """A worker process as the study's process sees it: the trial it runs, if any, and how many starts it has left."""

    process: SpawnProcess
    pipe: connection.Connection[Any, Any]
    lives: int
    ready: bool = False
    job: TrialHandle | None = None


class Processes(Backend):
    """The workers of a study. Use as a context manager: none outlives the block, nor the process itself.

    Args:
        problem: the study's; each worker makes its own from the same study file.
        count: of workers.
        known: returns what a worker need not find out again.
        say: gets sentences for the user.
    """

    def __init__(self, problem: Problem, count: int, known: Callable[[], Findings], say: Callable[[str], None]) -> None:
        self._problem, self._count, self._known, self._say = problem, count, known, say
        self._threads = max(1, torch.get_num_threads() // count)
        self._workers: list[Worker] = []
        self._stack = ExitStack()

    @property
    def free(self) -> bool:
        """Whether a worker waits for a trial."""
        return any(self._waiting)

    @property
    def busy(self) -> bool:
        """Whether a worker runs a trial, or none is ready for one yet."""
        return any(worker.job for worker in self._workers) or not self.free

    @property
    def _waiting(self) -> list[Worker]:
        return [worker for worker in self._workers if worker.ready and not worker.job]

    def give(self, trial: TrialHandle) -> None:
        """Have a free worker run a trial."""
        worker = self._waiting[0]
        worker.job = trial
        with suppress(OSError):  # it has just died, and `poll` will hear of it
            worker.pipe.send((trial.candidate.flat, self._known()))

    def poll(self) -> None:
        """Wait a moment at most for reports of the workers, and pass them on.

        Raises:
            StudyError: a worker cannot go on, or all have died.
        """
        pipes = {worker.pipe: worker for worker in self._workers}
        for pipe in connection.wait(list(pipes), LISTEN_SECONDS):
            worker = pipes[pipe]  # type: ignore[index]  # only pipes were asked for
            try:
                what, content = worker.pipe.recv()
            except (EOFError, OSError):
                self._on_exit(worker)
            else:
                self._hear(worker, what, content)

    def _hear(self, worker: Worker, what: str, content: Any) -> None:
        """Handle a message: the name of a method of the worker's job, or "ready", "say", "raise" or "broken"."""
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
        elif what == "broken":
            raise StudyError(f"a worker process cannot go on: {content} Fix it, or lower `workers` in [search].")
        elif worker.job:
            job = worker.job
            if what == "end":
                worker.job = None
            answer = getattr(job, what)(content)
            if what == "rung":
                with suppress(OSError):  # it has just died, and `poll` will hear of it
                    worker.pipe.send(answer)

    def _on_exit(self, worker: Worker) -> None:
        """Replace a worker that died, if it has a start left, and give its trial back."""
        worker.process.join(FAREWELL_SECONDS)
        code, job = worker.process.exitcode, worker.job
        worker.pipe.close()
        self._workers.remove(worker)
        how = (
            f"a worker process was killed by signal {-code}"
            if code and code < 0
            else f"a worker process exited with code {code}"
        )
        if code == -signal.SIGKILL:
            how += ", as the system does when memory runs out"
        if worker.lives > 1:
            self._workers.append(self._start(worker.lives - 1))
        if not self._workers:
            raise StudyError(
                f"{how}, and no worker is left, though each was started twice. Lower `workers` in [search] and run the "
                "same command again: the trials that finished are kept."
            )
        left = "It is replaced" if worker.lives > 1 else f"Workers left: {len(self._workers)}"
        self._say(f"{how[0].upper()}{how[1:]}. {left}; its trial, if any, is not lost.")
        if job:
            job.lost(how, machine=-(code or 0) in MACHINE, asked=-(code or 0) in ASKED)

    def _start(self, lives: int) -> Worker:
        context = get_context("spawn")  # a forked process can use neither CUDA nor torch's threads
        here, there = context.Pipe()
        spec = self._problem.spec
        # "auto" is decided already: every worker must arrive at the same share of the memory.
        search = spec.search.model_copy(update={"workers": self._problem.workers})
        # A path stays a path, even if its folder is gone, and a hub model stays at the study's commit.
        revision = digest.revision_of(self._problem.base_digest) or spec.model.revision
        base = spec.model.model_copy(update={"name_or_path": self._problem.base_model, "revision": revision})
        given = (
            there,
            spec.model_copy(update={"search": search, "model": base}),
            self._problem.blocked,
            self._known(),
            self._threads,
        )
        process = context.Process(target=_work, args=given, daemon=True)
        with _threads_inherited(self._threads), _interrupts_held_back():
            process.start()
        there.close()  # so that the pipe ends when the worker does
        return Worker(process, here, lives)

    def __enter__(self) -> Self:
        try:
            self._stack.enter_context(self._problem.off_the_card())
            for _ in range(self._count):
                self._workers.append(self._start(LIVES))
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


class Reporter:
    """A job as the worker sees it: everything goes to the study's process."""

    def __init__(self, pipe: connection.Connection[Any, Any]) -> None:
        self._pipe = pipe

    def estimated(self, usage: Usage) -> None:
        """Pass it on."""
        self._pipe.send(("estimated", usage))

    def settled(self, packing: Mapping[str, str]) -> None:
        """Pass it on."""
        self._pipe.send(("settled", dict(packing)))

    def started(self, usage: Usage) -> None:
        """Pass it on."""
        self._pipe.send(("started", usage))

    def rung(self, rung: Rung) -> str | None:
        """Pass it on, and wait for the answer."""
        self._pipe.send(("rung", rung))
        answer: str | None = self._pipe.recv()
        return answer


def _work(
    pipe: connection.Connection[Any, Any], spec: StudySpec, blocked: tuple[str, ...], known: Findings, threads: int
) -> None:
    """Run a worker process, from its start to its end."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # as in the study's process, which has shown the warnings for the user
    torch.set_num_threads(threads)
    try:
        with unguarded():
            problem = Problem.from_spec(spec, registry.discover(blocked))
        cap(problem.budget.max_gpu_memory)
        with LeakCheck() as leak_check:
            runner = Runner(problem, lambda text: pipe.send(("say", text)), known, leak_check)
            pipe.send(("ready", (problem.rows.fingerprint, problem.base_digest)))
            while task := pipe.recv():
                params: dict[str, ParamValue]
                params, known = task
                runner.learn(known)
                pipe.send(("end", runner(problem.space.parse(params), Reporter(pipe))))
    except (StoreError, SpecError, StreamError) as error:
        with suppress(OSError):
            pipe.send(("raise", error))
    except Exception as error:  # the study's process reports it in one sentence, instead of a traceback
        with suppress(OSError):  # nobody is listening
            pipe.send(("broken", f"{type(error).__name__}: {str(error).strip() or 'no message'}"))


def _end_with_parent() -> None:
    """End at once when the study's process is gone: the next start of the study must find nobody at its trials."""
    parent = parent_process()
    assert parent is not None  # a worker is a child
    connection.wait([parent.sentinel])
    os._exit(1)


@contextmanager
def _threads_inherited(count: int) -> Iterator[None]:
    """Give a process started here this many threads from its first import on."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(count)
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Start processes that ignore Ctrl-C, which a terminal sends to all of them: the study's process ends them."""
    resource_tracker.ensure_running()  # it would unblock the signal if the first process started it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
