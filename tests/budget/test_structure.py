"""Which of two candidates of a method takes more in everything that bears on memory."""

import pytest

from autopeft.budget.structure import Structure
from autopeft.models.attach import attach
from tests.models.test_base import METHODS
from tests.tiny_models import tiny_base


def structure(name, **params):
    base, method = tiny_base("bert"), METHODS[name]
    return Structure.of(attach(base, method, {**method.search_space(base.spec).defaults(), **params}, meta=True))


@pytest.mark.parametrize(
    ("name", "less", "more"),
    [
        ("lora", {"r": 2}, {"r": 8}),
        ("lora", {"target_modules": "query_value"}, {"target_modules": "all_linear"}),
        ("lora", {"r": 2, "target_modules": "attention"}, {"r": 4, "target_modules": "all_linear"}),
        ("adapter", {"reduction_factor": 16}, {"reduction_factor": 4}),
        ("prefix_tuning", {"num_virtual_tokens": 4}, {"num_virtual_tokens": 9}),
        ("prompt_tuning", {"num_virtual_tokens": 4}, {"num_virtual_tokens": 9}),
        ("vera", {"r": 8}, {"r": 16}),
        ("bitfit", {"biases": "attention"}, {"biases": "all"}),
    ],
)
def test_a_larger_one_contains_a_smaller_one(name, less, more):
    assert structure(name, **less).within(structure(name, **more))
    assert not structure(name, **more).within(structure(name, **less))


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("lora", {"r": 8, "target_modules": "query_value"}, {"r": 4, "target_modules": "all_linear"}),
        ("lora", {"lora_dropout": 0.0}, {"lora_dropout": 0.1}),
        ("adapter", {"placement": "pfeiffer"}, {"placement": "parallel"}),
        ("adapter", {"non_linearity": "relu"}, {"non_linearity": "gelu"}),
    ],
)
def test_of_others_neither_contains_the_other(name, one, other):
    pair = structure(name, **one), structure(name, **other)
    assert not pair[0].within(pair[1])
    assert not pair[1].within(pair[0])


def test_what_bears_on_no_tensor_makes_no_difference():
    one, other = structure("lora", lora_alpha=8), structure("lora", lora_alpha=32)
    assert one.within(other)
    assert other.within(one)
