"""Folds in one pass are each what they are alone, for every method; what cannot be packed is found out."""

import copy
import json
import platform
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from autopeft import PeftMethod
from autopeft.budget.cost_estimator import CostEstimator
from autopeft.budget.memory.peak import measure
from autopeft.data.split import split
from autopeft.execution.packing_choice import ALONE, MODULES, PackingChoice
from autopeft.execution.problem import Problem
from autopeft.methods.candidate import CandidateSpace
from autopeft.methods.registry import discover
from autopeft.models import quantization
from autopeft.models.attach import attach, trainable
from autopeft.models.device import Device
from autopeft.models.modes import train_mode
from autopeft.study.file import StudySpec
from autopeft.testing.tiny import blank_rows
from autopeft.training import packing
from autopeft.training.batch import Batch
from autopeft.training.batch_plan import Execution
from autopeft.training.checkpoint import Checkpoint
from autopeft.training.cross_validation import cross_validate
from autopeft.training.learner import Learner
from autopeft.training.packing import pack
from autopeft.training.packing_check import packable
from autopeft.training.setup import Setup
from autopeft.training.step import clip_gradients
from tests.conftest import autopeft_here
from tests.models.test_base import METHODS, base_of
from tests.tiny_models import FAMILIES
from tests.training.test_learner import CPU, HYPER, TASK, rows

DATA = rows()
FOLDS = split(len(DATA), DATA.truths, None, 3, seed=0)
OPTIONS = {"task": TASK, "metric": "accuracy", "device": CPU, "seed": 5}
HARD = {
    "adapter": {"placement": "parallel"},
    "dora": {"lora_dropout": 0.2},
    "lora": {"lora_dropout": 0.2},
    "vera": {"r": 16, "vera_dropout": 0.2},
}
"""Params other than the defaults, which are harder to pack."""

PACKED = [name for name, method in METHODS.items() if type(method).callback is PeftMethod.callback]

SITES = {"dora"}
"""Methods whose modules read each other's tensors."""


def add_on(name, family="bert", params=None):
    base = base_of(family)
    space = METHODS[name].search_space(base.spec)
    return attach(base, METHODS[name], {**space.defaults(), **HARD.get(name, {}), **(params or {})})


TOGETHER = Batch.of(DATA, [one.train[5 * index : 6 * index + 3] for index, one in enumerate(FOLDS)], "cpu")
"""Some rows of each fold, unequally many."""


def gradients(model, batch, device=CPU):
    """Of what is trained, without dropout."""
    model.zero_grad()
    with device.kernels():
        with device.precision():
            outputs = model.eval()(**TASK.model_inputs(batch.tensors))
        losses = [TASK.loss(*part) for part in batch.per_fold(outputs)]
    torch.stack(losses).sum().backward()
    return {name: parameter.grad for name, parameter in trainable(model).items()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", PACKED)
def test_every_methods_gradients_are_those_of_each_fold_alone(name, family):
    if not METHODS[name].supports(base_of(family).spec):
        pytest.skip("not supported")
    if (name, family) == ("bitfit", "deberta-v2"):  # its biases also turn positions, which all rows share
        assert packable(lambda: add_on(name, family), gradients, TOGETHER, torch.float32) is None
        return
    packed = pack(add_on(name, family), 3, sites=name in SITES)
    generator = torch.Generator().manual_seed(1)
    for stack in trainable(packed).values():
        stack.data += 0.02 * torch.randn(stack.shape, generator=generator)
    together = gradients(packed, TOGETHER)
    for fold in range(3):
        model = add_on(name, family)
        for key, parameter in trainable(model).items():
            parameter.data = trainable(packed)[key].data[fold].clone()
        alone = gradients(model, TOGETHER.of_fold(fold))
        assert alone.keys() == together.keys()
        assert sum(float(gradient.abs().sum()) for gradient in alone.values()) > 0
        for key, gradient in alone.items():
            assert torch.allclose(together[key][fold], gradient, atol=1e-5), key


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


FASTER = {"loraplus_lr_ratio": 16.0, "init_lora_weights": "pissa"}


@pytest.mark.parametrize(("name", "params"), [*((name, {}) for name in PACKED), ("lora", FASTER), ("dora", FASTER)])
def test_learning_curves_are_those_of_folds_that_take_turns(name, params):
    curves = []
    for execution in (Execution(8), Execution(8, folds=3)):
        model = without_dropout(add_on(name, params=params))
        if execution.folds > 1:
            pack(model, 3, sites=name in SITES)
        found = list(cross_validate(model, Setup(rows=DATA, folds=FOLDS, **OPTIONS), HYPER, execution=execution))
        curves.append(([rung.scores for rung in found], [rung.loss for rung in found]))
    assert curves[0][0] == curves[1][0]
    assert curves[0][1] == pytest.approx(curves[1][1], abs=1e-5)
    assert np.ptp(curves[0][1]) > 1e-4, "training changes something"


@pytest.mark.parametrize("name", PACKED)
def test_every_fold_draws_its_own_dropout_from_the_seed(name):
    model = pack(add_on(name), 2, sites=name in SITES)
    for stack in trainable(model).values():
        stack.data += 0.5
    train_mode(model)
    batch = Batch.of(DATA, [np.arange(4)] * 2, "cpu")

    def outputs():
        torch.manual_seed(3)
        with CPU.kernels():
            return model(**TASK.model_inputs(batch.tensors)).logits.detach()

    assert torch.equal(outputs(), outputs())
    assert not torch.allclose(outputs()[:4], outputs()[4:])


def test_each_folds_gradients_are_clipped_by_its_own_norm():
    parameters = [nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.zeros(2))]
    parameters[0].grad, parameters[1].grad = torch.tensor([[0.1] * 3, [30.0] * 3]), torch.tensor([0.1, 40.0])
    clip_gradients(parameters, 2)
    assert parameters[0].grad[0].tolist() == pytest.approx([0.1] * 3)
    norms = torch.stack([parameters[0].grad.norm(dim=1), parameters[1].grad]).norm(dim=0)
    assert norms[1] == pytest.approx(1.0, abs=1e-4)


class Sharing(nn.Module):
    """Reads a tensor that another module owns."""

    def __init__(self, base):
        super().__init__()
        self.base, self.scale, self.other = base, nn.Parameter(torch.ones(base.out_features)), nn.Linear(4, 4)

    def forward(self, x):
        return self.base(x) * self.scale + self.other.weight.mean() * self.other.bias.mean()


class Mixing(Sharing):
    """Lets the rows of a batch see each other."""

    def forward(self, x):
        return self.base(x) * self.scale * x.abs().sum() + self.other.weight.mean()


class Leaking(Sharing):
    """Lets them see so little of each other that rounding to bfloat16 hides it."""

    def forward(self, x):
        return self.base(x + 0.003 * x.mean(0, keepdim=True)) * self.scale + self.other.weight.mean()


@pytest.mark.parametrize("autocast", [None, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(("kind", "expected"), [(Sharing, False), (Mixing, None), (Leaking, None)])
def test_what_can_be_packed_is_found_out(kind, expected, autocast):
    base = base_of()
    linear = base.spec.linears[3]

    class Method(type(METHODS["lora"])):
        def apply(self, model, params, spec):
            model.set_submodule(linear.name, kind(model.get_submodule(linear.name)))
            return model

    def in_precision(model, batch):
        return gradients(model, batch, Device("cpu", autocast))

    found = packable(lambda: attach(base, Method(), {}), in_precision, TOGETHER, autocast or torch.float32)
    assert found is expected


@pytest.mark.parametrize("trained", [("weight",), ("bias",), ("weight", "bias")], ids="+".join)
@pytest.mark.parametrize(
    "make",
    [lambda: nn.Linear(6, 4), lambda: nn.LayerNorm(6), lambda: nn.LayerNorm((5, 6))],
    ids=["linear", "norm", "wide norm"],
)
@pytest.mark.parametrize("shape", [(6, 5, 6), (6, 2, 5, 6)], ids=["tokens", "heads"])
def test_common_modules_do_without_a_mapping_what_each_fold_does_alone(make, trained, shape):
    torch.manual_seed(0)
    model = nn.Sequential(make()).requires_grad_(False)
    for name in trained:
        getattr(model[0], name).requires_grad_(True)
    packed, inputs = pack(copy.deepcopy(model), 3), torch.randn(shape)
    for stack in trainable(packed).values():
        stack.data += torch.randn_like(stack)
    together = packed(inputs)
    for fold, rows_ in enumerate(inputs.chunk(3)):
        for name, parameter in trainable(model).items():
            parameter.data = trainable(packed)[name].data[fold].clone()
        assert torch.allclose(together[2 * fold : 2 * fold + 2], model(rows_), atol=1e-6)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_modules_that_bring_a_packed_forward_pass_are_not_mapped(family, monkeypatch):
    monkeypatch.delattr(packing, "vmap")
    model = pack(add_on("ia3", family), 3)
    together = gradients(model, TOGETHER)
    assert all(float(gradient.flatten(1).norm(dim=1).min()) > 0 for gradient in together.values())


def test_first_values_that_are_taken_off_again_are_packed_without_mapping(monkeypatch):
    params = {"init_lora_weights": "pissa", "target_modules": "all_linear"}
    monkeypatch.delattr(packing, "vmap")
    assert packable(lambda: add_on("lora", "gpt2", params), gradients, TOGETHER, torch.float32) is False


def test_modules_that_read_each_other_are_mapped_by_place():
    params = {"init_lora_weights": "olora"}
    assert packable(lambda: add_on("dora", params=params), gradients, TOGETHER, torch.float32) is True
    assert packable(lambda: add_on("dora"), gradients, TOGETHER, torch.float32) is True


ADD_ON = {"merged": {"trained": "add_on"}}
"""Params of methods whose defaults train only the head: then the estimate is some percent too high."""


@pytest.mark.parametrize(
    ("name", "params"), [*((name, ADD_ON.get(name, {})) for name in PACKED), ("lora", {"init_lora_weights": "pissa"})]
)
def test_memory_of_packed_folds_is_predicted_and_a_budget_they_break_is_kept_by_turns(name, params):
    base = base_of()
    candidate = CandidateSpace.build([METHODS[name]], base.spec, {name: params}, ())[name].default()
    lengths = np.full(64, 24)

    def cost_estimator(limit=None):
        return CostEstimator(base, TASK, CPU, blank_rows(lengths), limit, packed={name: name in SITES}, folds=3)

    usage = cost_estimator()(candidate)
    assert usage.execution == Execution(16, folds=3)
    model = pack(attach(base, candidate.method, candidate.params), 3, sites=name in SITES)
    train_mode(model)
    learner = Learner(model, candidate.hyper, 64, usage.execution)
    learner.take_turn()
    shapes = cost_estimator().batch_shapes(16, 3)
    batch = Batch({key: torch.ones(shape, dtype=dtype) for key, (shape, dtype) in shapes.items()}, (16,) * 3)
    real = measure(lambda: learner.step([batch], TASK, CPU), model, others=batch.tensors.values())
    assert usage.memory.peak == pytest.approx(real, rel=0.03, abs=2**15)
    assert cost_estimator(usage.memory.peak)(candidate).execution.folds == 3
    smaller = cost_estimator(usage.memory.peak - 1)(candidate)
    assert smaller.execution == Execution(16)
    assert smaller.memory.peak < usage.memory.peak


@pytest.mark.parametrize("params", [{}, FASTER], ids=["usual", "faster"])
def test_packed_folds_go_on_after_an_interruption_and_as_turns_where_they_stand_apart(tmp_path, params):
    execution = Execution(8, folds=3)

    def rungs(checkpoint=None, count=None, how=execution):
        model = add_on("lora", params=params)
        if how.folds > 1:
            pack(model, 3)
        steps = cross_validate(
            model, Setup(rows=DATA, folds=FOLDS, **OPTIONS), HYPER, execution=how, checkpoint=checkpoint
        )
        return [(rung.scores, rung.loss) for rung, _ in zip(steps, range(count or 9), strict=False)]

    whole = rungs()
    checkpoint = Checkpoint(tmp_path / "trial")
    assert rungs(checkpoint, 2) == whole[:2]
    assert checkpoint.even(3)
    assert rungs(checkpoint) == whole
    checkpoint.remove()
    rungs(checkpoint, 2)
    (tmp_path / "trial" / "1.safetensors").unlink()
    assert not checkpoint.even(3)
    assert len(rungs(checkpoint, how=Execution(8))) == len(whole)


def problem(study, packing):
    text = study.read_text().replace('packing = "off"', f'packing = "{packing}"')
    study.write_text(text)
    return Problem.from_spec(StudySpec.from_file(study), discover())


@pytest.mark.parametrize(("packing", "way"), [("on", MODULES), ("off", ALONE)])
def test_a_study_file_can_settle_it(tiny_study, packing, way):
    asked = problem(tiny_study, packing)
    packer = PackingChoice(asked, print)
    candidate = asked.space["lora"].default()
    assert packer.decide(candidate)
    assert not packer.decide(candidate)
    assert packer.settled == {"lora": way}
    assert asked.cost_estimator(candidate).execution.folds == (2 if packing == "on" else 1)


def test_in_8_bits_other_rows_change_a_rows_product_so_no_folds_are_packed(tiny_study):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    if torch.cuda.is_available() or platform.machine().lower() not in quantization.X86:
        pytest.skip("8 bits on a CPU are for x86 processors, and only where there is no GPU")
    torch.manual_seed(0)
    linear = bitsandbytes.nn.Linear8bitLt(8, 4, has_fp16_weights=False, threshold=6.0).to("cpu").eval()
    rows = torch.randn(2, 8)
    other = rows.clone()
    other[1, 3] = 7.0  # beyond the threshold: the column is then computed in the input's precision
    assert not torch.equal(linear(rows)[0], linear(other)[0])
    tiny_study.write_text(tiny_study.read_text().replace('"model"\n', '"model"\nquantization = "8bit"\n'))
    asked, told = problem(tiny_study, "on"), []
    packer = PackingChoice(asked, told.append)
    assert packer.decide(asked.space["lora"].default())
    assert packer.settled == {"lora": ALONE}
    assert "in 8 bits all rows of a batch decide" in told[0]


def test_a_candidate_that_cannot_run_as_its_method_was_settled_trains_fold_by_fold(tiny_study, monkeypatch):
    asked = problem(tiny_study, "on")
    candidate = asked.space["lora"].default()
    assert PackingChoice(asked, print).decide(candidate)
    predict = asked.cost_estimator.predict

    def failing(candidate, way):
        if way.folds > 1 and candidate.params["target_modules"] == "all_linear":
            raise RuntimeError("shapes do not match")
        return predict(candidate, way)

    monkeypatch.setattr(asked.cost_estimator, "predict", failing)
    other = replace(candidate, params={**candidate.params, "target_modules": "all_linear"})
    assert asked.cost_estimator(candidate).execution.folds == 2
    assert asked.cost_estimator(other).execution.folds == 1


def test_by_itself_it_is_settled_by_measuring_and_kept(tiny_study):
    asked = problem(tiny_study, "auto")
    packer = PackingChoice(asked, print)
    candidate = asked.space["adapter"].default()
    assert packer.decide(candidate)
    again = PackingChoice(asked, print)
    again.adopt(packer.settled)
    assert not again.decide(candidate)
    assert again.settled == packer.settled


def test_a_method_that_cannot_be_packed_is_told_once(tiny_study):
    asked, told = problem(tiny_study, "on"), []
    base = asked.space["lora"].default()

    class Mixer(type(METHODS["lora"])):
        name = "mixer"

        def apply(self, model, params, spec):
            model.set_submodule(spec.linears[3].name, Mixing(model.get_submodule(spec.linears[3].name)))
            return model

    packer = PackingChoice(asked, told.append)
    for _ in range(2):
        packer.decide(replace(base, method=Mixer(), params={}))
    assert packer.settled == {"mixer": ALONE}
    assert len(told) == 1
    assert "mixer" in told[0]


class Noisy(nn.Module):
    """Adds noise in training in a way that cannot be packed: into a tensor that all folds share."""

    def __init__(self, base):
        super().__init__()
        self.base, self.scale = base, nn.Parameter(torch.ones(()))

    def forward(self, x):
        noise = torch.zeros(x.shape[-1])
        return self.base(x * self.scale + (noise.bernoulli_(0.5) if self.training else noise))


@pytest.mark.parametrize("packing", ["on", "auto"])
def test_a_method_whose_training_cannot_be_packed_trains_fold_by_fold(tiny_study, packing, monkeypatch):
    monkeypatch.setattr("autopeft.execution.packing_choice.WORTH_TRYING", 0.0)
    asked, told = problem(tiny_study, packing), []

    class Noise(type(METHODS["lora"])):
        name = "noise"

        def apply(self, model, params, spec):
            model.set_submodule(spec.linears[3].name, Noisy(model.get_submodule(spec.linears[3].name)))
            return model

    candidate = replace(asked.space["lora"].default(), method=Noise(), params={})
    packer = PackingChoice(asked, told.append)
    assert packer.decide(candidate)
    assert packer.settled == {"noise": ALONE}
    assert asked.packed == {}
    assert "noise" in told[0]
    assert "a step fails" in told[0]
    assert asked.cost_estimator(candidate).execution.folds == 1


def test_a_study_with_packed_folds(tiny_study):
    tiny_study.write_text(tiny_study.read_text().replace('packing = "off"', 'packing = "on"'))
    results = []
    for _ in range(2):
        done = autopeft_here("run", tiny_study, "--json", cwd=tiny_study.parent)
        assert done.returncode == 0, done.stderr
        results.append(json.loads(done.stdout))
    assert results[0]["records"] == results[1]["records"]
    trained = [record for record in results[0]["records"] if record["state"] in ("COMPLETE", "PRUNED")]
    assert len(trained) == 4
    for record in trained:
        assert "2 folds at a time" in record["execution"]
        assert record["measured_memory"] <= record["predicted_memory"] * 1.03
