"""The length of training by the number of rows, and the rate that goes with it."""

import pytest

from autopeft.methods import length
from autopeft.methods.candidate import CandidateSpace
from autopeft.methods.dimensions import Integer
from autopeft.methods.registry import discover
from autopeft.methods.search_space import SearchSpace

LORA = discover().methods["lora"]


def lora(rows, **overrides):
    return CandidateSpace.build([LORA], None, overrides, (), rows=rows)["lora"]


def test_few_rows_are_passed_more_often_than_many():
    defaults = [length.epochs_for(rows).default for rows in (30, 100, 400, 1500, 100_000)]
    assert defaults == sorted(defaults, reverse=True)
    assert defaults[0] == length.MOST_EPOCHS
    assert defaults[-1] == length.FEWEST_EPOCHS
    for rows in (1, 30, 100, 400, 1500, 100_000):
        dimension = length.epochs_for(rows)
        assert 1 <= dimension.low <= dimension.default <= dimension.high


def test_a_longer_training_has_a_lower_default_rate():
    own = LORA.training_space()["learning_rate"].default
    short, long = (lora(400, epochs=epochs).default().hyper for epochs in (4, 16))
    assert short.learning_rate == own  # a hundred steps
    assert long.learning_rate == pytest.approx(own * 4**-length.POWER)
    assert lora(20, epochs=2).default().hyper.learning_rate == own  # never raised


def test_what_a_study_says_of_length_and_rate_stays():
    part = lora(400, epochs=[2, 5], learning_rate=1e-3)
    assert (part.training["epochs"].low, part.training["epochs"].high) == (2, 5)
    assert part.default().hyper.learning_rate == 1e-3
    assert (
        lora(400, learning_rate=[5e-3, 6e-3]).default().hyper.learning_rate == 5e-3
    )  # within the range that was given


def test_a_method_that_declares_its_own_length_keeps_it():
    class Own(type(LORA)):
        def training_space(self, spec=None):
            return SearchSpace({"epochs": Integer(low=3, high=5, default=4)})

    part = CandidateSpace.build([Own()], None, {}, (), rows=50)["lora"]
    assert part.default().hyper.epochs == 4
    assert part.training["epochs"].high == 5


def test_without_rows_a_space_is_as_it_is_declared():
    part = CandidateSpace.build([LORA], None, {}, ())["lora"]
    assert part.default().hyper.learning_rate == LORA.training_space()["learning_rate"].default
