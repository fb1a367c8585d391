"""What a worker process does: it loads the study's rows and model, then trains one candidate after another.

It opens no store: it reports on a trial to the study's process through a pipe, and the same pipe tells it when to stop.
So nothing is locked, and a worker may die at any moment without harm to what is on disk.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import connection, parent_process
from typing import TYPE_CHECKING, Any

import torch

from autopeft.budget.memory_watch import cap
from autopeft.common.containment import listen, unguarded
from autopeft.common.exceptions import SpecError, StoreError, StreamError, in_a_line
from autopeft.execution.leak_check import LeakCheck
from autopeft.execution.problem import Problem
from autopeft.execution.runner import Runner
from autopeft.methods import registry
from autopeft.study.states import FAIL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from autopeft.budget.usage import Usage
    from autopeft.common.params import ParamValue
    from autopeft.execution.pulse import Pulse
    from autopeft.execution.runner import Findings
    from autopeft.execution.shares import Share
    from autopeft.study.file import StudySpec
    from autopeft.training.rungs import Rung


@dataclass(frozen=True)
class Given:
    """What a worker is started with.

    Attributes:
        spec: the study file, for one worker.
        blocked: plugins that are left out.
        share: what it may use.
        shares: what each worker of the study may use.
        threads: for the CPU.
        known: what earlier trials found out.
    """

    spec: StudySpec
    blocked: tuple[str, ...]
    share: Share
    shares: tuple[Share, ...]
    threads: int
    known: Findings


@dataclass(frozen=True)
class Task:
    """A trial for a worker.

    Attributes:
        params: of the candidate.
        known: what trials have found out so far.
        most_memory: bytes that a step may take in the worker with the largest share.
    """

    params: Mapping[str, ParamValue]
    known: Findings
    most_memory: float


class CardLostError(Exception):
    """The process can no longer use its GPU."""


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


def work(pipe: connection.Connection[Any, Any], given: Given, pulse: Pulse) -> None:
    """Run a worker process, from its start to its end."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # as in the study's process, which has shown the warnings for the user
    torch.set_num_threads(given.threads)
    listen(pulse.beat)
    try:
        if given.share.card and not torch.cuda.is_available():
            raise CardLostError("PyTorch finds no GPU any more")
        with unguarded():
            problem = Problem.from_spec(given.spec, registry.discover(given.blocked))
        problem = replace(problem, budget=given.share.budget, shares=given.shares)
        cap(problem.budget.max_gpu_memory)
        with LeakCheck() as leak_check:
            runner = Runner(problem, lambda text: pipe.send(("say", text)), given.known, leak_check)
            pipe.send(("ready", (problem.rows.fingerprint, problem.base_digest)))
            while task := pipe.recv():
                pulse.beat()
                runner.learn(task.known)
                runner.most_memory = task.most_memory
                outcome = runner(problem.space.parse(task.params), Reporter(pipe))
                if outcome.state == FAIL and (lost := card_fault()):
                    raise CardLostError(lost)
                pipe.send(("end", outcome))
    except (StoreError, SpecError, StreamError) as error:
        with suppress(OSError):  # nobody is listening
            pipe.send(("raise", error))
    except Exception as error:  # the study's process reports it in one sentence, instead of a traceback
        lost = str(error) if isinstance(error, CardLostError) else card_fault()
        why = f"{type(error).__name__}: {str(error).strip() or 'no message'}"
        with suppress(OSError):
            pipe.send(("card_lost", lost) if lost else ("broken", why))


def card_fault() -> str:
    """What is wrong with the GPU of this process; empty if it works, or if there is none.

    After some CUDA errors every later call fails in the same way until the process ends: the trial itself may not be
    at fault, and the next ones would fail too.
    """
    if not torch.cuda.is_available():
        return ""
    try:
        torch.ones(1, device="cuda").add_(1).item()
        torch.cuda.synchronize()
    except torch.OutOfMemoryError:
        return ""
    except RuntimeError as error:
        return in_a_line(error)
    return ""


def _end_with_parent() -> None:
    """End at once when the study's process is gone: the next start of the study must find nobody at its trials."""
    parent = parent_process()
    assert parent is not None  # a worker is a child
    connection.wait([parent.sentinel])
    os._exit(1)
