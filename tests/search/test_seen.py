"""What the sampler sees: all of a short study, and of a long one the best and the newest trials."""

import warnings

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from autopeft.search.sampler import MethodFirstSampler
from autopeft.search.seen import LEADERS, Memory

METHODS = ("lora", "adapter", "ia3")
METHOD = CategoricalDistribution(METHODS)
RATE = FloatDistribution(1e-5, 1e-1, log=True)
STATES = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
SETTINGS = {"multivariate": True, "group": True, "n_startup_trials": 0}


class WithoutMemory(optuna.samplers.TPESampler):
    """Draws the method first, from all trials."""

    def sample_relative(self, study, trial, search_space):
        drawn = super().sample_relative(study, trial, {"method": search_space["method"]})
        own = {name: kind for name, kind in search_space.items() if name.startswith(f"{drawn['method']}.")}
        return drawn | super().sample_relative(study, trial, own)


def ended(generator):
    """A trial that ended in one of the usual ways."""
    method, state = METHODS[generator.integers(3)], STATES[generator.choice(3, p=[0.6, 0.3, 0.1])]
    names = ["learning_rate", *(["dropout"] if method == "lora" else [])]
    score = float(generator.normal())
    return create_trial(
        state=state,
        value=score if state == TrialState.COMPLETE else None,
        params={"method": method, **{f"{method}.{name}": float(10 ** generator.uniform(-5, -1)) for name in names}},
        distributions={"method": METHOD, **{f"{method}.{name}": RATE for name in names}},
        constraints={"max": float(generator.choice([-1.0, 1.0], p=[0.8, 0.2]))},
        intermediate_values={1: score},
    )


def filled(count, seed=0):
    study, generator = optuna.create_study(direction="maximize"), np.random.default_rng(seed)
    study.add_trials([ended(generator) for _ in range(count)])
    return study


def drawn(study, sampler):
    study.sampler = sampler
    trial = study.ask()
    method = trial.suggest_categorical("method", METHODS)
    found = {
        name: trial.suggest_float(f"{method}.{name}", 1e-5, 1e-1, log=True) for name in ("learning_rate", "dropout")
    }
    study.tell(trial, state=TrialState.FAIL)
    return method, found


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("liar", [False, True])
@pytest.mark.parametrize("count", [12, 60, 390])
def test_a_study_that_is_not_long_draws_what_it_draws_from_all_its_trials(count, liar):
    study, memory = filled(count), Memory()
    for _ in range(3):
        study.ask({"method": METHOD, "lora.learning_rate": RATE})  # they run meanwhile
    for seed in range(4):
        ours = drawn(study, MethodFirstSampler(memory, seed=seed, constant_liar=liar, **SETTINGS))
        assert ours == drawn(study, WithoutMemory(seed=seed, constant_liar=liar, **SETTINGS))


def test_of_a_long_study_the_best_are_seen_and_the_newest_and_those_that_run():
    study = filled(300)
    running = study.ask({"method": METHOD})
    seen = Memory(60).look(study)[0].get_trials(deepcopy=False)
    numbers = [trial.number for trial in seen]
    assert len(seen) == 60
    assert numbers == sorted({*numbers})
    assert numbers[-1] == running.number
    of_tpe = [t for t in study.trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    fine = [t for t in of_tpe if t.state == TrialState.COMPLETE and t.constraints["max"] <= 0]
    best = {t.number for t in sorted(fine, key=lambda t: -t.value)[:LEADERS]}
    newest = [t.number for t in of_tpe if t.number not in best][LEADERS - 60 + 1 :]
    assert {*numbers} == {*best, *newest, running.number}


def test_each_look_is_that_of_somebody_who_looks_for_the_first_time():
    study, generator, memory, open_trials = filled(0), np.random.default_rng(1), Memory(40), []
    for _ in range(150):
        open_trials.append(study.ask({"method": METHOD, "lora.learning_rate": RATE}))
        if len(open_trials) > 4:  # they do not end in the order in which they began
            one = open_trials.pop(generator.integers(len(open_trials)))
            lost = generator.random() < 0.2
            study.tell(one, None if lost else generator.normal(), state=TrialState.FAIL if lost else None)
        pairs = zip(memory.look(study), Memory(40).look(study), strict=True)
        for mine, new in pairs:
            assert [t.number for t in mine.get_trials()] == [t.number for t in new.get_trials()]


def test_a_set_of_dimensions_that_was_last_drawn_long_ago_is_still_known():
    study = optuna.create_study(direction="maximize")
    study.add_trial(create_trial(value=1.0, params={"rare.x": 0.1}, distributions={"rare.x": RATE}))
    study.add_trials(filled(200).trials)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = MethodFirstSampler(Memory(50), seed=0, **SETTINGS)
    assert "rare.x" in sampler.infer_relative_search_space(study, study.trials[-1])
