"""A trial's time is predicted from its first steps, and no trial goes over its limit by more than a step."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import pytest

from autopeft.budget.limits import Budget
from autopeft.budget.time_watch import SKIPPED_STEPS, TIMED_STEPS, OverTimeError, TimeWatch
from autopeft.execution.problem import Problem
from autopeft.execution.run_trial import run_trial
from autopeft.methods.registry import discover
from autopeft.study.file import StudySpec
from autopeft.study.states import COMPLETE, INFEASIBLE


class Clock:
    """Time that passes only when told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def watching(budget: Budget, clock: Clock, turns: int, evaluations: int) -> TimeWatch:
    watch = TimeWatch(budget, clock)
    watch.expect(turns, evaluations)
    return watch


def run(watch: TimeWatch, clock: Clock, seconds, done: int = 0, steps: int = 50) -> int:
    """Steps of one learner, each of so many seconds, until the watch stops them; how many ended."""
    ended = 0
    for taken in seconds:
        done += 1
        with watch(SimpleNamespace(steps=steps, done=done), 64):
            clock.now += taken
        ended += 1
    return ended


def test_the_first_steps_predict_the_trial_without_its_slow_start():
    clock = Clock()
    watch = watching(Budget(max_trial_seconds=1000), clock, turns=3, evaluations=30)
    run(watch, clock, [5.0] * SKIPPED_STEPS + [2.0] * TIMED_STEPS)
    spent = 5.0 * SKIPPED_STEPS + 2.0 * TIMED_STEPS
    assert watch.predicted == pytest.approx(spent + 2.0 * (150 - 13) + 2.0 * 30 / 3)


def test_a_trial_that_would_take_too_long_ends_when_its_first_steps_have_run():
    clock = Clock()
    watch = watching(Budget(max_trial_seconds=299), clock, turns=3, evaluations=0)
    with pytest.raises(OverTimeError, match="would take 5 min, over max_trial_seconds = 4 min 59 s"):
        run(watch, clock, itertools.repeat(2.0))
    assert clock.now - 100 == 2.0 * (SKIPPED_STEPS + TIMED_STEPS)


def test_what_an_interruption_left_is_not_trained_again():
    clock = Clock()
    watch = watching(Budget(max_trial_seconds=120), clock, turns=3, evaluations=0)
    assert run(watch, clock, [2.0] * 20, done=30) == 20  # of the 50 steps of each fold
    assert watch.predicted == pytest.approx(120)


def test_a_trial_that_slows_down_later_is_stopped():
    clock = Clock()
    watch = watching(Budget(max_trial_seconds=60), clock, turns=1, evaluations=0)
    with pytest.raises(OverTimeError, match="was stopped after 1 min 3 s"):
        run(watch, clock, [1.0] * 13 + [50.0] * 5)


def test_a_trial_that_runs_again_another_way_is_predicted_anew_and_its_time_goes_on():
    clock = Clock()
    watch = watching(Budget(max_trial_seconds=1000), clock, turns=1, evaluations=0)
    run(watch, clock, [2.0] * 20)
    watch.expect(3, 0)
    assert watch.predicted is None
    run(watch, clock, [2.0] * 13)
    assert watch.predicted == pytest.approx(40 + 2.0 * 150)
    with pytest.raises(OverTimeError, match="was stopped after"):
        run(watch, clock, [1000.0], done=13)


def test_without_a_limit_nothing_is_stopped():
    clock = Clock()
    watch = watching(Budget(), clock, turns=1, evaluations=0)
    assert run(watch, clock, [1e6] * 50) == 50


def test_a_trial_over_its_time_is_infeasible_and_says_so(tiny_study):
    problem = Problem.from_spec(StudySpec.from_file(tiny_study), discover())
    candidate = problem.space["lora"].default()
    slow = replace(problem, budget=Budget(max_trial_seconds=1e-3))
    outcome = run_trial(slow, candidate, lambda rung: None)
    assert outcome.state == INFEASIBLE
    assert "max_trial_seconds" in outcome.reason
    assert outcome.rungs == ()
    generous = run_trial(replace(problem, budget=Budget(max_trial_seconds=1e4)), candidate, lambda rung: None)
    assert generous.state == COMPLETE
    assert generous.needed_seconds == generous.seconds
