"""The race at the end of a study: its leaders and the best default run fresh folds, and the best of them wins.

What ran is kept after each fold, so an interrupted race goes on as it would have. Its limit is a number of rows, not a
time (except for a study's `timeout`): so the same study has the same winner on any machine.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from autopeft.common.containment import guarded, unguarded
from autopeft.common.exceptions import (
    MachineError,
    ModelError,
    SpecError,
    StoreError,
    StreamError,
    StudyError,
    in_a_line,
)
from autopeft.execution.folds import FreshFolds
from autopeft.execution.run_trial import run_trial
from autopeft.execution.runner import wrote
from autopeft.reporting.short_name import short_name
from autopeft.search import choosing, start
from autopeft.search.standing import Beforehand, Standing, usual
from autopeft.study.phase import RACING
from autopeft.study.raced import RACE, FreshRun, Raced, may_win, numbers
from autopeft.study.record import by_score, records
from autopeft.study.states import COMPLETE, FAIL

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import optuna

    from autopeft.execution.outcome import Outcome
    from autopeft.execution.problem import Problem
    from autopeft.methods.candidate import Candidate
    from autopeft.search.announcer import Announcer
    from autopeft.study.record import TrialRecord
    from autopeft.tracking import Tracker

FEWEST = 2
"""A race needs this many trials."""

NO_FAULT = (StoreError, MachineError, StreamError, ModelError, SpecError, StudyError)
"""Errors that are not a method's fault: of the disk, the machine, the reader of the output, the base model and a
user's metric."""


@dataclass(frozen=True)
class Books:
    """Where a race is recorded and announced.

    Attributes:
        study: keeps what ran.
        tracker: logs each fold with its trial.
        announcer: prints sentences, and announces the race.
        check: called before each fold and at its rungs; raises what a signal raised.
        late: whether the study's time is up.
    """

    study: optuna.Study
    tracker: Tracker
    announcer: Announcer
    check: Callable[[], None]
    late: Callable[[], bool]


def share(problem: Problem) -> float:
    """How much the race may train, as a share of the rows that the search trains on; 0 where there is no race."""
    search = problem.spec.search
    return search.race if search.trials >= FEWEST and choosing.asked(problem) is None else 0.0


def race(problem: Problem, books: Books, *, finished: bool) -> None:
    """Run the race, or what is left of it, and keep who won; `records` then show it.

    There is no race if written texts choose, if fewer than two trials may win, if the rows can be split in only one
    way, or if its share of rows is too small for one pair of folds.

    Args:
        problem: the study's.
        books: the study's, whose search is over.
        finished: whether the study has its winner already, which stays if no race chose it.

    Raises:
        StoreError: something could not be kept.
        MachineError: the machine failed; the next start goes on.
        SpecError: a metric of the user's own fails.
    """
    every, raced = records(books.study), Raced.read(books.study.user_attrs)
    if not share(problem):
        if raced and not raced.ruling:  # it is not asked for any more
            books.study.set_user_attr(RACE, {})
        return
    found = [record for record in every if may_win(record) and not record.passed_over]
    left = raced.left if raced else {}
    if (raced.holds(every) if raced else finished) or len(found) < FEWEST or all(one.number in left for one in found):
        return
    fresh = FreshFolds(problem.each[0])
    if not fresh.first(1):
        why = f", as they come in {fresh.size} groups" if "group" in problem.rows.train else ""
        books.announcer.say(
            f"There is no race of the leaders, because the rows can be split into folds in only one way{why}. The "
            "trial with the best mean over the folds of the search wins."
        )
        return
    searched = sum(record.epochs_trained for record in every) * sum(len(fold.train) for fold in problem.folds)
    _Race(problem, books, found, fresh, share(problem) * searched).run(raced, numbers(every))


class _Race:
    """A race that may train on `allowed` rows, counted once per epoch, which takes about `seconds`."""

    def __init__(
        self, problem: Problem, books: Books, found: Sequence[TrialRecord], fresh: FreshFolds, allowed: float
    ) -> None:
        self.problem, self.books, self.fresh, self.allowed = problem, books, fresh, allowed
        self.found = {record.number: record for record in found}
        self.seconds = share(problem) * sum(record.seconds for record in records(books.study) if record.epochs_trained)
        self.defaults = [one.number for one in found if one.params == problem.space[one.method].default().flat]
        every = start.fixed_defaults(problem.spec, problem.space, len(problem.rows.train))
        fixed = [one for one in by_score([*found]) if one.params in [candidate.flat for candidate in every]]
        self.always = [one.number for one in fixed if one.method == fixed[0].method]  # of several base models the best
        self._own = {fresh.label: fresh}
        validated = min(len(fold.validation) for fold in problem.folds)
        expected = start.expected(problem.spec, problem.space, len(problem.rows.train))
        self.known = Beforehand(usual(validated), expected)

    def run(self, raced: Raced | None, among: tuple[int, ...]) -> None:
        """Run to the end of the race, or of the study's time.

        Args:
            raced: an earlier race. If it had the same trials, it goes on; otherwise its runs are used again.
            among: numbers of the trials.
        """
        raced = raced or Raced(among, ())
        if raced.among != among or raced.ruling:
            raced = replace(raced, among=among, ruling=None, finalists=())
        if not raced.finalists:
            raced = replace(raced, finalists=self._standing(raced).finalists(self.always))
        if not raced.runs and self._least(raced.finalists) > self.allowed:
            self.books.announcer.say(
                "There is no race of the leaders, because `race` in [search] allows too few rows for one fold of two "
                "trials. The trial with the best mean over the folds of the search wins."
            )
            return
        self._keep(raced)
        named = ", ".join(f"{number} ({self.found[number].method})" for number in raced.finalists)
        sentence = f"Trials {named} race on fresh folds, with at most {self.allowed:,.0f} training rows in all"
        self.books.announcer.enter(
            RACING, "the leaders on fresh folds", sentence, max(self.seconds - raced.seconds, 0.0)
        )
        raced, decided = self._raced(raced)
        if not decided and not raced.runs:  # time was up, or the first two trials cost too much
            self.books.study.set_user_attr(RACE, {})
            return
        ruling = self._standing(raced).ruling()
        self._keep(replace(raced, ruling=ruling))
        self.books.announcer.say(ruling.sentence)

    def _raced(self, raced: Raced) -> tuple[Raced, bool]:
        """The race after all runs that it may have, and whether it was decided before that."""
        while pair := self._standing(raced).turn(self.fresh.first):
            cost = sum(self._cost(number, pair.fold) for number in pair.numbers)
            if self.books.late() or raced.rows + cost > self.allowed:
                return raced, False
            for number in pair.numbers:
                self.books.check()
                if self.books.late():
                    return raced, False
                raced = self._after(raced, number, pair.fold)
                self._keep(raced)
                if number in raced.left:
                    break
            if not raced.finalists:  # all have left
                return replace(raced, runs=()), False
        return raced, True

    def _after(self, raced: Raced, number: int, fold: int) -> Raced:
        """The race after one more run. A trial that fails or collapses leaves, and the next best takes its place."""
        began, candidate = time.monotonic(), self.problem.space.parse(self.found[number].params)
        score, reason = math.nan, ""
        try:
            outcome = self._train(candidate, fold)
        except NO_FAULT:
            raise
        except Exception as error:  # a method may do anything
            reason = in_a_line(error)
        else:
            score = math.nan if outcome.score is None else outcome.score
            if outcome.state != COMPLETE or outcome.collapsed or not math.isfinite(score):
                reason = outcome.why or "its score is not a finite number"
        raced = replace(
            raced,
            rows=raced.rows + self._cost(number, fold),
            seconds=round(raced.seconds + time.monotonic() - began, 3),
        )
        if reason:
            self.books.announcer.say(f"Trial {number} is out of the race and cannot win: {reason}")
            raced = replace(raced, left={**raced.left, number: reason})
            stay = {*self.found} - {*raced.left}
            return replace(raced, finalists=self._standing(raced).finalists(self.always) if stay else ())
        name = short_name(candidate.flat, str(candidate), self.problem.space.defaults)
        self.books.announcer.say(f"Fresh fold {fold + 1}: trial {number} ({name}) scores {score:.4f}")
        self.books.tracker.log_fresh_fold(number, fold, score)
        return replace(raced, runs=(*raced.runs, FreshRun(number, fold, score)))

    @unguarded()
    def _train(self, candidate: Candidate, fold: int) -> Outcome:
        """Train one candidate on a fresh fold to its end.

        Raises:
            Exception: whatever its method raises.
        """
        problem = self._fresh_of(self.problem.at_hand(candidate)).problem(fold)
        problem.weight_check.check()
        with guarded(problem.spec.search.hang_timeout):  # known from its trial, if that ran in this process
            _ = problem.cost_estimator(candidate).memory
        outcome = run_trial(problem, candidate, lambda rung: self.books.check())
        if changed := problem.weight_check.restore():
            return replace(outcome, state=FAIL, reason=wrote(changed))
        return outcome

    def _fresh_of(self, problem: Problem) -> FreshFolds:
        """The same folds for another base model, which may make other samples of their rows."""
        if problem.label not in self._own:
            self._own[problem.label] = FreshFolds(problem)
        self._own[problem.label].first(len(self.fresh))
        return self._own[problem.label]

    def _standing(self, raced: Raced) -> Standing:
        return Standing.of([*self.found.values()], raced, self.defaults, self.problem.metric, self.known)

    def _cost(self, number: int, fold: int) -> int:
        """Number of rows that a run trains on, counted once per epoch."""
        return self.found[number].epochs * len(self.fresh[fold].train)

    def _least(self, finalists: Sequence[int]) -> int:
        """The same for the cheapest pair."""
        (first,) = self.fresh.first(1)
        return sum(sorted(self._cost(number, first) for number in finalists)[:FEWEST])

    def _keep(self, raced: Raced) -> None:
        self.books.study.set_user_attr(RACE, raced.kept())
