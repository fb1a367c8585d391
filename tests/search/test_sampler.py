"""The study's sampler draws near the defaults, and then as Optuna's TPE, without dimensions of methods not drawn."""

import math
from typing import get_args

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from autopeft.common.exceptions import SpecError
from autopeft.execution.problem import Problem
from autopeft.methods.candidate import CandidateSpace
from autopeft.methods.registry import discover
from autopeft.search import sampler as sampling
from autopeft.search.resume import check
from autopeft.search.sampler import SAMPLERS, NearDefaultsSampler, make_sampler
from autopeft.study.file import StudySpec
from autopeft.study.journal import open_journal
from autopeft.study.sections import SearchSection
from tests.conftest import THREE, autopeft_here
from tests.tiny_models import tiny_base

SPEC = tiny_base("bert").spec
SPACE = CandidateSpace.build([one for one in discover().methods.values() if one.supports(SPEC)], SPEC, {}, ())


def searched(trials, side_by_side=False, space=SPACE, **which):
    """A study of so many trials, whose score is best for adapters with a high learning rate."""
    study = optuna.create_study(direction="maximize")
    for number in range(trials):
        study.sampler = make_sampler(3, number, number, space.defaults, side_by_side=side_by_side, **which)
        trial = study.ask()
        candidate = space.suggest(trial)
        study.tell(trial, (candidate.method.name == "adapter") + candidate.hyper.learning_rate)
    return study


def drawn_first(distribution, default, count=600):
    """Draws of a dimension, each by the sampler of another seed, as the first trials of studies."""
    study, found = optuna.create_study(), []
    for seed in range(count):
        sampler = NearDefaultsSampler({"m.x": default}, seed)
        found.append(sampler.sample_independent(study, None, "m.x", distribution))
    return found


@pytest.mark.parametrize("default", [2e-4, 3e-3, 1e-2])
def test_first_draws_of_a_number_lie_about_its_default_and_reach_the_whole_range(default):
    kind = FloatDistribution(1e-4, 1e-2, log=True)
    draws = np.log10(drawn_first(kind, default))
    assert -4 <= draws.min() < draws.max() <= -2
    assert draws.max() - draws.min() > 1.3  # of two decades
    assert np.mean(abs(draws - np.log10(default)) < 0.5) > 0.6  # evenly drawn ones: 0.25 to 0.5


@pytest.mark.parametrize(
    ("kind", "default"),
    [
        (IntDistribution(1, 64, log=True), 8),
        (IntDistribution(2, 4), 4),
        (IntDistribution(16, 256, step=16), 64),
        (IntDistribution(5, 5), 5),
    ],
)
def test_first_draws_of_a_whole_number_are_in_its_range_and_on_its_steps(kind, default):
    draws = drawn_first(kind, default)
    assert all(type(value) is int and kind.low <= value <= kind.high for value in draws)
    assert all((value - kind.low) % kind.step == 0 for value in draws)
    assert {kind.low, kind.high, default} <= set(draws)


def test_first_draws_of_a_choice_keep_its_default_more_often_and_take_every_other():
    draws = drawn_first(CategoricalDistribution(("a", "b", True, False)), True)
    assert 0.5 < np.mean([draw is True for draw in draws]) < 0.75
    assert set(draws) == {"a", "b", True, False}


def test_a_method_is_drawn_evenly_and_what_has_no_default_too():
    study = optuna.create_study()
    first = []
    for seed in range(200):
        study.sampler = make_sampler(seed, 0, 0, SPACE.defaults)
        first.append(SPACE.suggest(study.ask()).method.name)
    assert min(first.count(name) for name in SPACE) > 200 / len(SPACE) / 3
    draws = drawn_first(FloatDistribution(0, 1), None)
    assert abs(np.mean(draws) - 0.5) < 0.05


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


def test_the_study_file_may_name_every_sampler_and_no_other():
    assert sorted(get_args(SearchSection.model_fields["sampler"].annotation)) == sorted(SAMPLERS)
    named, default = searched(25, name=SearchSection.model_fields["sampler"].default), searched(25)
    assert [trial.params for trial in named.trials] == [trial.params for trial in default.trials]


def test_random_draws_evenly_and_learns_nothing():
    first, second = (searched(120, name="random").trials for _ in range(2))
    assert [trial.params for trial in first] == [trial.params for trial in second]
    for part in (first[:60], first[60:]):
        methods = [trial.params["method"] for trial in part]
        assert max(methods.count(name) for name in SPACE) < 3 * 60 / len(SPACE)
    alone = CandidateSpace.build([discover().methods["lora"]], tiny_base("bert").spec, {}, ())
    rates = np.log([trial.params["lora.learning_rate"] for trial in searched(120, space=alone, name="random").trials])
    quarters, _ = np.histogram(rates, 4, np.log([kind(alone).low, kind(alone).high]))
    assert quarters.min() > 15


def kind(space):
    """The distribution of the learning rate."""
    study = optuna.create_study()
    trial = study.ask()
    space.suggest(trial)
    return trial.distributions["lora.learning_rate"]


@pytest.mark.exhaustive
def test_a_study_that_names_random_draws_so(tiny_study):
    tiny_study.write_text(tiny_study.read_text().replace(THREE, 'methods = ["lora"]\nsampler = "random"'))
    assert autopeft_here("run", tiny_study.name, cwd=tiny_study.parent).returncode == 0
    spec, storage = StudySpec.from_file(tiny_study), open_journal(tiny_study.parent / "outputs" / "tiny")
    found = optuna.load_study(study_name="tiny", storage=storage)
    drawn = [trial for trial in found.trials if "fixed_params" not in trial.system_attrs]
    space = Problem.from_spec(spec, discover()).space
    for trial in drawn:
        again = optuna.create_study(sampler=make_sampler(spec.seed, trial.number, 0, {}, name="random")).ask()
        space.suggest(again)
        assert again.params == trial.params
    assert len(drawn) == 3
    given = found.user_attrs["given"]
    earlier = {**given, "search": {key: value for key, value in given["search"].items() if key != "sampler"}}
    with pytest.raises(SpecError, match="sampler"):
        check(earlier, given, spec)
    tpe = {**given, "search": {**given["search"], "sampler": "tpe"}}
    check(earlier, tpe, spec)
    older = {**earlier, "model": {key: value for key, value in given["model"].items() if key != "optimizer"}}
    check(older, tpe, spec)
    with pytest.raises(SpecError, match="optimizer"):
        check(older, {**tpe, "model": {**tpe["model"], "optimizer": "adamw_8bit"}}, spec)


def test_first_draws_of_a_rate_lie_about_what_goes_with_the_length_that_was_drawn():
    part = CandidateSpace.build([discover().methods["lora"]], tiny_base("bert").spec, {}, (), rows=400)
    study = optuna.create_study(sampler=NearDefaultsSampler(part.defaults, 3))
    drawn = [part.suggest(study.ask()).hyper for _ in range(300)]
    usual = part["lora"].default().hyper
    short, long = (
        [math.log(one.learning_rate) for one in drawn if low <= one.epochs / usual.epochs <= high]
        for low, high in ((0, 0.7), (1.4, 3))
    )
    assert min(len(short), len(long)) > 20
    assert np.mean(short) > np.mean(long)


@pytest.mark.parametrize("earlier", [3, 14], ids=["near defaults", "tpe"])
def test_a_trial_that_shares_a_pass_has_the_given_params_and_draws_the_rest(earlier):
    study = searched(earlier)
    alike = SPACE["lora"].default().alike
    found = []
    for number in range(earlier, earlier + 6):
        study.enqueue_trial(alike, user_attrs={sampling.DRAWN: True})
        study.sampler = make_sampler(3, number, number, SPACE.defaults, side_by_side=True)
        candidate = SPACE.suggest(study.ask())
        assert candidate.alike == alike
        found.append(candidate)
    assert {"lora.r", "lora.lora_alpha", "lora.learning_rate", "lora.epochs"}.isdisjoint(alike)
    assert {"method", "lora.target_modules", "lora.batch_size"} <= alike.keys()
    assert len({candidate.params["r"] for candidate in found}) > 2
    assert len({candidate.hyper.learning_rate for candidate in found}) == len(found)
