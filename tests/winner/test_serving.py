"""A LoRA for servers: one rank, the scale in B, and the same outputs whoever reads it."""

import json

import pytest
import torch
from safetensors.torch import load_file

from autopeft.methods.registry import discover
from autopeft.models.attach import attach
from autopeft.testing.tiny import batch, tiny_base
from autopeft.winner import serving

RANKED = {"r": 6, "lora_alpha": 20, "target_modules": "all_linear", "lora_dropout": 0.0}


def written(folder, family="llama", **changes):
    """An adapter with trained weights as peft writes it, and the model that it is of."""
    torch.manual_seed(0)
    base = tiny_base(family)
    model = attach(base, discover().methods["lora"], {**RANKED, "use_rslora": False, **changes}).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn_like(parameter) * 0.2
    model.save_pretrained(str(folder), safe_serialization=True)
    return model


def deltas(folder, scale):
    """What each map gains, by a server's own rule of the scale."""
    tensors = load_file(folder / serving.WEIGHTS)
    config = json.loads((folder / serving.CONFIG).read_text())
    return {
        name.removesuffix(".lora_A.weight"): scale(config, len(a)) * tensors[name.replace("lora_A", "lora_B")] @ a
        for name, a in tensors.items()
        if name.endswith("lora_A.weight")
    }


RULES = {
    "vllm": lambda config, rank: config["lora_alpha"] / (config["r"] ** 0.5 if config["use_rslora"] else config["r"]),
    "sglang": lambda config, rank: config["lora_alpha"] / config["r"],
    "llama.cpp": lambda config, rank: config["lora_alpha"] / rank,
}
"""How each scales B · A."""


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_every_server_adds_what_the_winner_adds(tmp_path, family, rslora):
    model = written(tmp_path, family, use_rslora=rslora)
    scale = 20 / 6**0.5 if rslora else 20 / 6
    wanted = deltas(tmp_path, lambda config, rank: scale)
    serving.rewrite(tmp_path)
    for rule in RULES.values():
        found = deltas(tmp_path, rule)
        assert found.keys() == wanted.keys()
        for name, delta in wanted.items():
            torch.testing.assert_close(found[name], delta, rtol=1e-5, atol=1e-6)
    config = json.loads((tmp_path / serving.CONFIG).read_text())
    assert config["r"] == config["lora_alpha"] == 8
    assert not config["use_rslora"]
    assert isinstance(config["target_modules"], list)
    assert all("." not in name for name in config["target_modules"])
    assert model is not None


def rewritten_is_the_same(model, folder, family, atol):
    """Rewrites the adapter in the folder, and has peft answer with it as the model does."""
    from peft import PeftModel

    inputs = {name: tensor for name, tensor in batch().items() if name != "labels"}
    with torch.no_grad():
        expected = model(**inputs).logits
        serving.rewrite(folder)
        again = PeftModel.from_pretrained(tiny_base(family).copy(), str(folder)).eval()
        torch.testing.assert_close(again(**inputs).logits, expected, rtol=1e-4, atol=atol)


def test_peft_loads_it_and_answers_the_same(tmp_path):
    rewritten_is_the_same(written(tmp_path, use_rslora=True), tmp_path, "llama", 1e-5)


def test_patterns_of_ranks_and_scales_are_worked_in(tmp_path):
    written(tmp_path)
    path = tmp_path / serving.CONFIG
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "alpha_pattern": {"q_proj": 3}}))
    names = [name for name in deltas(tmp_path, lambda config, rank: 1) if "q_proj" in name]
    plain = deltas(tmp_path, lambda config, rank: 1)
    serving.rewrite(tmp_path)
    found = deltas(tmp_path, RULES["sglang"])
    assert names
    for name, delta in plain.items():
        scale = 3 / 6 if "q_proj" in name else 20 / 6
        torch.testing.assert_close(found[name], scale * delta, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rslora", [False, True])
def test_first_values_that_were_taken_off_are_served_as_pairs_of_their_own(tmp_path, rslora):
    model = written(tmp_path, "gpt2", init_lora_weights="pissa", use_rslora=rslora)
    rewritten_is_the_same(model, tmp_path, "gpt2", 1e-4)
    assert json.loads((tmp_path / serving.CONFIG).read_text())["lora_alpha"] == 16  # of two times 6


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"peft_type": "IA3"}, "has the type IA3"),
        ({"task_type": "SEQ_2_SEQ_LM"}, "not serve models with an encoder and a decoder"),
        ({"use_dora": True}, "DoRA has a magnitude"),
        ({"bias": "all"}, "it trains biases"),
        ({"lora_bias": True}, "it trains biases"),
    ],
)
def test_what_servers_cannot_read_is_refused(tmp_path, change, told):
    written(tmp_path)
    path = tmp_path / serving.CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(serving.ServingError, match=told):
        serving.rewrite(tmp_path)


@pytest.mark.parametrize(
    ("r", "told"), [(6, "--max-lora-rank 8"), (65, "--max-lora-rank 128"), (513, "takes ranks up to 512")]
)
def test_vllm_is_told_the_smallest_rank_that_holds_the_adapter(tmp_path, r, told):
    written(tmp_path, r=r)
    serving.rewrite(tmp_path)
    assert told in serving.for_vllm(tmp_path)


def test_a_head_of_two_layers_is_refused(tmp_path):
    written(tmp_path, "roberta")
    with pytest.raises(serving.ServingError, match="other tensors than these pairs"):
        serving.rewrite(tmp_path)
