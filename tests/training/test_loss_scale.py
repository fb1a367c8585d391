"""Training in float16: the loss is scaled for each fold by itself, whether folds take turns or are packed."""

from functools import partial

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from autopeft.execution.packing_choice import gradients
from autopeft.methods.candidate import CandidateSpace
from autopeft.models.architecture import describe
from autopeft.models.attach import trainable
from autopeft.models.device import Device
from autopeft.models.float16 import overflows
from autopeft.training.batch import Batch
from autopeft.training.batch_plan import Execution
from autopeft.training.learner import DivergedError, Learner, train_epoch
from autopeft.training.loss_scale import GROWTH_STEPS, START, LossScale
from autopeft.training.packing import pack
from autopeft.training.packing_check import packable
from autopeft.training.stacked_adamw import StackedAdamW
from tests.models.test_base import METHODS, attach, base_of
from tests.tiny_models import SIZES
from tests.training.step_memory import predicted_and_measured
from tests.training.test_learner import CPU, HYPER, TASK, lora, rows

HALF = Device("cpu", torch.float16)
DATA = rows()
FOLDS = 3
HUGE = 2.0**40
"""A factor with which every gradient of the tiny model overflows."""


def learner_of(folds=1):
    """Of a model in float32 that runs in float16 and drops nothing, so that it can be compared to itself."""
    model = lora()
    if folds > 1:
        pack(model, folds)
    learner = Learner(model.eval(), HYPER, len(DATA), Execution(8, folds=folds), device=HALF)
    learner.take_turn()
    return learner


def step(learner, number):
    """On other rows in every step and fold."""
    own = [np.arange(8) + 4 * (fold + number) for fold in range(learner.folds)]
    return learner.step(learner.load(DATA, own, "cpu"), TASK, HALF)


def alone(fold, number, factor=START, steps=3):
    """A learner of one fold after some steps on the rows that it has in a pack."""
    learner = learner_of()
    learner.scale.factors.fill_(factor)
    for number in range(steps):
        learner.step(learner.load(DATA, [np.arange(8) + 4 * (fold + number)], "cpu"), TASK, HALF)
    return learner


def test_training_in_float16_comes_close_to_float32():
    losses = {}
    for device in (CPU, HALF):
        learner = Learner(lora(), HYPER, len(DATA), device=device)
        epoch = partial(train_epoch, learner, DATA, [np.arange(len(DATA))], TASK, device)
        losses[device] = [float(epoch([seed], seed)[0]) for seed in range(3)]
        assert {parameter.dtype for parameter in trainable(learner.model).values()} == {torch.float32}
    assert losses[CPU] != losses[HALF]
    assert losses[HALF] == pytest.approx(losses[CPU], abs=2e-3)
    assert losses[HALF][-1] < losses[HALF][0]


def test_a_step_that_overflows_is_left_out_and_halves_the_factor():
    learner = learner_of()
    learner.scale.factors.fill_(HUGE)
    before = [parameter.detach().clone() for parameter in learner.parameters]
    assert step(learner, 0).isfinite().all(), "the loss itself is what it is"
    assert learner.scale.factors.tolist() == [HUGE / 2]
    assert all(map(torch.equal, before, learner.parameters))
    assert all(not state["step"] for state in learner.optimizer.state.values())
    learner.scale.factors.fill_(START)
    step(learner, 1)
    assert learner.scale.factors.tolist() == [START]
    assert not all(map(torch.equal, before, learner.parameters))


def test_in_a_pack_a_fold_that_overflows_costs_no_other_one_a_step():
    together = learner_of(FOLDS)
    factors = [START, HUGE, START / 4]
    together.scale.factors.copy_(torch.tensor(factors))
    for number in range(3):
        step(together, number)
    assert together.scale.factors.tolist() == [START, HUGE / 8, START / 4]
    for fold, factor in enumerate(factors):
        own = alone(fold, 3, factor)
        moved = [not torch.equal(a, b) for a, b in zip(own.parameters, lora_parameters(), strict=True)]
        assert any(moved) is (factor != HUGE)
        for stack, tensor in zip(together.parameters, own.parameters, strict=True):
            assert torch.allclose(stack[fold], tensor, atol=2e-4), fold


def lora_parameters():
    return list(trainable(lora()).values())


def test_a_fold_that_overflowed_once_goes_on_as_it_would_alone():
    together, enough = learner_of(2), 2.0**21
    together.scale.factors.copy_(torch.tensor([START, enough]))
    while together.scale.factors[1] == enough or together.scale.overflowed[1]:
        step(together, 0)
        assert together.scale.factors[1] >= 1
    skipped = int(torch.log2(enough / together.scale.factors[1]))
    step(together, 1)
    counts = {tuple(state["step"].tolist()) for state in together.optimizer.state.values()}
    ((first, second),) = counts
    assert 0 < skipped == first - second


@pytest.mark.parametrize("vector", [False, True], ids=["matrices", "vectors"])
def test_each_slice_of_a_stack_is_updated_as_torch_updates_it_alone(vector):
    torch.manual_seed(0)
    start = torch.randn(FOLDS, 5) if vector else torch.randn(FOLDS, 5, 4)
    stack = torch.nn.Parameter(start.clone())
    slices = [torch.nn.Parameter(part.clone()) for part in start]
    groups = {"weight_decay": 0.1}
    stacked = StackedAdamW([{"params": [stack], **groups}], lr=0.01)
    single = [torch.optim.AdamW([{"params": [part], **groups}], lr=0.01) for part in slices]
    for number in range(6):
        skipped = torch.tensor([number == 0, number % 2, False], dtype=torch.float32)
        gradient = torch.randn_like(stack) * (1 - skipped).view(-1, *[1] * (stack.ndim - 1))
        stack.grad, stacked.found_inf = gradient, skipped
        stacked.step()
        for part, optimizer, own, out in zip(slices, single, gradient, skipped, strict=True):
            part.grad = own.clone()
            if not out:
                optimizer.step()
    assert torch.allclose(stack, torch.stack(slices), atol=1e-6)


@pytest.mark.parametrize(("before", "after"), [(1, 1), (FOLDS, FOLDS), (1, FOLDS), (FOLDS, 1)])
def test_an_interrupted_training_goes_on_with_its_factors(before, after):
    """Also where folds that were packed take turns from then on, or the other way round."""
    whole = learner_of(FOLDS)
    whole.scale.factors.copy_(torch.tensor([HUGE, START, START / 2]))
    for number in range(2):
        step(whole, number)
    if before == 1:
        firsts = [alone(fold, 2, factor, steps=2) for fold, factor in enumerate([HUGE, START, START / 2])]
        states = [learner.states()[0] for learner in firsts]
    else:
        states = whole.states()
    step(whole, 2)
    if after > 1:
        resumed = learner_of(FOLDS)
        resumed.restore(states)
        resumed.take_turn()
        step(resumed, 2)
        found, factors = resumed.parameters, resumed.scale.factors.tolist()
    else:
        resumed = learner_of()
        resumed.restore(states[:1])
        resumed.take_turn()
        resumed.step(resumed.load(DATA, [np.arange(8) + 8], "cpu"), TASK, HALF)
        found, factors = [p[None] for p in resumed.parameters], resumed.scale.factors.tolist()
    assert factors == whole.scale.factors.tolist()[: len(factors)]
    for one, two in zip(found, whole.parameters, strict=True):
        assert torch.allclose(one, two[: len(one)], atol=2e-4)


def test_a_factor_is_doubled_after_many_good_steps():
    scale = LossScale(2, "cpu")
    scale.overflowed = torch.tensor([False, True])
    scale.update()
    scale.overflowed = torch.tensor([False, False])
    for _ in range(GROWTH_STEPS - 1):
        scale.update()
    assert scale.factors.tolist() == [2 * START, START / 2]
    assert scale.good.tolist() == [0, GROWTH_STEPS - 1]


def test_gradients_that_overflow_whatever_they_are_scaled_by_end_the_trial():
    learner = Learner(lora(), HYPER, len(DATA), device=HALF)
    learner.scale.factors.fill_(1 / 2)
    with pytest.raises(DivergedError, match="overflow float16 in every step"):
        train_epoch(learner, DATA, [np.arange(len(DATA))], TASK, HALF, [0], 0)


@pytest.mark.parametrize("name", ["adapter", "lora", "prefix_tuning"])
@pytest.mark.parametrize("folds", [1, FOLDS])
def test_memory_in_float16_is_predicted(name, folds):
    base = base_of()
    base.lower(torch.float16)
    candidate = CandidateSpace.build([METHODS[name]], base.spec, {}, ())[name].default()
    predicted, real = predicted_and_measured(base, TASK, candidate, HALF, DATA, folds, FOLDS)
    assert predicted.peak == pytest.approx(real, rel=0.02)


@pytest.mark.parametrize("name", ["adapter", "lora", "prefix_tuning"])
def test_folds_are_packed_in_float16(name):
    base = base_of()
    base.lower(torch.float16)
    params = METHODS[name].search_space(base.spec).defaults()
    batch = Batch.of(DATA, [np.arange(0, 4), np.arange(4, 7), np.arange(8, 12)], "cpu")
    found = packable(
        lambda: attach(base, METHODS[name], params).eval(),
        lambda model, some: gradients(model, some, TASK, HALF),
        batch,
        torch.float16,
    )
    assert found is False, "module by module"


@pytest.mark.parametrize("model_type", ["bert", "roberta", "gpt2", "llama", "t5"])
def test_only_models_that_overflow_are_refused(model_type):
    base = base_of(model_type)
    reason = overflows(base.module, base.spec)
    assert ("`wo` overflow" in reason) is (model_type == "t5")
    assert bool(reason) is (model_type == "t5")


def test_a_gemma_3_is_refused():
    options = {**SIZES, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 64}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("gemma3_text", **options))
    assert "hidden states of gemma3_text models" in overflows(model, describe(model, "causal-lm", "CAUSAL_LM"))
