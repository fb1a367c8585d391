"""AdamW with moments in 8 bits: each fold's run is what it would be alone, goes on after a stop, and is counted."""

import gc
import importlib.util
import platform

import numpy as np
import pytest
import torch

import autopeft
from autopeft.budget.cost_estimator import CostEstimator
from autopeft.common.exceptions import ModelError
from autopeft.methods.candidate import CandidateSpace
from autopeft.models import quantization
from autopeft.models.attach import trainable
from autopeft.models.device import Device
from autopeft.training import pages
from autopeft.training.batch_plan import Execution
from autopeft.training.blockwise_adamw import BLOCK, LEAST, LEAST_PAGED, BlockwiseAdamW, moment_bytes, require
from autopeft.training.learner import Learner, train_epoch
from autopeft.training.packing import pack
from tests.conftest import THREE, autopeft_here
from tests.models.test_base import METHODS, attach, base_of
from tests.search.test_run import edit, run_study
from tests.training.step_memory import predicted_and_measured
from tests.training.test_learner import CPU, HYPER, TASK, lora, rows

FEW = Device("cpu", None, "adamw_8bit")
FOLDS = 3
LARGE = {"r": 160}
"""LoRA whose tensors have 5,120 values at least in the tiny model, so that their moments are in 8 bits."""

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason='needs pip install "autopeft[quantization]"'
)
needs_x86 = pytest.mark.skipif(platform.machine().lower() not in quantization.X86, reason="for x86 processors")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize(
    ("kind", "machine", "rule"),
    [
        ("paged_adamw_8bit", "x86_64", r'"paged_adamw_8bit"` in \[model\] needs a CUDA device, .* use "adamw_8bit"'),
        ("adamw_8bit", "aarch64", r'"adamw_8bit"` in \[model\] needs a CUDA device or an x86 processor, .* neither'),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_what_this_machine_cannot_do_is_refused(kind, machine, rule, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    with pytest.raises(ModelError, match=rule):
        require(kind)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_study_that_asks_for_it_ends_in_one_sentence(tiny_study):
    edit(tiny_study, ('"model"\n', '"model"\noptimizer = "paged_adamw_8bit"\n'))
    done = autopeft_here("run", tiny_study, cwd=tiny_study.parent)
    assert done.returncode == 2
    assert '`optimizer = "paged_adamw_8bit"` in [model] needs a CUDA device' in done.stderr
    assert "Traceback" not in done.stderr


@needs_bitsandbytes
@needs_x86
@pytest.mark.parametrize("quantization", ["none", "8bit"])
def test_a_study_is_searched_refitted_and_predicts(tiny_study, quantization):
    settings = f'"model"\noptimizer = "adamw_8bit"\nquantization = "{quantization}"\n'
    edit(tiny_study, ('"model"\n', settings), (THREE, 'methods = ["lora"]\nlora.r = 160'))
    result = run_study(tiny_study)
    assert any(record["state"] == "COMPLETE" for record in result["records"])
    assert not any(record["state"] == "FAIL" for record in result["records"])
    winner = autopeft.load(tiny_study.parent / "outputs" / "tiny" / "winner")
    assert len(winner.predict(["w1 w2", "w3"])) == 2


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
@needs_x86
def test_without_bitsandbytes_it_is_refused():
    require("adamw")
    with pytest.raises(ModelError, match=r'needs bitsandbytes, which is not installed; run pip install "autopeft\['):
        require("adamw_8bit")


def compared(place, paged=False, steps=5):
    """Stacks that were trained by ours, and their slices by bitsandbytes' own, some with a decay; sizes are uneven."""
    from bitsandbytes.optim import AdamW8bit

    torch.manual_seed(0)
    shapes = [(7,), (LEAST // 8 + 1, 9), (LEAST_PAGED + 3,)]
    stacks = [torch.nn.Parameter(torch.randn(FOLDS, *shape, device=place)) for shape in shapes]
    slices = [[torch.nn.Parameter(part.clone()) for part in stack.detach()] for stack in stacks]
    ours = BlockwiseAdamW(
        [{"params": stacks[:1]}, {"params": stacks[1:], "weight_decay": 0.1}], lr=0.01, folds=FOLDS, paged=paged
    )
    theirs = AdamW8bit(
        [{"params": slices[0], "weight_decay": 0.0}, {"params": slices[1] + slices[2], "weight_decay": 0.1}], lr=0.01
    )
    for number in range(steps):
        for group in (*ours.param_groups, *theirs.param_groups):
            group["lr"] = 0.01 / (number + 1)
        for stack, parts in zip(stacks, slices, strict=True):
            stack.grad = torch.randn_like(stack)
            for part, gradient in zip(parts, stack.grad, strict=True):
                part.grad = gradient.clone()
        ours.step()
        theirs.step()
    return ours, stacks, [torch.stack([*parts]) for parts in slices]


@needs_bitsandbytes
@needs_x86
def test_each_slice_of_a_stack_is_what_bitsandbytes_makes_of_it_alone():
    ours, stacks, alone = compared("cpu")
    for stack, parts in zip(stacks, alone, strict=True):
        assert torch.equal(stack, parts)
    kinds = [ours.state[stack]["state1"].dtype for stack in stacks]
    assert kinds == [torch.float32, torch.uint8, torch.uint8]
    state = [tensor for stack in stacks for name, tensor in ours.state[stack].items() if name != "step"]
    sizes = [stack[0].numel() for stack in stacks]
    assert sum(tensor.nbytes for tensor in state) == FOLDS * moment_bytes("adamw_8bit", sizes)
    assert ours.state[stacks[1]]["absmax1"].shape == (FOLDS, -(-sizes[1] // BLOCK))


@needs_bitsandbytes
@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("paged", [False, True])
def test_on_a_gpu_too_and_paged_memory_is_used_again(paged):
    free = len(pages._FREE)
    for _ in range(2):
        ours, stacks, alone = compared("cuda", paged)
        for stack, parts in zip(stacks, alone, strict=True):
            assert torch.equal(stack, parts)
        assert [pages.is_paged(ours.state[stack]["state1"]) for stack in stacks] == [False, False, paged]
        del ours, stacks
        gc.collect()
        assert len(pages._FREE) == max(free, 2 * paged)


@needs_bitsandbytes
@needs_x86
def test_a_slice_that_sits_a_step_out_stays_as_it_is():
    stack = torch.nn.Parameter(torch.randn(2, LEAST))
    optimizer = BlockwiseAdamW([stack], lr=0.01, folds=2)
    before = stack.detach().clone()
    stack.grad, optimizer.found_inf = torch.randn_like(stack), torch.tensor([1.0, 0.0])
    optimizer.step()
    state = optimizer.state[stack]
    assert torch.equal(stack[0], before[0])
    assert not torch.equal(stack[1], before[1])
    assert state["step"].tolist() == [0, 1]
    assert not state["absmax1"][0].any()
    assert state["absmax1"][1].all()


@needs_bitsandbytes
@needs_x86
def test_a_tensor_that_is_kept_turned_is_trained_in_its_place():
    plain, turned = torch.randn(64, 80), torch.randn(80, 64).T
    turned.copy_(plain)
    parameters = [torch.nn.Parameter(one) for one in (plain, turned)]
    gradient = torch.randn(64, 80)
    for parameter in parameters:
        parameter.grad = gradient.clone()
        BlockwiseAdamW([parameter], lr=0.01).step()
    assert not parameters[1].is_contiguous()
    assert torch.equal(*parameters)


def learner_of(folds=1):
    model = lora(**LARGE)
    if folds > 1:
        pack(model, folds)
    learner = Learner(model.eval(), HYPER, 48, Execution(8, folds=folds), device=FEW)
    learner.take_turn()
    return learner


def step(learner, number):
    """On other rows in every step and fold."""
    own = [np.arange(8) + 4 * (fold + number) for fold in range(learner.folds)]
    return learner.step(learner.load(rows(), own, "cpu"), TASK, FEW)


@needs_bitsandbytes
@needs_x86
@pytest.mark.parametrize("folds", [1, FOLDS])
def test_an_interrupted_training_goes_on_to_the_same_bits(folds):
    whole = learner_of(folds)
    for number in range(2):
        step(whole, number)
    assert torch.uint8 in {tensor.dtype for tensor in whole.kept_tensors()}
    states = whole.states()
    resumed = learner_of(folds)
    resumed.restore(states)
    resumed.take_turn()
    for number in (2, 3):
        for learner in (whole, resumed):
            step(learner, number)
    for one, two in zip(whole.parameters, resumed.parameters, strict=True):
        assert torch.equal(one, two)
    if folds > 1:  # one fold of the pack goes on by itself
        alone = learner_of()
        alone.restore(states[:1])
        alone.take_turn()
        for number in (2, 3):
            step(alone, number)
        for one, two in zip(whole.parameters, alone.parameters, strict=True):
            assert torch.allclose(one[0], two, atol=1e-3)


@needs_bitsandbytes
@needs_x86
def test_it_learns_nearly_what_moments_in_float32_do():
    found = {}
    for device in (CPU, FEW):
        learner = Learner(lora(**LARGE), HYPER, 48, device=device)
        everything = [np.arange(48)]
        found[device.optimizer] = [
            float(train_epoch(learner, rows(), everything, TASK, device, [seed], seed)[0]) for seed in range(3)
        ]
    plain, few = found.values()
    assert plain != few
    assert few == pytest.approx(plain, rel=0.02)
    assert few[-1] < few[0]


@pytest.mark.parametrize("folds", [1, FOLDS])
@pytest.mark.parametrize("name", ["lora", "adapter"])
@needs_bitsandbytes
@needs_x86
def test_memory_is_predicted(name, folds):
    base, data = base_of(), rows()
    fixed = {"lora": {"r": 160}} if name == "lora" else {}
    candidate = CandidateSpace.build([METHODS[name]], base.spec, fixed, ())[name].default()
    predicted, real = predicted_and_measured(base, TASK, candidate, FEW, data, folds, FOLDS)
    assert predicted.peak == pytest.approx(real, rel=0.02)
    usual = CostEstimator(base, TASK, CPU, data, packed={name: False}, folds=FOLDS)
    spared = usual.predict(candidate, Execution(16, folds=folds)).optimizer - predicted.optimizer
    sizes = [parameter.numel() for parameter in trainable(attach(base, METHODS[name], candidate.params)).values()]
    counted = folds * (moment_bytes("adamw", sizes) - moment_bytes("adamw_8bit", sizes))
    assert spared == pytest.approx(counted, abs=4096)  # counts of steps, and the tables of the numbers


def test_what_is_paged_is_not_counted_where_a_gpu_is_planned_for():
    base = base_of()
    candidate = CandidateSpace.build([METHODS["lora"]], base.spec, {"lora": {"r": 4096}}, ())["lora"].default()
    few, paged = (
        CostEstimator(base, TASK, Device("cuda", None, kind), rows()).predict(candidate, Execution(1)).optimizer
        for kind in ("adamw_8bit", "paged_adamw_8bit")
    )
    sizes = [parameter.numel() for parameter in trainable(attach(base, METHODS["lora"], candidate.params)).values()]
    large = [size for size in sizes if size >= LEAST_PAGED]
    assert few - paged >= 2 * sum(large) > few / 2
