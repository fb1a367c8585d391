"""A study's trials as a backend on other machines gets them: what to send there, and what to do with the answers."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch

from autopeft.common.exceptions import StudyError
from autopeft.execution.sent_rows import SentRows, sent
from autopeft.execution.versions import differences, versions_of
from autopeft.execution.work_order import Message, Ready, TrialOrder, WorkOrder, model_files
from autopeft.study.states import INTERRUPTED
from autopeft.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import Any

    from autopeft.execution.backend import TrialHandle
    from autopeft.execution.problem import Problem
    from autopeft.execution.runner import Findings

ANSWERED = "rung"
"""The message to which a worker waits for the answer."""


class StudyWork:
    """The work of a study that a backend has done elsewhere, by `TrialWorker`s.

    A worker needs the `order` first, then `rows`, and `model_files` only where it lacks the base model. Each trial
    begins with `trial_order`, and each message of a worker goes to `hear`, in the order in which they came.

    Attributes:
        workers: how many workers the study asks for; None if the backend decides.
        most: number of trials that are left, so that more workers have nothing to do.
        address: where the backend finds its machines, as the study says.
        device: "cuda" if each worker needs a GPU, else "cpu".
        threads: CPU threads that the study's process uses.
        patience: seconds without progress after which a worker's trial counts as hung.
        say: shows a sentence to the user.
    """

    def __init__(self, problem: Problem, most: int, known: Callable[[], Findings], say: Callable[[str], None]) -> None:
        search, self._problem, self._known = problem.spec.search, problem, known
        self.workers = search.workers if isinstance(search.workers, int) else None
        self.most, self.address, self.say = most, search.address, say
        self.device, self.threads, self.patience = problem.device.type, torch.get_num_threads(), search.hang_timeout

    @functools.cached_property
    def order(self) -> WorkOrder:
        """What a worker is made with: small, and can be pickled."""
        return WorkOrder.of(self._problem)

    @functools.cached_property
    def rows(self) -> SentRows:
        """The encoded rows, nearly all of them NumPy arrays; they can be pickled."""
        return sent(self._problem)

    @functools.cached_property
    def model_files(self) -> dict[str, Path]:
        """The files of the base model, by their names in its folder; empty if it comes from the hub."""
        return model_files(self._problem)

    def trial_order(self, trial: TrialHandle) -> TrialOrder:
        """What a worker needs to run a trial, or to go on with one that was interrupted."""
        return TrialOrder(dict(trial.candidate.flat), self._known(), self._checkpoint(trial).files())

    def hear(self, worker: str, trial: TrialHandle | None, message: Message) -> str | None:
        """Handle a message of a worker; returns the answer to give to it if `message.what` is "rung".

        After "end" the trial is over. After "silent" the backend must end the worker, and call `trial.lost` with the
        worker's name and the content, which says what it did.

        Args:
            worker: what errors call it, such as "the worker on 10.0.0.7".
            trial: that it runs, if any.
            message: from `TrialWorker.messages`.

        Raises:
            StudyError: the search cannot go on.
        """
        what, content = message
        if what == "ready":
            self._check(worker, content)
        elif what == "say":
            self.say(content)
        elif what == "raise":
            raise type(content)(f"{worker}: {content}")
        elif what == "broken":
            raise StudyError(f"{worker} cannot go on: {content} Fix it, and run the same command again.")
        elif what == ANSWERED and trial:
            rung, files = content
            self._keep(trial, files)
            return trial.rung(rung)
        elif what == "end" and trial and content.state == INTERRUPTED:  # its machine failed: another may do better
            trial.lost(f"{worker}: {content.reason}", machine=True)
        elif what != "silent" and trial:
            getattr(trial, what)(content)
        return None

    def _keep(self, trial: TrialHandle, files: Mapping[str, bytes]) -> None:
        """Keep a trial's checkpoint where the study keeps those of its own."""
        self._checkpoint(trial).receive(files)

    def _checkpoint(self, trial: TrialHandle) -> Checkpoint:
        return Checkpoint.of(self._problem.spec.output, trial.candidate.flat)

    def _check(self, worker: str, ready: Ready) -> None:
        """Check that a worker computes what this machine would.

        Raises:
            StudyError: it would not; in one sentence.
        """
        here: Any = self._ours
        fix = "Install the same on all machines, and run the same command again."
        if unlike := differences(here.versions, ready.versions):
            raise StudyError(f"{worker} must have the same versions as this machine, but {'; '.join(unlike)}. {fix}")
        if ready.base_digest != here.base_digest:
            raise StudyError(
                f"{worker} has another base model under the same name; give the base model's own folder, or a hub id."
            )
        for name, given, own in (("device", ready.device, here.device), ("methods", ready.methods, here.methods)):
            if given != own:
                raise StudyError(f"{worker} must have the same {name} as this machine, {own}, but has {given}. {fix}")

    @functools.cached_property
    def _ours(self) -> Ready:
        return about(self._problem)


def about(problem: Problem) -> Ready:
    """What decides whether two machines compute the same for a study."""
    return Ready(problem.base_digest, problem.device.type, tuple(problem.space), versions_of(problem))
