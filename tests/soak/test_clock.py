"""A wall clock that jumps, by up to a day forth and back, five times a second, changes nothing."""

import random

import pytest

from tests.search.test_run import edit
from tests.soak.books import again, check, outcome, remove, run, undisturbed

LIMITS = '[budget]\nmax_trial_seconds = "10m"\n'
"""Which every jump forth exceeds, and every jump back undoes."""


def limited(study, workers: int) -> None:
    text = f'batch_size = 8\nworkers = {workers}\ntimeout = "20m"\nhang_timeout = "2m"'
    edit(study, ("batch_size = 8", text), add=LIMITS)


@pytest.mark.soak
@pytest.mark.parametrize("workers", [1, 2])
def test_no_limit_goes_by_a_clock_that_jumps(tiny_study, workers):
    limited(tiny_study, workers)
    whole = undisturbed(tiny_study, 4)
    for seed in range(3):
        done = run(tiny_study, clock=seed)
        assert done.code == 0, done.said
        assert "timeout" not in done.said
        result = check(tiny_study, 4)
        assert result.get("stopped", "") == ""
        assert all(0 <= record["seconds"] < 300 for record in result["records"]), result["records"]
        if workers == 1:
            assert outcome(result) == whole.outcome
        remove(tiny_study)


@pytest.mark.soak
def test_a_study_that_is_killed_while_the_clock_jumps_goes_on(tiny_study):
    limited(tiny_study, 1)
    whole, drawn = undisturbed(tiny_study, 4), random.Random("clock")
    for seed in range(5):
        killed = run(tiny_study, clock=seed, seconds=drawn.uniform(0, whole.seconds))
        assert killed.code in (-9, 0), killed.said
        assert outcome(again(tiny_study, 4)) == whole.outcome
        remove(tiny_study)
