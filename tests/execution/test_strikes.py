"""Whose fault the death of a worker is, and how long it goes on without its progress being seen."""

from multiprocessing import get_context

from autopeft.execution.pulse import PREPARATION_SECONDS, Pulse, Silence
from autopeft.execution.strikes import Strikes


def test_a_worker_that_dies_twice_without_a_trial_in_between_is_not_replaced_again():
    strikes = Strikes()
    strikes.died(0, "")
    strikes.died(1, "")
    assert not strikes.out(0)
    strikes.ended(0, "a")
    strikes.died(0, "")
    assert not strikes.out(0)
    strikes.died(0, "", "b", outside=True)
    assert strikes.out(0)
    assert not strikes.out(1)


def test_a_trial_that_dies_in_two_workers_is_at_fault_and_they_are_not():
    strikes = Strikes()
    for trial in "abc":
        assert not strikes.died(0, "", trial)
        assert strikes.died(1, "", trial)
    assert not strikes.out(0)
    assert not strikes.out(1)


def test_a_trial_whose_processes_the_system_kills_is_not_at_fault():
    strikes = Strikes()
    assert not strikes.died(0, "", "a", outside=True)
    assert not strikes.died(0, "", "a", outside=True)
    assert strikes.out(0)


def test_a_gpu_is_tried_twice_and_the_trial_should_go_elsewhere_meanwhile():
    strikes = Strikes()
    assert not strikes.died(0, "A", "a", at_card=True)
    assert strikes.suspect("a") == "A"
    assert strikes.suspect("b") == ""
    strikes.ended(1, "a")  # on another GPU
    assert strikes.suspect("a") == ""
    assert not strikes.out("A")
    assert not strikes.died(2, "A", "b", at_card=True)  # another worker on the same GPU
    assert strikes.out("A")


def test_a_silence_lasts_until_the_next_sign_of_life_and_does_not_count_what_was_not_watched():
    pulse = Pulse(get_context("spawn"))
    silence = Silence(pulse, 10.0)
    silence.lasts(4)
    silence.lasts(4)
    assert silence.seconds == 8
    pulse.beat()
    silence.lasts(4)
    assert silence.seconds == 0
    silence.lasts(4)
    silence.broken()
    assert silence.seconds == 0
    assert silence.allowed(prepared=True) == 20
    assert silence.allowed(prepared=False) == PREPARATION_SECONDS
    assert Silence(pulse, PREPARATION_SECONDS).allowed(prepared=False) == 2 * PREPARATION_SECONDS
