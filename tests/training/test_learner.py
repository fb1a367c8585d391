from dataclasses import replace

import numpy as np
import pytest
import torch

from autopeft import ParameterGroup, PeftMethod, SearchSpace
from autopeft.common.exceptions import PluginError
from autopeft.common.seeds import derive_seed
from autopeft.data.encoded import Encoded
from autopeft.data.split import split
from autopeft.methods.training_space import Hyperparameters
from autopeft.models.attach import trainable
from autopeft.models.device import Device
from autopeft.tasks.registry import find_task
from autopeft.training.batch import bucketed
from autopeft.training.batch_plan import Execution
from autopeft.training.cross_validation import cross_validate
from autopeft.training.learner import DivergedError, Learner, evaluate, train_epoch
from autopeft.training.packing import pack
from autopeft.training.rungs import epochs_between, rung_ends
from autopeft.training.setup import Setup
from tests.models.test_base import METHODS, attach, base_of
from tests.tiny_models import learnable_rows

TASK = find_task("text-classification")
CPU = Device("cpu", None)
HYPER = Hyperparameters(learning_rate=5e-3, epochs=3, batch_size=8, warmup_ratio=0.1, weight_decay=0.01)


rows = learnable_rows


def lora(base=None, **params):
    base = base or base_of()
    return attach(base, METHODS["lora"], {**METHODS["lora"].search_space(base.spec).defaults(), **params})


def test_bucketed_batches_hold_every_row_once_and_pad_less():
    lengths = np.random.default_rng(0).integers(3, 100, 203)
    batches = bucketed(lengths, 13, seed=1, order=5)
    assert sorted(np.concatenate(batches)) == list(range(203))
    assert {len(batch) for batch in batches} == {15, 16}
    padded = sum(lengths[batch].max() * len(batch) for batch in batches)
    plain = sum(chunk.max() * len(chunk) for chunk in np.array_split(lengths, 13))
    assert padded < 0.7 * plain
    other = bucketed(lengths, 13, seed=2, order=5)
    assert any(set(one) != set(two) for one, two in zip(batches, other, strict=True))
    longest = [[lengths[batch].max() for batch in found] for found in (batches, other)]
    assert np.corrcoef(longest)[0, 1] > 0.95, "schedules of one order have long batches at the same places"


def test_a_batch_is_padded_masked_and_labelled():
    data = rows()
    batch = data.batch([0, 5])
    width = int(data.lengths[[0, 5]].max())
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, width)
    assert batch["attention_mask"].sum(1).tolist() == data.lengths[[0, 5]].tolist()
    assert (batch["input_ids"][batch["attention_mask"] == 0] == 1).all()
    assert batch["labels"].tolist() == [0, 2]


def test_training_learns_and_evaluation_keeps_the_order_of_rows():
    data, model = rows(), lora()
    learner = Learner(model, HYPER, len(data))
    losses = [train_epoch(learner, data, [np.arange(len(data))], TASK, CPU, [seed], seed)[0] for seed in range(3)]
    assert losses[-1] < losses[0]
    everything = evaluate(model, data, [np.arange(len(data))], TASK, CPU)[0]
    some = evaluate(model, data, [np.array([7, 3, 20])], TASK, CPU)[0]
    assert np.allclose(some, everything[[7, 3, 20]], atol=1e-5)
    assert np.allclose(everything.sum(1), 1, atol=1e-5)


def test_folds_in_lockstep_are_each_what_they_would_be_alone():
    data = rows()
    folds = split(len(data), data.truths, None, 3, seed=0)
    options = {"task": TASK, "metric": "accuracy", "device": CPU, "seed": 5}
    together = {
        rung.epoch: rung.scores for rung in cross_validate(lora(), Setup(rows=data, folds=folds, **options), HYPER)
    }
    assert list(together) == [1, 2, 3] == rung_ends(3, 48)
    for index, fold in enumerate(folds):
        model = lora()
        learner = Learner(model, HYPER, max(len(one.train) for one in folds))
        for epoch in range(1, HYPER.epochs + 1):
            seeds, order = [derive_seed(5, index, epoch)], derive_seed(5, epoch)
            train_epoch(learner, data, [fold.train], TASK, CPU, seeds, order)
            predictions = evaluate(model, data, [fold.validation], TASK, CPU)[0]
            assert together[epoch][index] == TASK.score("accuracy", data.truths[fold.validation], predictions)


def test_rungs_double_and_the_epochs_between_them_leave_nothing_out():
    assert rung_ends(1, rows=10) == [1]
    assert rung_ends(10, rows=799) == [1, 2, 4, 8, 10]
    assert rung_ends(4, rows=2000) == [0.5, 1, 2, 4]
    assert rung_ends(1, rows=10**6) == [0.125, 0.25, 0.5, 1]
    assert rung_ends(24, rows=100, longest=48) == [8, 16, 24]  # an epoch of so few rows tells nothing
    assert rung_ends(10, rows=100, longest=48) == [8, 10]
    assert rung_ends(12, rows=400, longest=24) == [4, 8, 12]
    assert rung_ends(3, rows=100, longest=48) == [3]
    assert rung_ends(4, rows=100, longest=4) == [1, 2, 4]  # not later than a sixth of the longest
    assert epochs_between(0, 0.5) == [(1, (0, 0.5))]
    assert epochs_between(0.5, 1) == [(1, (0.5, 1))]
    assert epochs_between(2, 4) == [(3, (0, 1)), (4, (0, 1))]


def test_the_parts_of_an_epoch_make_up_the_whole_one():
    data, everything = rows(), np.arange(48)
    seen = []

    class Recording(Encoded):
        def batch(self, rows, device="cpu"):
            seen.append(rows.tolist())
            return super().batch(rows, device)

    recording = Recording(**vars(data))
    for parts in ([(0.0, 1.0)], [(0.0, 0.5), (0.5, 1.0)]):
        learner = Learner(lora(), replace(HYPER, batch_size=10), 48)
        for part in parts:
            train_epoch(learner, recording, [everything], TASK, CPU, [3], 3, part)
    assert seen[:5] == seen[5:]
    assert sorted(row for batch in seen[:5] for row in batch) == list(range(48))


def test_a_diverging_loss_is_an_error():
    data, model = rows(), lora()
    for parameter in trainable(model).values():
        parameter.data.fill_(float("nan"))
    with pytest.raises(DivergedError):
        train_epoch(Learner(model, HYPER, len(data)), data, [np.arange(len(data))], TASK, CPU, [0], 0)


class Grouped(PeftMethod):
    """Trains the queries' biases and all norms, at the rates that the test gives."""

    contract, name = 1, "grouped"

    def __init__(self, groups):
        self.groups = groups

    def search_space(self, spec=None):
        return SearchSpace({})

    def apply(self, model, params, spec):
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("query.weight" in name or "LayerNorm.weight" in name)
        return model

    def parameter_groups(self, trained, params, spec):
        return self.groups(trained)


@pytest.mark.parametrize("folds", [1, 3])
def test_a_group_is_trained_at_its_own_rate_and_decay_packed_too(folds):
    """The first step of AdamW moves each value by the learning rate, whatever its gradient, and takes off the decay."""
    groups = [ParameterGroup((".query.weight",), rate=4.0), ParameterGroup(("LayerNorm.weight",), 0.5, 0.25)]

    def named(trained):
        assert all(len(shape) < 3 for shape in trained.values())
        return [replace(group, names=tuple(n for n in trained if n.endswith(group.names))) for group in groups]

    model = attach(base_of(), Grouped(named), {})
    if folds > 1:
        pack(model, folds)
    data, hyper = rows(), replace(HYPER, warmup_ratio=0.0, weight_decay=0.1)
    learner = Learner(model, hyper, len(data), Execution(8, folds=folds))
    learner.take_turn()
    before = {name: parameter.detach().clone() for name, parameter in trainable(model).items()}
    batch = learner.load(data, [np.arange(8) + 8 * fold for fold in range(folds)], "cpu")
    learner.step(batch, TASK, CPU)
    for name, parameter in trainable(model).items():
        rate, decay = (4.0, 0.1) if "query" in name else (0.5, 0.25) if "LayerNorm" in name else (1.0, 0.1)
        decay = 0.0 if name.endswith("bias") else decay
        moved = (parameter.detach() - before[name] * (1 - 5e-3 * rate * decay)).abs() / 5e-3
        assert float(moved.max()) == pytest.approx(rate, rel=1e-2), name


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda trained: [ParameterGroup(("lora_B",), rate=2)], "used 'lora_B'"),
        (lambda trained: [ParameterGroup((next(iter(trained)),))] * 2, "each parameter once"),
        (lambda trained: [ParameterGroup(tuple(trained), rate=0)], "a `rate` above 0, but gave 0"),
        (lambda trained: [ParameterGroup(tuple(trained), rate=float("nan"))], "a `rate` above 0, but gave nan"),
        (lambda trained: [ParameterGroup(tuple(trained), weight_decay=-1)], "a `weight_decay` of at least 0"),
        (lambda trained: [tuple(trained)], "ParameterGroup objects, but returned"),
    ],
)
def test_a_group_that_cannot_be_trained_is_the_methods_fault(wrong, told):
    with pytest.raises(PluginError, match=told):
        attach(base_of(), Grouped(wrong), {})


def test_loraplus_trains_b_faster_and_nothing_else():
    model = lora(loraplus_lr_ratio=16.0)
    faster = {n for n, p in trainable(model).items() for g in Learner(model, HYPER, 8).optimizer.param_groups
              if g["rate"] == 16 and any(p is one for one in g["params"])}  # fmt: skip
    assert faster == {name for name in trainable(model) if ".lora_B." in name}
    usual = Learner(lora(), HYPER, 8).optimizer.param_groups
    assert [(group["rate"], group["weight_decay"]) for group in usual] == [(1.0, 0.01), (1.0, 0.0)]


@pytest.mark.parametrize("folds", [1, 3])
def test_loraplus_moves_b_by_the_ratio_times_what_a_moves_packed_and_after_an_interruption_too(folds):
    """The first step of AdamW moves each value by its learning rate, so the moves are the rates."""
    ratio, hyper, data = 16.0, replace(HYPER, learning_rate=1e-3, warmup_ratio=0.5, weight_decay=0.0), rows()

    def learner():
        model = lora(loraplus_lr_ratio=ratio)
        with torch.no_grad():
            for name, parameter in trainable(model).items():
                if ".lora_B." in name:  # at 0, as it starts, no gradient would reach A
                    parameter += 0.1 * torch.randn_like(parameter)
        model = pack(model, folds) if folds > 1 else model
        found = Learner(model, hyper, len(data), Execution(8, folds=folds))
        found.take_turn()
        return found

    def step(one):
        before = {name: parameter.detach().clone() for name, parameter in trainable(one.model).items()}
        batch = one.load(data, [np.arange(8) + 8 * fold for fold in range(folds)], "cpu")
        one.step(batch, TASK, CPU)
        return {name: (p.detach() - before[name]).abs() for name, p in trainable(one.model).items()}

    def largest(moved, of, fold):
        return max(float((move if folds == 1 else move[fold]).max()) for name, move in moved.items() if of in name)

    torch.manual_seed(0)
    first, again = learner(), learner()
    rate, moved = first.learning_rate, step(first)
    for fold in range(folds):
        assert largest(moved, ".lora_A.", fold) == pytest.approx(rate, rel=1e-2)
        assert largest(moved, ".lora_B.", fold) == pytest.approx(ratio * rate, rel=1e-2)
    again.restore(first.states())
    wanted, found = step(first), step(again)
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)


def test_the_learning_rate_warms_up_and_ends_at_zero():
    learner = Learner(lora(), HYPER, rows=80)
    rates = []
    for _ in range(30):
        rates.append(learner.learning_rate)
        learner.done += 1
    assert np.argmax(rates) == 3
    assert rates[3] == pytest.approx(5e-3)
    assert rates[0] < rates[3] > rates[-1] > 0
    assert learner.learning_rate == pytest.approx(0)


def test_bfloat16_stays_close_to_float32():
    data = rows()
    model = lora()
    plain, mixed = (evaluate(model, data, [np.arange(48)], TASK, Device("cpu", d))[0] for d in (None, torch.bfloat16))
    assert not np.array_equal(plain, mixed)
    assert np.allclose(plain, mixed, atol=0.05)


def test_stratified_folds_hold_every_row_once_and_grouped_ones_keep_groups_whole():
    labels = np.repeat([0, 1, 2], 20)
    groups = [str(i // 4) for i in range(60)]
    for given in (None, groups):
        folds = split(len(labels), labels, given, 4, seed=0)
        assert sorted(np.concatenate([fold.validation for fold in folds])) == list(range(60))
        for fold in folds:
            assert not set(fold.train) & set(fold.validation)
            if given:
                assert not {groups[i] for i in fold.train} & {groups[i] for i in fold.validation}
            else:
                assert np.bincount(labels[fold.validation]).tolist() == [5, 5, 5]
