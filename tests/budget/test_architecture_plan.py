"""What a card must have to train a model of some architecture, without weights."""

import json

import pytest
import torch

from autopeft.budget.architecture_plan import Question, answers
from autopeft.common.exceptions import ModelError, SpecError
from autopeft.methods.registry import discover
from autopeft.models import known
from autopeft.tasks.registry import find_task
from tests.conftest import autopeft_here, few

PUBLISHED = {
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "llama-3.1-8b": 8_030_261_248,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-7b": 7_615_616_512,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "mistral-7b-v0.3": 7_248_023_552,
    "smollm2-135m": 134_515_008,
    "smollm2-360m": 361_821_120,
    "smollm2-1.7b": 1_711_376_384,
}
LORA_PER_RANK = {"llama-3.2-1b": 704_512, "qwen3-8b": 2_727_936, "smollm2-135m": 305_280}
"""Parameters of LoRA on all linear maps for each unit of its rank."""


def task():
    return find_task("causal-lm").configured({}).taking(["text"])


@pytest.mark.parametrize("name", known.names())
def test_what_ships_has_the_parameters_that_were_published(name):
    model = known.skeleton(known.config_of(name), "AutoModelForCausalLM")
    assert sum(parameter.numel() for parameter in model.parameters()) == PUBLISHED[name]
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


@pytest.mark.parametrize("name", few(LORA_PER_RANK, "smollm2-135m"))
def test_trained_parameters_are_counted(name):
    settings = [{"r": 4, "target_modules": "all_linear"}]
    (found,) = answers(Question(name, tokens=64), discover().methods["lora"], task(), settings, [1])
    assert found.trained == 4 * LORA_PER_RANK[name]


@pytest.mark.exhaustive
def test_a_smaller_card_takes_smaller_parts_or_none():
    lora, settings = discover().methods["lora"], [{"r": 8}]
    few = {card: next(iter(answers(Question("smollm2-135m", 512, 128, card=card), lora, task(), settings, [8])))
           for card in (2**30, 3 * 2**30, 24 * 2**30)}  # fmt: skip
    small, middle, large = few.values()
    assert not small.fits
    assert middle.fits
    assert large.fits
    assert middle.execution != large.execution


@pytest.mark.exhaustive
def test_four_bits_take_a_quarter_of_the_layers():
    lora, settings = discover().methods["lora"], [{"r": 8}]
    whole, quarter = (
        next(answers(Question("qwen3-0.6b", 64, 16, quantization=kind), lora, task(), settings, [1]))
        for kind in ("none", "4bit")
    )
    layers = 2 * 440_401_920  # bytes of the layers' linear maps in bfloat16
    saved = whole.memory["weights"] - quarter.memory["weights"]
    assert saved == pytest.approx(layers * (1 - 0.516 / 2), rel=0.02)


def test_moments_of_8_bits_take_a_quarter():
    lora, settings = discover().methods["lora"], [{"r": 64}]
    plain, eight = (
        next(answers(Question("smollm2-135m", 64, 16, optimizer=kind), lora, task(), settings, [1]))
        for kind in ("adamw", "adamw_8bit")
    )
    assert eight.memory["optimizer"] == pytest.approx(plain.memory["optimizer"] / 4, rel=0.05)


@pytest.mark.parametrize(
    ("question", "settings", "error", "told"),
    [
        (Question("qwen4-8b"), [{}], ModelError, "one of the shipped models"),
        (Question("smollm2-135m", tokens=10_000), [{}], SpecError, "at most 8,192, .* but is 10,000"),
        (Question("smollm2-135m", tokens=64), [{"rank": 3}], SpecError, "but not rank"),
    ],
)
def test_what_cannot_be_answered_is_told(question, settings, error, told):
    with pytest.raises(error, match=told):
        list(answers(question, discover().methods["lora"], task(), settings, [1]))


def test_a_folder_with_a_configuration_will_do(tmp_path):
    known.config_of("smollm2-135m").save_pretrained(tmp_path)
    (found,) = answers(Question(str(tmp_path), 64), discover().methods["adapter"], task(), [{}], [2])
    assert found.fits
    assert torch.cuda.is_available() or found.memory["context"] > 0


def test_the_command_answers(tmp_path):
    done = autopeft_here("plan", "--model-config", "smollm2-135m", "--tokens", "128", "--device", "8 GiB",
                         "--set", "r=4,16", "--batch", "1", "--json", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [(entry["params"]["r"], entry["batch_size"]) for entry in found] == [(4, 1), (16, 1)]
    assert all(entry["fits"] for entry in found)
    for wrong in (("--device", "much"), ("--optimizer", "sgd")):
        done = autopeft_here("plan", "--model-config", "smollm2-135m", *wrong, cwd=tmp_path)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert wrong[0] in done.stderr
