import importlib.util

import pytest
import torch
from transformers import AutoTokenizer

from autopeft import tasks
from autopeft.admission import Appraiser
from autopeft.artifact import Card, save
from autopeft.budget import Budget, Usage, predict_seconds
from autopeft.candidate import CandidateSpace
from autopeft.execution import Execution
from autopeft.memory import MemoryEstimate
from autopeft.model import attach
from autopeft.training import Device
from autopeft.weights_file import file_size
from tests.test_model import METHODS
from tests.test_registry import FIXTURES
from tests.tiny_models import tiny_base


def usage(params=100, size=400, peak=2**20):
    return Usage(params, params, size, lambda: (Execution(16), MemoryEstimate(peak, 0, 0, 0)))


def bitfit():
    path = next(FIXTURES.rglob("autopeft_bitfit.py"))
    module = importlib.util.module_from_spec(spec := importlib.util.spec_from_file_location(path.stem, path))
    spec.loader.exec_module(module)
    return module.BitFit()


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


@pytest.mark.parametrize("method", [*METHODS.values(), bitfit()], ids=lambda method: method.name)
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_the_saved_file_has_the_size_that_was_predicted(family, method, tmp_path, tiny_model, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    base, tokenizer = tiny_base(family), AutoTokenizer.from_pretrained(tiny_model)
    task = tasks.get("text-classification")
    appraise = Appraiser(base, task, Device("cpu", None), torch.tensor([8]).numpy(), ("input_ids",))
    part = CandidateSpace.build([method], base.spec, {}, ())[method.name]
    for number, candidate in enumerate([part.default(), *part.sample(4, seed=1)]):
        predicted = appraise(candidate)
        folder = tmp_path / str(number)
        card = Card("m", task.kind, ("a", "b"), 8, method.name, candidate.params, "", 0)
        save(attach(base, method, candidate.params), tokenizer, card, folder)
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
