"""The study's sampler draws as Optuna's TPE does, without the dimensions of the methods that were not drawn."""

import optuna
import pytest

from autopeft import sampling
from autopeft.candidate import CandidateSpace
from autopeft.registry import discover
from autopeft.sampling import make_sampler
from tests.tiny_models import tiny_base

SPACE = CandidateSpace.build(discover().methods.values(), tiny_base("bert").spec, {}, ())


def searched(trials, side_by_side=False, space=SPACE):
    """A study of so many trials, whose score is best for adapters with a high learning rate."""
    study = optuna.create_study(direction="maximize")
    for number in range(trials):
        study.sampler = make_sampler(3, number, trials, side_by_side=side_by_side)
        trial = study.ask()
        candidate = space.suggest(trial)
        study.tell(trial, (candidate.method.name == "adapter") + candidate.hyper.learning_rate)
    return study


def test_a_study_drawn_twice_is_the_same():
    first, second = (searched(25) for _ in range(2))
    assert [trial.params for trial in first.trials] == [trial.params for trial in second.trials]


@pytest.mark.parametrize("side_by_side", [False, True])
def test_it_finds_the_method_and_the_setting_that_score(side_by_side):
    trials = searched(60, side_by_side).trials
    early, late = trials[:15], trials[-15:]
    adapters = [sum(trial.params["method"] == "adapter" for trial in part) for part in (early, late)]
    assert adapters[1] >= 7 > 3 >= adapters[0]
    assert sum(t.params.get("adapter.learning_rate", 0) > 3e-3 for t in late) > 7


def test_it_models_no_dimension_of_a_method_that_is_not_drawn(monkeypatch):
    asked = []
    whole = optuna.samplers.TPESampler.sample_relative

    def watched(self, study, trial, search_space):
        asked.append(set(search_space))
        return whole(self, study, trial, search_space)

    monkeypatch.setattr(optuna.samplers.TPESampler, "sample_relative", watched)
    study = searched(30)
    drawn = study.trials[-1].params
    assert asked[-2] == {"method"}
    assert asked[-1] <= set(SPACE[drawn["method"]].default().flat) | set(drawn)
    assert asked[-1] & set(drawn)


def test_the_only_method_of_a_study_is_modelled_too():
    space = CandidateSpace.build([discover().methods["lora"]], tiny_base("bert").spec, {}, ())
    study = searched(30, space=space)
    assert {trial.params["method"] for trial in study.trials} == {"lora"}
    assert sum(trial.params["lora.learning_rate"] > 3e-3 for trial in study.trials[-10:]) >= 6
    assert isinstance(study.sampler, sampling.MethodFirstSampler)
