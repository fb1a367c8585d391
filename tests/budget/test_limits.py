import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from autopeft.budget.cost_estimator import CostEstimator
from autopeft.budget.limits import Budget, predict_seconds
from autopeft.budget.memory.peak import MemoryEstimate
from autopeft.budget.usage import Usage, Weights
from autopeft.common.exceptions import PluginError
from autopeft.common.plugins import Origin
from autopeft.execution.screening import refusal
from autopeft.methods.candidate import CandidateSpace
from autopeft.models.attach import attach
from autopeft.models.device import Device
from autopeft.models.row_tokenizer import RowTokenizer
from autopeft.models.weights_file import file_size
from autopeft.tasks.registry import find_task
from autopeft.testing.tiny import blank_rows
from autopeft.training.batch_plan import Execution
from autopeft.winner.winner import Card, save
from tests.conftest import few
from tests.methods.test_registry import FIXTURES
from tests.models.test_base import METHODS
from tests.tiny_models import tiny_base

TASK = find_task("text-classification")


def usage(params=100, size=400, peak=2**20, least=0):
    return Usage(params, lambda: Weights(params, size, least), lambda: (Execution(16), MemoryEstimate(peak, 0, 0, 0)))


def oft():
    path = next(FIXTURES.rglob("autopeft_oft.py"))
    module = importlib.util.module_from_spec(spec := importlib.util.spec_from_file_location(path.stem, path))
    spec.loader.exec_module(module)
    return module.Oft()


def test_a_violation_is_a_share_of_its_limit():
    budget = Budget(max_trainable_params=200, max_gpu_memory=2**19, max_saved_size=400)
    assert budget.violations(usage()) == {
        "max_trainable_params": -0.5,
        "max_saved_size": 0.0,
        "max_gpu_memory": 1.0,
    }
    assert not budget.admits(usage())
    assert budget.admits(usage(peak=2**19))
    assert Budget().violations(usage()) == {}
    assert Budget().admits(usage())


def test_memory_is_predicted_only_where_the_cheaper_limits_hold():
    budget = Budget(max_gpu_memory=2**19, max_saved_size=300)
    refused = usage()
    assert budget.violations(refused) == {"max_saved_size": pytest.approx(1 / 3)}
    assert not refused.memory_known
    assert budget.violations(refused, every=True)["max_gpu_memory"] == 1.0


def test_memory_is_not_predicted_where_the_least_of_it_is_too_much():
    budget, refused = Budget(max_gpu_memory=1000), usage(peak=5000, least=2000)
    assert budget.violations(refused) == {"max_gpu_memory": 1.0}
    assert "needs at least 2.0 KiB at its peak" in budget.reason(refused)
    assert not refused.memory_known
    assert budget.violations(refused, every=True) == {"max_gpu_memory": 4.0}
    assert "needs 4.9 KiB at its peak" in budget.reason(refused)


def test_what_a_method_tells_is_refused_without_a_model_and_checked_where_it_is_admitted(monkeypatch):
    base = tiny_base("bert")
    method = METHODS["lora"]
    candidate = CandidateSpace.build([method], base.spec, {}, ())["lora"].default()
    made = []
    monkeypatch.setattr("autopeft.budget.cost_estimator.attach", lambda *a, **k: made.append(a) or attach(*a, **k))

    def appraise(candidate=candidate):
        return CostEstimator(base, TASK, Device("cpu", None), blank_rows(np.full(8, 2)))(candidate)

    told = appraise()
    tight = Budget(max_trainable_params=told.trainable_params - 1, max_saved_size=1, max_gpu_memory=1)
    assert tight.violations(told).keys() == {"max_trainable_params"}
    assert "over max_trainable_params" in tight.reason(told)
    assert (made, told.weights_known) == ([], False)
    assert told.weights.saved_params == told.trainable_params
    assert len(made) == 1

    class Other(type(method)):
        def apply(self, model, params, spec):
            return super().apply(model, {**params, "r": 1}, spec)

    assert appraise(replace(candidate, method=Other())).trainable_params < told.trainable_params
    monkeypatch.setattr(type(method), "trained_params", lambda *_: None)
    assert appraise().trainable_params == told.trainable_params
    monkeypatch.setattr(type(method), "trained_params", lambda *_: np.int64(4096))
    assert type(appraise().trainable_params) is int
    monkeypatch.setattr(type(method), "trained_params", lambda *_: 4096.0)
    with pytest.raises(PluginError, match=r"a whole number or None, but returned 4096\.0"):
        appraise()
    monkeypatch.setattr(type(method), "trained_params", lambda *_: 1)
    with pytest.raises(PluginError, match=r"trained_params\(\) says 1, but apply\(\) leaves"):
        _ = appraise().weights
    origin = Origin("a", "1", "b")
    why = refusal(method, origin, base, TASK.kind, 60.0)
    assert "at fault" in why
    assert "trained_params() says 1" in why


@pytest.mark.parametrize("name", few(METHODS, "lora", "mixed"))
def test_no_way_to_run_a_batch_takes_less_than_the_least(name):
    base = tiny_base("bert")
    space = CandidateSpace.build([METHODS[name]], base.spec, {}, ())[name]
    appraise = CostEstimator(base, TASK, Device("cpu", None), blank_rows(np.full(8, 2)))
    for candidate in (space.default(), *space.sample(4, seed=0)):
        least = appraise(candidate).weights.least_memory
        found = appraise.predict(candidate, Execution(1))
        assert found.weights < least <= found.peak


def test_what_was_found_out_of_a_methods_memory_counts_once_however_often_it_is_told():
    base = tiny_base("bert")
    space = CandidateSpace.build([METHODS["lora"], METHODS["adapter"]], base.spec, {}, ())
    appraise = CostEstimator(base, TASK, Device("cpu", None), blank_rows(np.full(8, 8)))
    before = {name: appraise(part.default()).memory.peak for name, part in space.items()}
    for excess in (600, 1000, 1000, 400):
        appraise.learn("lora", excess)
    assert appraise.excess("lora") == 1000
    after = {name: appraise(part.default()).memory.peak for name, part in space.items()}
    assert after == {"lora": before["lora"] + 1000, "adapter": before["adapter"]}


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (Budget(max_trainable_params=99), ["trains 100 parameters", "max_trainable_params = 99"]),
        (Budget(max_saved_size=300), ["weighs 400 B when saved", "max_saved_size = 300 B"]),
        (Budget(max_gpu_memory=2**19), ["needs 1.0 MiB at its peak", "max_gpu_memory = 512.0 KiB"]),
        (Budget(max_saved_size=400, max_gpu_memory=2**20, max_trainable_params=100), []),
    ],
)
def test_the_reason_names_the_need_and_the_limit(budget, words):
    assert all(word in budget.reason(usage()) for word in words)
    assert bool(budget.reason(usage())) == bool(words)


def test_a_trial_is_timed_from_its_first_steps():
    predicted = predict_seconds(per_step=0.5, steps_to_come=200, spent=20)
    assert predicted == 120
    budget = Budget(max_trial_seconds=60)
    assert budget.seconds_violation(predicted) == 1.0
    assert budget.seconds_reason(predicted) == "would take 2 min, over max_trial_seconds = 1 min"
    assert budget.seconds_violation(30) == -0.5
    assert budget.seconds_reason(30) == ""
    assert Budget().seconds_violation(predicted) is None
    assert Budget().seconds_reason(predicted) == ""


@pytest.mark.parametrize("method", [*METHODS.values(), oft()], ids=lambda method: method.name)
@pytest.mark.parametrize("family", few(["bert", "gpt2"], "bert"))
def test_the_saved_file_has_the_size_that_was_predicted(family, method, tmp_path, tiny_model, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    if not method.supports(tiny_base(family).spec):
        pytest.skip("not supported")
    base, reader = tiny_base(family), RowTokenizer(AutoTokenizer.from_pretrained(tiny_model), 8)
    task = find_task("text-classification")
    appraise = CostEstimator(base, task, Device("cpu", None), blank_rows(torch.tensor([8]).numpy()))
    part = CandidateSpace.build([method], base.spec, {}, ())[method.name]
    for number, candidate in enumerate([part.default(), *part.sample(4, seed=1)]):
        predicted = appraise(candidate).weights
        folder = tmp_path / str(number)
        card = Card("m", task.kind, ("a", "b"), 8, method.name, candidate.params, "", 0)
        save(attach(base, method, candidate.params), method, reader, card, folder)
        (weights,) = folder.glob("*.safetensors")
        assert predicted.saved_bytes == pytest.approx(weights.stat().st_size, rel=0.01)
        assert predicted.saved_bytes > 4 * predicted.saved_params


def test_the_size_of_a_file_is_exact(tmp_path):
    from safetensors.torch import save_file

    tensors = {
        "b": torch.zeros(3, 5),
        "a.long.name": torch.zeros(7, dtype=torch.bfloat16),
        "c": torch.zeros((), dtype=torch.int64),
        "d": torch.zeros(0, 4, dtype=torch.bool),
    }
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    assert file_size({k: t.to("meta") for k, t in tensors.items()}) == (tmp_path / "x.safetensors").stat().st_size
