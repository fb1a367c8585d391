"""Says what a study is doing: in its output folder, for `autopeft status`, and to whoever watches it run."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING

from autopeft.common.containment import by_host
from autopeft.common.units import format_estimate
from autopeft.study import phase
from autopeft.study.phase import Phase

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from autopeft.execution.problem import Problem
    from autopeft.methods.candidate import Candidate
    from autopeft.reporting.progress import Progress
    from autopeft.study.record import TrialRecord


class Announcer:
    """Says what the study is doing; contained code may call it too.

    Args:
        output: the study's folder.
        progress: what a person sees.
    """

    def __init__(self, output: Path, progress: Progress) -> None:
        self._output, self._progress = output, progress
        self.say = by_host(progress.say)
        self.enter = by_host(self._enter)

    def _enter(
        self, name: str, what: str = "", sentence: str = "", seconds: float | None = None, *, latest: bool = False
    ) -> None:
        """Say that the study begins another phase.

        Args:
            name: a phase (`autopeft.study.phase`).
            what: which model it is for; "" where the name says all.
            sentence: what to say, followed by the time; "" to say nothing.
            seconds: about how long it takes; None where that is not known.
            latest: whether `seconds` is an upper limit.
        """
        ends = None if seconds is None else time.time() + seconds  # noqa: TID251  # for other processes, to show
        now = Phase(name, what, ends, latest)
        phase.keep(self._output, now)
        if sentence:
            takes = "" if seconds is None else f" ({'at most' if latest else 'about'} {format_estimate(seconds)})"
            self._progress.say(sentence + takes)
        self._progress.entered(now)


def refit_seconds(problem: Problem, candidate: Candidate, found: Sequence[TrialRecord]) -> float | None:
    """About how long a refit of the candidate takes, estimated from the trials; None where none completed.

    Each of k folds trains on (k - 1)/k of the rows, so all folds together train on k - 1 times as many as a refit.
    """
    complete = [record for record in found if record.complete and record.epochs]
    own = [record.seconds for record in complete if record.params == candidate.flat]
    others = [record.seconds / record.epochs * candidate.hyper.epochs for record in complete]
    return median(own or others) / max(len(problem.folds) - 1, 1) if complete else None
