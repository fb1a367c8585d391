"""Prefix-tuning: what a prefix costs, what it saves, and that it reaches every layer."""

import pytest
import torch
from autopeft_prefix_tuning import PrefixTuning

from autopeft.model import attach, trainable
from tests.tiny_models import batch, tiny_base

KEY_WIDTH = {"bert": 32, "gpt2": 32, "opt": 32, "llama": 16, "qwen2": 16}  # grouped in the last two: 2 heads of 8


def prefix(family, meta=False, **params):
    base = tiny_base(family)
    return attach(base, PrefixTuning(), {"prefix_projection": False, **params}, meta=meta)


@pytest.mark.parametrize("family", KEY_WIDTH)
def test_a_token_costs_a_key_and_a_value_in_every_layer(family):
    model = prefix(family, meta=True, num_virtual_tokens=5)
    sizes = [p.numel() for name, p in trainable(model).items() if "prompt_encoder" in name]
    assert sizes == [5 * 4 * 2 * KEY_WIDTH[family]]


def test_a_projected_prefix_trains_a_network_of_the_given_width():
    model = prefix("bert", meta=True, num_virtual_tokens=5, prefix_projection=True, encoder_hidden_size=7)
    count = sum(p.numel() for name, p in trainable(model).items() if "prompt_encoder" in name)
    assert count == 5 * 32 + (32 * 7 + 7) + (7 + 1) * 4 * 2 * 32


def test_the_width_exists_only_with_the_projection():
    space = PrefixTuning().search_space()
    widths = {params["prefix_projection"]: "encoder_hidden_size" in params for params in space.corners()}
    assert widths == {False: False, True: True}


@pytest.mark.parametrize("family", KEY_WIDTH)
def test_every_layers_keys_and_values_are_attended_to(family):
    model = prefix(family, num_virtual_tokens=3)
    model(**batch()).loss.backward()
    gradient = next(p.grad for name, p in model.named_parameters() if "prompt_encoder" in name)
    by_layer = gradient.view(3, 4, 2, -1).norm(dim=(0, 3))
    assert (by_layer > 0).all()


def test_padding_stays_unseen_behind_a_prefix():
    model, rows = prefix("bert", num_virtual_tokens=3).eval(), batch()
    noise = torch.where(rows["attention_mask"].bool(), rows["input_ids"], 7)
    with torch.no_grad():
        torch.testing.assert_close(model(**rows).logits, model(**{**rows, "input_ids": noise}).logits)
