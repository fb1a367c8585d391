"""Micro-batches and checkpointed layers change memory and time, and nothing else; the budget is kept by them."""

import gc
import itertools
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from autopeft.budget.cost_estimator import CostEstimator
from autopeft.budget.memory.live_bytes import LiveBytes
from autopeft.budget.memory.peak import at_peak
from autopeft.budget.memory_watch import MemoryWatch, Meter, OverBudgetError
from autopeft.data.split import split
from autopeft.execution.problem import Problem
from autopeft.execution.run_trial import run_trial
from autopeft.methods.candidate import CandidateSpace
from autopeft.methods.registry import discover
from autopeft.models.attach import attach, trainable
from autopeft.models.modes import checkpoint_layers, train_mode
from autopeft.search import refit, select_winner
from autopeft.study.file import StudySpec
from autopeft.study.states import COMPLETE
from autopeft.testing.tiny import blank_rows
from autopeft.training.batch import Batch
from autopeft.training.batch_plan import Execution, guess, ways
from autopeft.training.cross_validation import cross_validate
from autopeft.training.learner import Learner, train_epoch
from autopeft.training.setup import Setup
from tests.conftest import announcing, few
from tests.models.test_base import METHODS, base_of
from tests.tiny_models import FAMILIES
from tests.training.test_learner import CPU, HYPER, TASK, rows

DATA = rows()


def gradients(model, micro_batch, batch_rows):
    """Of the first step, before clipping."""
    learner = Learner(model, HYPER, len(DATA), Execution(micro_batch))
    learner.take_turn()
    model.eval()  # dropout would differ
    found = {}
    hooks = [
        p.register_post_accumulate_grad_hook(lambda p, name=name: found.update({name: p.grad.clone()}))
        for name, p in trainable(model).items()
    ]
    parts = learner.load(DATA, [batch_rows], "cpu")
    loss = learner.step(parts, TASK, CPU)
    for hook in hooks:
        hook.remove()
    return len(parts), loss.item(), found


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("micro_batch", [1, 3, 5])
def test_accumulated_gradients_are_those_of_the_whole_batch(name, micro_batch):
    base = base_of()
    params = METHODS[name].search_space(base.spec).defaults()
    batch_rows = np.argsort(DATA.lengths, kind="stable")[10:21]  # eleven rows of unequal lengths
    whole, parts = (gradients(attach(base, METHODS[name], params), m, batch_rows) for m in (11, micro_batch))
    assert whole[0] == 1
    assert parts[0] == -(-11 // micro_batch)
    assert parts[1] == pytest.approx(whole[1], rel=1e-5)
    for parameter, gradient in whole[2].items():
        assert torch.allclose(parts[2][parameter], gradient, atol=1e-6), parameter


@pytest.mark.parametrize("family", FAMILIES)
def test_checkpointed_layers_give_the_same_gradients_dropout_included(family):
    base = base_of(family)
    params = METHODS["lora"].search_space(base.spec).defaults()
    found = []
    for checkpointing in (False, True):
        model = attach(base, METHODS["lora"], params)
        if checkpointing:
            checkpoint_layers(model)
        train_mode(model)
        torch.manual_seed(3)
        batch = DATA.batch(np.arange(8))
        with CPU.kernels():
            loss = TASK.loss(model(**{k: v for k, v in batch.items() if k != "labels"}), batch)
            loss.backward()
        found.append((loss.item(), {n: p.grad for n, p in trainable(model).items()}))
    assert found[0][0] == found[1][0]
    assert all(torch.allclose(found[0][1][n], found[1][1][n], atol=1e-7) for n in found[0][1])


def space(name):
    return CandidateSpace.build([METHODS[name]], base_of().spec, {}, ())[name]


def cost_estimator(limit, length=60):
    return CostEstimator(base_of(), TASK, CPU, blank_rows(np.full(64, length)), limit)


@pytest.mark.parametrize("name", few(METHODS, "lora", "prefix_tuning"))
def test_a_tight_budget_is_kept_with_smaller_passes_and_the_fastest_that_fit_are_taken(name):
    candidate = space(name).default()
    free = cost_estimator(None)(candidate)
    assert free.execution == Execution(candidate.hyper.batch_size)
    exact = cost_estimator(free.memory.peak)(candidate)
    assert exact.execution == free.execution
    peaks, costs = [], []
    for share in (0.9, 0.4):
        limit = int(free.memory.peak * share)
        usage = cost_estimator(limit)(candidate)
        assert usage.memory.peak <= limit
        assert usage.execution.micro_batch < candidate.hyper.batch_size or usage.execution.checkpointing
        peaks.append(usage.memory.peak)
        costs.append(usage.execution.cost(16, 60, "cpu"))
    assert costs == sorted(costs), "a tighter budget is never faster"
    hopeless = cost_estimator(1000)(candidate)
    assert hopeless.execution.micro_batch == 1
    assert hopeless.memory.peak > 1000


def test_checkpointing_is_chosen_where_it_costs_least_and_left_out_where_a_method_cannot():
    class Growing(type(METHODS["prefix_tuning"])):
        """Puts a longer prefix in front every time, so that no layer can run twice."""

        def apply(self, model, params, spec):
            model = super().apply(model, params, spec)
            runs = itertools.count(1)
            for module in model.modules():
                if type(module).__name__ == "Prefix":
                    module.register_forward_hook(lambda module, args, states: states.repeat(1, 1, 1, next(runs), 1))
            return model

    one_row = cost_estimator(None)(replace(space("lora").default(), hyper=replace(HYPER, batch_size=1)))
    found = cost_estimator(int(one_row.memory.peak * 0.97))(space("lora").default()).execution
    assert found == Execution(2, checkpointing=True)  # faster than single rows, which fit as well
    prefix = space("prefix_tuning").default()
    least = int(cost_estimator(None)(prefix).memory.peak * 0.05)
    assert cost_estimator(least)(prefix).execution.checkpointing
    assert not cost_estimator(least)(replace(prefix, method=Growing())).execution.checkpointing


@pytest.mark.exhaustive
def test_after_a_refusal_one_row_at_a_time_is_asked_first_and_what_fits_is_found_all_the_same(monkeypatch):
    candidates = space("lora").sample(6, seed=2)
    limit = min(cost_estimator(1)(candidate).memory.peak for candidate in candidates)
    alone = [cost_estimator(limit)(candidate) for candidate in candidates]
    together, asked = cost_estimator(limit), []
    predict = together.predict
    monkeypatch.setattr(together, "predict", lambda candidate, way: asked.append(way) or predict(candidate, way))
    whole = []
    for candidate, expected in zip(candidates, alone, strict=True):
        asked.clear()
        usage = together(candidate)
        assert (usage.execution, usage.memory) == (expected.execution, expected.memory)
        whole.append(Execution(candidate.hyper.batch_size) in asked)
    refused = [usage.memory.peak > limit for usage in alone]
    assert 1 < sum(refused) < 6
    assert any(
        now and before and not tried for before, now, tried in zip(refused, refused[1:], whole[1:], strict=False)
    )


def test_a_peak_is_guessed_from_the_nearest_two():
    known = {Execution(1): 10, Execution(4): 40, Execution(16): 400, Execution(1, checkpointing=True): 5}
    assert guess(Execution(2), known) == 20
    assert guess(Execution(8), known) == 160
    assert guess(Execution(2, checkpointing=True), known) == 0.0


@pytest.mark.parametrize(
    ("way", "most"), [(Execution(8), 30), (Execution(3), 3), (Execution(8, checkpointing=True), 8)]
)
def test_evaluation_takes_no_more_rows_at_a_time_than_a_tight_budget_lets_training(way, most):
    base, seen = base_of(), []
    model = attach(base, METHODS["lora"], METHODS["lora"].search_space(base.spec).defaults())

    def look(module, args, kwargs):
        if torch.is_inference_mode_enabled():
            seen.append(len(kwargs["input_ids"]))

    model.register_forward_pre_hook(look, with_kwargs=True)
    data = rows(120)
    folds = split(len(data), data.truths, None, 2, seed=0)
    setup = Setup(TASK, data, folds, CPU, "accuracy", 0)
    next(iter(cross_validate(model, setup, replace(HYPER, batch_size=8), execution=way)))
    assert max(seen) == most  # of 60 rows; at ease 32 at a time, which makes two passes of 30


def test_a_winner_that_the_gpu_has_no_room_for_is_scored_on_the_cpu(tiny_study, monkeypatch):
    problem = Problem.from_spec(StudySpec.from_file(tiny_study), discover())
    candidate = problem.space["lora"].default()
    folder, announcer = tiny_study.parent, announcing(tiny_study.parent)
    expected = select_winner._score(problem, candidate, folder / "one", "x", [], announcer)
    load, asked = select_winner.winner.load, []

    def scarce(*given, **options):
        asked.append(given)
        if len(asked) == 1:
            raise torch.OutOfMemoryError("planted")
        return load(*given, **options)

    monkeypatch.setattr(select_winner.winner, "load", scarce)
    found = select_winner._score(problem, candidate, folder / "two", "x", [], announcer)
    assert [given[1] for given in asked] == [problem.device.type, "cpu"]
    assert found.score == expected.score
    assert np.array_equal(found.answers, expected.answers)


def test_ways_are_ordered_by_what_they_cost():
    for device in ("cpu", "cuda"):
        found = ways(32, 128, device)
        assert found[0] == Execution(32)
        assert len(found) == len(set(found)) == 12
    assert ways(32, 128, "cpu").index(Execution(1)) < ways(32, 128, "cpu").index(Execution(32, checkpointing=True))
    assert ways(32, 128, "cuda").index(Execution(32, True)) < ways(32, 128, "cuda").index(Execution(4))
    chain, way = [], Execution(5)
    while way:
        chain.append(way)
        way = way.smaller
    assert chain == [Execution(5), Execution(3), Execution(2), Execution(1), Execution(1, checkpointing=True)]


def test_predicted_memory_of_every_way_is_what_a_real_step_takes():
    from autopeft.budget.memory import peak

    base, candidate, length = base_of(), space("lora").default(), 40
    appraise = CostEstimator(base, TASK, CPU, blank_rows(np.full(64, length)))
    for way in (Execution(16), Execution(4), Execution(4, checkpointing=True), Execution(16, checkpointing=True)):
        predicted = appraise.predict(candidate, way).peak
        model = attach(base, candidate.method, candidate.params)
        if way.checkpointing:
            checkpoint_layers(model)
        train_mode(model)
        learner = Learner(model, candidate.hyper, 64, way)
        learner.take_turn()
        shape = appraise.batch_shapes(way.micro_batch)
        batch = {name: torch.ones(size, dtype=dtype) for name, (size, dtype) in shape.items()}
        parts = [Batch(batch, (way.micro_batch,))] * (16 // way.micro_batch)
        real = peak.measure(
            lambda parts=parts, learner=learner: learner.step(parts, TASK, CPU), model, others=batch.values()
        )
        assert predicted == pytest.approx(real, rel=0.03, abs=2**15), way


def test_the_meter_refuses_what_goes_over_and_counts_as_live_bytes_do():
    with LiveBytes() as live, Meter(10_000) as meter:
        for size in (1000, 2000):
            torch.zeros(size)
    assert meter.peak == 8000 == sum(at_peak(live.trace()).values())
    with Meter(10_000), pytest.raises(OverBudgetError, match=r"9\.8 KiB"):
        _ = [torch.zeros(1500) for _ in range(2)]


def test_the_watch_meters_first_steps_and_every_step_that_sets_a_record():
    base = base_of()
    model = attach(base, METHODS["lora"], METHODS["lora"].search_space(base.spec).defaults())
    watch = MemoryWatch(10**9, "cpu")
    learner = Learner(model, HYPER, len(DATA), watch=watch)
    learner.take_turn()
    peaks = []
    for count in (2, 4, 2, 3, 12):
        watch.peak = 0
        learner.step([Batch.of(DATA, [np.arange(count)], "cpu")], TASK, CPU)
        peaks.append(watch.peak)
    assert all(peaks[i] > 0 for i in (0, 1, 2, 4))
    assert peaks[3] == 0, "the fourth step was neither among the first nor a record"
    assert peaks[4] > peaks[1]
    watch.limit = peaks[1]
    with pytest.raises(OverBudgetError):
        learner.step([Batch.of(DATA, [np.arange(40)], "cpu")], TASK, CPU)


@pytest.mark.parametrize("name", METHODS)
def test_a_step_under_the_meter_is_the_same_step(name):
    base = base_of()
    params, trained = METHODS[name].search_space(base.spec).defaults(), []
    for watch in (None, MemoryWatch(10**9, "cpu")):
        learner = Learner(attach(base, METHODS[name], params), HYPER, len(DATA), watch=watch)
        learner.take_turn()
        train_mode(learner.model)
        torch.manual_seed(5)
        before = [parameter.detach().clone() for parameter in learner.parameters]
        for size in (4, 6):
            learner.step([Batch.of(DATA, [np.arange(size)], "cpu")], TASK, CPU)
        assert not all(map(torch.equal, learner.parameters, before))
        trained.append([parameter.detach().clone() for parameter in learner.parameters])
    assert all(map(torch.equal, *trained))


def test_a_refit_that_runs_out_of_memory_runs_once_more_in_smaller_parts(tiny_study, monkeypatch):
    problem = Problem.from_spec(StudySpec.from_file(tiny_study), discover())
    candidate = problem.space["lora"].default()
    tried = []

    def scarce(learner, *rest):
        tried.append(learner.execution)
        if learner.execution.micro_batch > 4:
            raise MemoryError("planted")
        return train_epoch(learner, *rest)

    monkeypatch.setattr(refit, "train_epoch", scarce)
    model = refit.refit(problem, candidate)
    assert [execution.micro_batch for execution in tried[:2]] == [8, 4]
    assert any(parameter.requires_grad for parameter in model.parameters())
    monkeypatch.setattr(refit, "train_epoch", lambda *_: (_ for _ in ()).throw(MemoryError("planted")))
    with pytest.raises(MemoryError, match="planted"):
        refit.refit(problem, candidate)


def test_where_a_gpus_memory_ran_out_the_step_needed_more_than_the_limit():
    watch = MemoryWatch(10**6, "cuda")
    watch.ran_out()
    assert watch.peak == 10**6 + 1


def live_tensors():
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some objects warn when they are looked at
        return sum(1 for found in gc.get_objects() if isinstance(found, torch.Tensor))


@pytest.mark.parametrize(("candidates_a_method", "times"), [(1, 4), (4, 5)])
@pytest.mark.exhaustive
def test_memory_ends_where_it_began_after_many_trials(tiny_study, candidates_a_method, times):
    edited = tiny_study.read_text().replace("epochs = 4", "epochs = 1") + '[budget]\nmax_gpu_memory = "60 MiB"\n'
    tiny_study.write_text(edited)
    problem = Problem.from_spec(StudySpec.from_file(tiny_study), discover())
    candidates = [c for part in problem.space.values() for c in part.sample(candidates_a_method, seed=0)] * times
    third = len(candidates) // 3
    assert len(candidates) == 3 * candidates_a_method * times
    counts, states = [], []
    for candidate in candidates:
        states.append(run_trial(problem, candidate, lambda rung: None).state)
        counts.append(live_tensors())
    assert set(states) == {COMPLETE}
    assert counts[-1] == counts[third] == counts[2 * third]
