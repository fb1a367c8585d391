"""One search space over several base models: what is the same on all of them is one dimension."""

from dataclasses import replace

import optuna
import pytest

from autopeft.methods.candidate import CandidateSpace, MethodSpace, together
from autopeft.methods.dimensions import Categorical, Float, Integer
from autopeft.methods.registry import discover
from autopeft.methods.search_space import SearchSpace
from autopeft.methods.training_space import TRAINING_SPACE
from autopeft.search.sampler import make_sampler
from tests.tiny_models import tiny_base

TRIALS = 30
"""Of which TPE draws the last."""


@pytest.fixture(scope="module")
def space():
    """Adapters, biases and LoRA on three families: of one layer, and with two stacks."""
    methods = [discover()[name] for name in ("adapter", "bitfit", "lora")]
    return together({
        family: CandidateSpace.build([m for m in methods if m.supports(spec)], spec, {}, ())
        for family in ("bert", "albert", "t5")
        for spec in [tiny_base(family).spec]
    })  # fmt: skip


def test_each_method_is_on_each_model_that_it_supports_and_models_take_turns(space):
    assert list(space) == [
        *(f"adapter on {model}" for model in ("bert", "albert", "t5")),
        *(f"bitfit on {model}" for model in ("bert", "albert")),
        *(f"lora on {model}" for model in ("bert", "albert", "t5")),
    ]
    assert space.models == ["bert", "albert", "t5"]
    assert list(space.on("t5")) == ["adapter on t5", "lora on t5"]
    assert [part.model for part in space.of_method("bitfit")] == ["bert", "albert"]


def test_what_is_the_same_on_all_models_is_one_dimension_and_the_rest_is_named_with_its_model(space):
    lora = {model: space[f"lora on {model}"] for model in space.models}
    assert lora["bert"].called == {"target_modules": "target_modules on bert"}
    flat = lora["albert"].default().flat
    assert flat["method"] == "lora"
    assert flat["lora.model"] == "albert"
    assert "lora.r" in flat
    assert "lora.target_modules on albert" in flat
    assert lora["albert"].default().name in str(lora["albert"].default())
    assert "lora.learning_rate" in space.defaults
    assert "lora.target_modules on t5" in space.defaults


def test_models_keep_their_order_where_the_first_method_is_not_on_the_first(space):
    lora, both = CandidateSpace([space["lora on t5"]]), space.on("bert")
    plain = {
        label: CandidateSpace(replace(part, model="", called={}) for part in one.values())
        for label, one in {"z": lora, "a": both}.items()
    }
    made = together({"z": plain["z"], "a": plain["a"]})
    assert [*made] == ["lora on z", "lora on a", "adapter on a", "bitfit on a"]
    made = together({"a": CandidateSpace([plain["a"]["bitfit"]]), "z": plain["a"]})
    assert [*made][:2] == ["bitfit on a", "bitfit on z"]
    assert together({"z": plain["z"], "a": plain["a"]}).models == ["z", "a"]
    assert CandidateSpace([*made.values()][::-1], ["a", "z"]).models == ["a", "z"]


def test_every_draw_is_a_point_of_its_model_and_comes_back_from_its_params(space):
    study = optuna.create_study(direction="maximize")
    drawn = []
    for number in range(TRIALS):
        study.sampler = make_sampler(0, number, number, space.defaults)
        trial = study.ask()
        candidate = space.suggest(trial)
        assert trial.params == candidate.flat
        assert space.parse(trial.params) == candidate
        assert space[candidate.name].own.holds(candidate.params)
        study.tell(trial, float(candidate.model == "albert"))
        drawn.append(candidate.name)
    assert len({*drawn}) > 4
    late = drawn[-10:]
    assert sum(name.endswith("albert") for name in late) >= 5, "the sampler learns which model is better"


def test_defaults_of_all_models_are_drawn_as_they_were_queued(space):
    study = optuna.create_study()
    for part in space.values():
        study.enqueue_trial(part.default().flat)
    for part in space.values():
        assert space.suggest(study.ask()) == part.default()


def test_a_dimension_with_another_default_is_another_dimension():
    method = discover()["lora"]

    def part(default, high=64):
        own = {"r": Integer(low=1, high=high, default=default), "s": Float(low=0, high=1, default=0)}
        return CandidateSpace([MethodSpace(method, SearchSpace(own), TRAINING_SPACE)])

    space = together({"a": part(8), "b": part(16), "c": part(8, high=4096)})
    assert {*space.defaults} >= {"lora.r on a", "lora.r on b", "lora.r on c", "lora.s", "lora.epochs"}
    assert space["lora on b"].default().flat["lora.r on b"] == 16


def test_a_condition_holds_within_a_model():
    method = discover()["lora"]

    def part(*choices):
        own = {
            "way": Categorical(choices=choices, default=choices[0]),
            "size": Integer(low=1, high=9, default=3, when=("way", "b")),
        }
        return CandidateSpace([MethodSpace(method, SearchSpace(own), TRAINING_SPACE)])

    space = together({"m": part("a", "b"), "n": part("b", "c")})
    assert "lora.size" not in space["lora on m"].default().flat
    default = space["lora on n"].default()
    assert default.flat["lora.way on n"] == "b"
    assert default.flat["lora.size"] == 3
    assert space.parse(default.flat) == default
