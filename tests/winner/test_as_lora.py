"""Winners of other methods as a LoRA: exact where their rank is small, and else the loss is measured."""

import copy

import pytest
import torch

from autopeft.methods.registry import discover
from autopeft.models.attach import attach, merged
from autopeft.testing.tiny import batch, tiny_base
from autopeft.winner import as_lora, serving

PARAMS = {
    "adalora": {"target_r": 2, "target_modules": "all_linear", "lora_dropout": 0.0},
    "vera": {"r": 16, "vera_dropout": 0.0},
    "dora": {"r": 2, "target_modules": "query_value", "lora_dropout": 0.0},
    "ia3": {},
}


def trained(method, family):
    torch.manual_seed(0)
    base = tiny_base(family)
    own = discover().methods[method]
    params = {**own.search_space(base.spec).defaults(), **PARAMS.get(method, {})}
    model = attach(base, own, params).eval()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data += torch.randn_like(parameter) * (0.001 if "magnitude" in name else 0.1)
    return base, own, model


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
@pytest.mark.parametrize("method", ["adalora", "vera", "dora", "ia3"])
def test_peft_and_servers_read_what_the_winner_adds(tmp_path, method, family):
    from peft import PeftModel

    base, own, model = trained(method, family)
    inputs = {name: tensor for name, tensor in batch().items() if name != "labels"}
    with torch.no_grad():
        expected = model(**inputs).logits
        before = copy.deepcopy(base.module)
        lost = as_lora.write(merged(model, own), before, base.spec, tmp_path, "base")
        assert lost <= as_lora.EXACT
        serving.rewrite(tmp_path)
        again = PeftModel.from_pretrained(copy.deepcopy(base.module), str(tmp_path)).eval()
        torch.testing.assert_close(again(**inputs).logits, expected, rtol=1e-3, atol=1e-4)


def test_biases_are_no_lora(tmp_path):
    base, own, model = trained("bitfit", "bert")
    with pytest.raises(as_lora.NoLoraError, match=r"changes only linear layers, but this winner changes .*bias"):
        as_lora.write(merged(model, own), base.module, base.spec, tmp_path, "base")


def test_the_loss_of_a_pair_is_what_it_leaves_of_the_change():
    torch.manual_seed(0)
    change = torch.randn(300, 200) * 0.001 + torch.randn(300, 3) @ torch.randn(3, 200)
    low, high, lost = as_lora.pair(change, "map.weight")
    assert lost == pytest.approx(float((change - high @ low).norm() / change.norm()), rel=1e-2)
    assert len(low) == 3
    assert as_lora.EXACT < lost <= as_lora.NEAR


def test_a_change_of_every_rank_is_refused():
    with pytest.raises(as_lora.NoLoraError, match=r"ranks up to 512.*at this rank \d.*would be lost"):
        as_lora.pair(torch.eye(700), "map.weight")
