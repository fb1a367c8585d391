"""Candidates in one pass are each what they are alone, whatever their shapes, and whoever is beside them."""

from contextlib import contextmanager, suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from autopeft.budget.cost_estimator import CostEstimator
from autopeft.budget.memory.live_bytes import LiveBytes
from autopeft.budget.memory.peak import at_peak
from autopeft.data.split import Fold
from autopeft.execution.packing_choice import gradients
from autopeft.methods.candidate import CandidateSpace
from autopeft.models.attach import attach, trainable
from autopeft.testing.tiny import blank_rows
from autopeft.training.batch import Batch
from autopeft.training.batch_plan import Execution
from autopeft.training.checkpoint import Checkpoint
from autopeft.training.cohort import Cohort
from autopeft.training.cohort_check import agrees
from autopeft.training.cohort_member import Member
from autopeft.training.cross_validation import cross_validate, rows_of_epoch
from autopeft.training.learner import Learner
from autopeft.training.packing import pack
from autopeft.training.setup import Setup
from autopeft.training.slice_adamw import Plan, SliceAdamW
from autopeft.training.slice_dropout import SliceDropout
from tests.models.test_base import METHODS, base_of
from tests.training.test_packing import CPU, DATA, FOLDS, HYPER, OPTIONS, SITES, TASK, without_dropout

SETUP = Setup(rows=DATA, folds=FOLDS, **OPTIONS)
SMALL = {"r": 2, "lora_alpha": 5, "use_rslora": True}
WIDE = {"r": 8, "lora_alpha": 16}
FAST = {"r": 3, "lora_alpha": 7, "loraplus_lr_ratio": 4.0}
LORAS = (SMALL, WIDE, FAST)
ADAPTERS = ({"reduction_factor": 8}, {"reduction_factor": 2}, {"reduction_factor": 5})
OTHERS = [
    HYPER,
    replace(HYPER, learning_rate=2e-2, weight_decay=0.1, warmup_ratio=0.0),
    replace(HYPER, learning_rate=1e-3, epochs=2, schedule="constant"),
]
"""Their training: other rates, decays, lengths and schedules."""


def params_of(name, given):
    return {**METHODS[name].search_space(base_of().spec).defaults(), **given}


def model_of(name, given, *, dropout=False):
    model = attach(base_of(), METHODS[name], params_of(name, given), seed=3)
    return model if dropout else without_dropout(model)


def member_of(name, given, hyper=HYPER, *, dropout=False, setup=SETUP):
    model = pack(model_of(name, given, dropout=dropout), 3, sites=name in SITES)
    rows = rows_of_epoch(setup.folds, hyper.batch_size)
    learner = Learner(model, hyper, rows, Execution(hyper.batch_size, folds=3), device=CPU)
    return Member(learner, setup, factors_of(name, given, model))


def factors_of(name, given, model):
    return METHODS[name].factors(trainable(model), params_of(name, given), base_of().spec)


def cohort_of(name, *members, dropout=False, like=None, setup=SETUP):
    model = model_of(name, like or members[0], dropout=dropout)
    cohort = Cohort(model, setup, factors_of(name, like or members[0], model), sites=name in SITES)
    for member in members:
        cohort.admit(member if isinstance(member, Member) else member_of(name, member, dropout=dropout))
    return cohort


def few_rows(candidates):
    picked = [one.train[5 * index : 6 * index + 3] for index, one in enumerate(FOLDS)]
    return Batch.of(DATA, picked * candidates, "cpu")


def fits(cohort):
    return agrees(
        cohort, cohort.members, lambda model, batch: gradients(model, batch, TASK, CPU), few_rows, torch.float32
    )


@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("lora", LORAS),
        ("dora", (SMALL, WIDE)),
        ("adapter", ADAPTERS),
        ("adapter", tuple({**one, "placement": "parallel", "non_linearity": "gelu"} for one in ADAPTERS)),
        ("vera", ({"r": 16, "d_initial": 0.1}, {"r": 16, "d_initial": 0.7})),
        ("bitfit", ({}, {})),
        ("ia3", ({}, {})),
    ],
    ids=["lora", "dora", "adapter", "parallel adapter", "vera", "bitfit", "ia3"],
)
def test_gradients_are_those_of_each_candidate_alone_though_their_shapes_differ(name, members):
    cohort = cohort_of(name, *members)
    before = [tensor.clone() for member in cohort.members for tensor in member.learner.tensors]
    assert fits(cohort)
    after = [tensor for member in cohort.members for tensor in member.learner.tensors]
    assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True)), "a check changes nothing"


@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("adapter", ({"non_linearity": "relu"}, {"non_linearity": "gelu"})),
        ("prefix_tuning", ({"num_virtual_tokens": 2}, {"num_virtual_tokens": 5})),
        ("prompt_tuning", ({"num_virtual_tokens": 2}, {"num_virtual_tokens": 5})),
        ("lora", ({"init_lora_weights": "pissa", "r": 2}, {"init_lora_weights": "pissa", "r": 4})),
    ],
    ids=["activation", "prefix", "prompt", "what is subtracted"],
)
def test_what_padding_would_change_is_found_out(name, members):
    if name == "prompt_tuning" and not METHODS[name].supports(base_of().spec):
        pytest.skip("not supported")
    with suppress(RuntimeError, ValueError):  # shapes that do not go together are found out too
        assert not fits(cohort_of(name, *members))


class Sigmoid(type(METHODS["adapter"])):
    """An adapter whose activation is not 0 at 0."""

    def apply(self, model, params, spec):
        model = super().apply(model, params, spec)
        for module in list(model.modules()):
            if hasattr(module, "non_linearity"):
                module.non_linearity = nn.Sigmoid()
        return model


def test_an_activation_that_is_not_zero_at_zero_is_found_out(monkeypatch):
    monkeypatch.setitem(METHODS, "adapter", Sigmoid())
    assert fits(cohort_of("adapter", ADAPTERS[0], ADAPTERS[0]))
    assert not fits(cohort_of("adapter", *ADAPTERS))


def test_a_scale_that_a_method_does_not_tell_is_found_out(monkeypatch):
    monkeypatch.setattr(type(METHODS["lora"]), "factors", lambda *_: {})
    assert not fits(cohort_of("lora", *LORAS))


def test_candidates_with_other_targets_are_refused():
    with pytest.raises(ValueError, match="other tensors"):
        cohort_of("lora", {"target_modules": "query_value"}, {"target_modules": "all_linear"})


def alone(name, given, hyper, steps):
    """The tensors after some steps of a trial of its own."""
    member = member_of(name, given, hyper)
    member.learner.take_turn()
    for _ in range(steps):
        done = member.learner.done
        rows = member.batch()
        member.learner.done = done  # which the learner counts itself
        member.learner.model.train()
        member.learner.step([Batch.of(DATA, rows, "cpu")], TASK, CPU)
    return member.learner.tensors


DIVERGING = replace(HYPER, learning_rate=1e6, warmup_ratio=0.0)


@pytest.mark.parametrize(("name", "members"), [("lora", LORAS), ("adapter", ADAPTERS)], ids=["lora", "adapter"])
@pytest.mark.parametrize("slot", ["first", "last"])
def test_a_step_is_that_of_the_candidate_alone_in_any_slot_and_beside_one_that_diverges(name, members, slot):
    for given, hyper in zip(members, OTHERS, strict=True):
        mine, bad = member_of(name, given, hyper), member_of(name, WIDE if name == "lora" else {}, DIVERGING)
        beside = [member_of(name, other) for other in members if other is not given]
        bad.learner.tensors[0].fill_(torch.nan)
        order = [mine, *beside, bad] if slot == "first" else [bad, *beside, mine]
        cohort = cohort_of(name, *order, like=given)
        cohort.train(1)
        for found, expected in zip(mine.learner.tensors, alone(name, given, hyper, 1), strict=True):
            assert torch.allclose(found, expected, atol=1e-6, rtol=1e-5)
        assert mine.finite
        assert not bad.finite


def run(cohort):
    """Train members to their ends, as they come to rungs; returns each one's rungs."""
    found = {id(member): [] for member in cohort.members}
    while cohort.members:
        cohort.train(min(member.to_rung for member in cohort.members))
        ready = [member for member in cohort.members if member.to_rung == 0]
        for member, answers in zip(ready, cohort.evaluate(ready), strict=True):
            found[id(member)].append(member.reach(answers))
            if member.ended:
                cohort.leave(member)
    return list(found.values())


def curve(rungs):
    return [rung.scores for rung in rungs], [loss for rung in rungs for loss in rung.losses]


@pytest.mark.parametrize(
    ("name", "members"), [("lora", LORAS), ("adapter", ADAPTERS), ("dora", LORAS)], ids=["lora", "adapter", "dora"]
)
def test_scores_at_rungs_are_those_of_each_candidate_alone(name, members):
    cohort = cohort_of(name, *(member_of(name, given, hyper) for given, hyper in zip(members, OTHERS, strict=True)),
                       like=members[1])  # fmt: skip
    together = run(cohort)
    for given, hyper, found in zip(members, OTHERS, together, strict=True):
        model = pack(model_of(name, given), 3, sites=name in SITES)
        execution = Execution(hyper.batch_size, folds=3)
        expected = list(cross_validate(model, SETUP, hyper, execution=execution))
        assert [rung.epoch for rung in found] == [rung.epoch for rung in expected]
        assert curve(found)[0] == curve(expected)[0]
        assert curve(found)[1] == pytest.approx(curve(expected)[1], abs=2e-5)
        assert np.ptp(curve(found)[1]) > 1e-4, "training changes something"


def test_one_that_joins_later_has_the_curve_it_has_alone():
    first, late = member_of("lora", WIDE, OTHERS[1]), member_of("lora", SMALL, HYPER)
    cohort = cohort_of("lora", first, like=WIDE)
    cohort.train(first.to_rung)
    first.reach(cohort.evaluate([first])[0])
    cohort.leave(first)
    cohort.admit(late)
    (found,) = run(cohort)
    (expected,) = run(cohort_of("lora", member_of("lora", SMALL, HYPER), like=SMALL))
    assert curve(found)[0] == curve(expected)[0]
    assert curve(found)[1] == pytest.approx(curve(expected)[1], abs=1e-5)


def test_a_candidate_goes_on_alone_or_in_another_cohort_from_its_checkpoint(tmp_path):
    checkpoint = Checkpoint(tmp_path / "trial")
    member = member_of("lora", SMALL)
    cohort = cohort_of("lora", member, member_of("lora", WIDE), like=WIDE)
    cohort.train(member.to_rung)
    for one, answers in zip(cohort.members, cohort.evaluate(cohort.members), strict=True):
        one.reach(answers)
    checkpoint.keep(range(3), member.learner, member.histories)
    (whole, _) = run(cohort)
    again = member_of("lora", SMALL)
    again.histories = checkpoint.restore(range(3), again.learner)
    (resumed, _) = run(cohort_of("lora", again, member_of("lora", WIDE), like=WIDE))
    assert curve(resumed)[0] == curve(whole)[0]
    assert curve(resumed)[1] == pytest.approx(curve(whole)[1], abs=1e-5)
    model = pack(model_of("lora", SMALL), 3)
    execution = Execution(HYPER.batch_size, folds=3)
    *_, last = cross_validate(model, SETUP, HYPER, execution=execution, checkpoint=checkpoint)
    assert last.scores == whole[-1].scores
    assert last.losses == pytest.approx(whole[-1].losses, abs=1e-5)


def test_every_slice_is_updated_as_by_an_optimizer_of_its_own():
    torch.manual_seed(0)
    shapes, rates, decays = (
        [(3, 5), (4,), (2, 8)],
        [(1.0, 1.0), (1.0, 4.0), (1.0, 1.0)],
        [(0.1, 0.3), (0, 0), (0.1, 0.3)],
    )
    own = [[torch.randn(shape) for shape in shapes] for _ in range(2)]
    stacks = [nn.Parameter(torch.stack(pair)) for pair in zip(*own, strict=True)]
    together = SliceAdamW(stacks, [Plan(*pair) for pair in zip(rates, decays, strict=True)])
    singles = [[nn.Parameter(tensor.clone()) for tensor in tensors] for tensors in own]
    peaks = (1e-2, 3e-3)
    optimizers = [
        torch.optim.AdamW([
            {"params": [p], "lr": peaks[k] * rate[k], "weight_decay": decay[k]}
            for p, rate, decay in zip(singles[k], rates, decays, strict=True)
        ])
        for k in range(2)
    ]  # fmt: skip
    for step in range(30):
        for index, stack in enumerate(stacks):
            stack.grad = torch.randn_like(stack) * (1 + step % 3)
            for k in range(2):
                singles[k][index].grad = stack.grad[k].clone()
        for k in range(2):
            nn.utils.clip_grad_norm_(singles[k], 1.0)
            optimizers[k].step()
        together.step(torch.tensor(peaks))
    for k in range(2):
        for stack, single in zip(stacks, singles[k], strict=True):
            assert torch.allclose(stack[k], single, atol=1e-6)
    with pytest.raises(ValueError, match="no gradient"):
        together.step(torch.tensor(peaks))


@pytest.mark.parametrize("mapped", [False, True], ids=["rows", "mapped"])
def test_every_slice_drops_at_its_own_rate_and_keeps_its_mean(mapped):
    torch.manual_seed(0)
    layer, ones = SliceDropout([0.0, 0.2, 0.6], "cpu"), torch.ones(3 * 50, 400)
    if mapped:
        owner = nn.Module()
        owner.scale, owner.dropout = nn.Parameter(torch.ones(())), layer
        owner.forward = lambda x: owner.dropout(x) * owner.scale
        found = pack(nn.Sequential(owner), 3)(ones).detach()
    else:
        found = layer(ones)
    parts = found.view(3, -1)
    assert (parts == 0).float().mean(1).tolist() == pytest.approx([0.0, 0.2, 0.6], abs=0.02)
    assert parts.mean(1).tolist() == pytest.approx([1.0] * 3, abs=0.03)
    assert torch.equal(layer.eval()(ones), ones)


@pytest.mark.parametrize("name", ["lora", "dora"])
def test_rates_of_dropout_are_each_candidates_own(name):
    members = [{**WIDE, "lora_dropout": rate} for rate in (0.0, 0.3)]
    cohort = cohort_of(name, *members, dropout=True)
    cohort._hold(cohort.members)
    placed = [module for module in cohort.model.modules() if isinstance(module, SliceDropout)]
    assert len(placed) == 2 * len(base_of().spec.layers), "the base model's own dropout stays as it is"
    assert all(module.rates.tolist() == pytest.approx([0.0] * 3 + [0.3] * 3) for module in placed)
    together = run(cohort)
    assert all(np.isfinite(rung.losses).all() for rungs in together for rung in rungs)


@pytest.mark.parametrize(("name", "members"), [("lora", LORAS), ("adapter", ADAPTERS)], ids=["lora", "adapter"])
def test_memory_of_a_cohort_is_predicted(name, members):
    base, count = base_of(), len(members)
    space = CandidateSpace.build([METHODS[name]], base.spec, {name: members[1]}, ())
    candidate = space[name].default()
    data = blank_rows(np.full(3 * 64, 24))
    estimator = CostEstimator(base, TASK, CPU, data, packed={name: False}, folds=3)
    predicted = estimator.predict(candidate, Execution(16, folds=3, candidates=count)).peak
    folds = [Fold(rows, rows) for rows in np.array_split(np.arange(len(data)), 3)]
    setup = Setup(rows=data, folds=folds, **OPTIONS)
    hyper = replace(HYPER, batch_size=16)
    inside = [member_of(name, members[1], hyper, dropout=True, setup=setup) for _ in members]
    cohort = cohort_of(name, *inside, dropout=True, like=members[1], setup=setup)

    class Watch:
        def __init__(self):
            self.peak = 0

        @contextmanager
        def __call__(self, cohort, places):
            with LiveBytes() as live:
                for tensor in (*cohort.model.parameters(), *cohort.model.buffers(), *cohort.kept_tensors()):
                    live.count(tensor)
                resident = live.alive
                yield
            self.peak = sum(at_peak(live.trace(resident)).values())

    cohort.watch = Watch()
    cohort.train(2)
    assert predicted == pytest.approx(cohort.watch.peak, rel=0.05, abs=2**15)
