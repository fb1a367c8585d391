"""(IA)³: what is scaled, by how many numbers, and that it is the paper's equation."""

import pytest
import torch
from autopeft_ia3 import Ia3
from autopeft_ia3.method import GROUPS
from peft import PeftModel
from transformers import AutoConfig, AutoModelForSequenceClassification

from autopeft.models.architecture import describe
from autopeft.models.attach import attach, trainable
from autopeft.models.base import BaseModel
from tests.tiny_models import VOCABULARY, batch, tiny_base


def vectors(model):
    return {name: parameter for name, parameter in trainable(model).items() if "ia3_l" in name}


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "deberta-v2", "modernbert"])
@pytest.mark.parametrize("group", GROUPS)
def test_a_target_costs_its_output_or_the_width_of_the_feed_forward_part(family, group):
    base = tiny_base(family)
    model = attach(base, Ia3(), {"target_modules": group}, meta=True)
    wanted = [linear for linear in base.spec.linears if linear.role in GROUPS[group]]
    sizes = [one.in_features if one.role == "feed_forward_down" else one.out_features for one in wanted]
    assert sorted(p.numel() for p in vectors(model).values()) == sorted(sizes)
    assert sizes


def test_keys_and_values_are_scaled_behind_their_map_and_the_feed_forward_part_inside():
    base = tiny_base("bert")
    model = attach(base, Ia3(), {"target_modules": "key_value_feed_forward"})
    for linear in base.spec.linears:
        placed, x = base.copy(), torch.randn(2, linear.in_features)
        placed, plain = model.get_submodule(f"base_model.model.{linear.name}"), placed.get_submodule(linear.name)
        if linear.role in ("key", "value"):
            scale = torch.rand(linear.out_features)
            expected = plain(x) * scale
        elif linear.role == "feed_forward_down":
            scale = torch.rand(linear.in_features)
            expected = plain(x * scale)
        else:
            assert not hasattr(placed, "ia3_l")
            continue
        vector = placed.ia3_l["default"]
        assert (vector == 1).all()
        vector.data = scale.view_as(vector)
        torch.testing.assert_close(placed(x), expected)


def test_a_query_scaled_with_its_key_is_a_key_scaled_by_the_product():
    base, (query, key) = tiny_base("gpt2"), torch.rand(2, 32) + 0.5
    results = []
    for scales in (torch.cat([query, key, torch.ones(32)]), torch.cat([torch.ones(32), query * key, torch.ones(32)])):
        model = attach(base, Ia3(), {"target_modules": "key_value"})
        for vector in vectors(model).values():
            vector.data = scales.view_as(vector)
        with torch.no_grad():
            results.append(model.eval()(**batch()).logits)
    torch.testing.assert_close(*results)


def test_nothing_pulls_the_vectors_to_zero():
    decay = Ia3().training_space()["weight_decay"]
    assert decay.extremes() == (0.0,)


def test_a_model_with_many_targets_is_loaded_as_it_was_saved(tmp_path):
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 12}
    config = AutoConfig.for_model("bert", vocab_size=VOCABULARY, **sizes)
    module = AutoModelForSequenceClassification.from_config(config).requires_grad_(False).eval()
    base = BaseModel(module, None, describe(module, "text-classification", "SEQ_CLS"))
    model, rows = attach(base, Ia3(), Ia3().search_space(base.spec).defaults()).eval(), batch(num_labels=2)
    assert len(vectors(model)) == 36
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter += 0.1 * torch.randn_like(parameter)
        model.save_pretrained(tmp_path)
        loaded = PeftModel.from_pretrained(base.copy(), tmp_path).eval()
        torch.testing.assert_close(loaded(**rows).logits, model(**rows).logits)
