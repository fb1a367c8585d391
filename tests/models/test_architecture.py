from collections import Counter

import pytest
from transformers import (
    MobileBertConfig,
    MobileBertForSequenceClassification,
    XLMConfig,
    XLMForSequenceClassification,
)

from autopeft.models.architecture import describe, linear_shape
from tests.tiny_models import FAMILIES, tiny


def spec_of(model_type):
    return describe(tiny(model_type), "text-classification", "SEQ_CLS")


@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_layer_has_attention_and_feed_forward_roles(model_type):
    spec = spec_of(model_type)
    stored = 1 if model_type == "albert" else 4  # ALBERT runs one stored layer four times
    assert len(spec.layers) == stored
    assert spec.num_hidden_layers == 4
    for layer in range(stored):
        roles = Counter(linear.role for linear in spec.linears if linear.layer == layer)
        attentions = 2 if model_type == "t5" and layer >= 2 else 1  # its decoder attends to the encoder too
        assert roles["qkv"] == 1 or (roles["query"], roles["key"], roles["value"]) == (attentions,) * 3
        assert roles["attention_output"] == attentions
        assert roles["feed_forward_down"] == 1
        assert roles["feed_forward_up"] == (2 if model_type in ("llama", "qwen2") else 1)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_names_lead_to_the_modules_they_describe(model_type):
    model = tiny(model_type)
    spec = describe(model, "text-classification", "SEQ_CLS")
    for linear in spec.linears:
        assert linear_shape(model.get_submodule(linear.name)) == (linear.in_features, linear.out_features)
    head = sum(p.numel() for name in spec.head for p in model.get_submodule(name).parameters())
    assert spec.num_parameters + head == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("model_type", "head", "interface"),
    [
        ("bert", ("classifier",), True),
        ("distilbert", ("pre_classifier", "classifier"), True),
        ("deberta-v2", ("pooler", "classifier"), False),
        ("modernbert", ("head", "classifier"), True),
        ("gpt2", ("score",), True),
        ("llama", ("score",), True),
    ],
)
def test_head_and_attention_interface(model_type, head, interface):
    spec = spec_of(model_type)
    assert spec.head == head
    assert spec.has_attention_interface is interface
    assert spec.num_key_value_heads == (2 if model_type == "llama" else 4)


def test_a_part_of_the_base_that_the_checkpoint_lacks_counts_as_head():
    missing = ["bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight"]
    spec = describe(tiny("bert"), "text-classification", "SEQ_CLS", missing)
    assert spec.head == ("bert.pooler.dense", "classifier")


def test_a_checkpoint_with_a_head_of_its_own_gets_it_trained_again_and_a_pretrained_part_of_it_is_kept():
    assert describe(tiny("bert"), "text-classification", "SEQ_CLS", []).head == ("classifier",)
    missing = ["classifier.weight", "classifier.bias"]
    assert describe(tiny("modernbert"), "text-classification", "SEQ_CLS", missing).head == ("classifier",)


def test_a_linear_map_is_listed_once_and_not_where_it_belongs_to_the_head():
    model = tiny("bert")
    layers = model.bert.encoder.layer
    layers[1].attention.self.query = layers[0].attention.self.query
    missing = ["bert.encoder.layer.3.output.dense.bias", "classifier.weight"]
    names = [linear.name for linear in describe(model, "text-classification", "SEQ_CLS", missing).linears]
    whole = [linear.name for linear in spec_of("bert").linears]
    gone = {"bert.encoder.layer.1.attention.self.query", "bert.encoder.layer.3.output.dense"}
    assert names == [name for name in whole if name not in gone]


def test_names_go_before_shapes_where_layers_are_narrower_than_the_model():
    sizes = {"hidden_size": 64, "intermediate_size": 64, "true_hidden_size": 16, "intra_bottleneck_size": 16}
    config = MobileBertConfig(vocab_size=32, num_hidden_layers=2, num_attention_heads=2, embedding_size=16, **sizes)
    spec = describe(MobileBertForSequenceClassification(config), "text-classification", "SEQ_CLS")
    role = {linear.name.removeprefix(spec.layers[0] + "."): linear.role for linear in spec.linears if not linear.layer}
    assert role["intermediate.dense"] == role["ffn.0.intermediate.dense"] == "feed_forward_up"
    assert role["output.dense"] == role["ffn.0.output.dense"] == "feed_forward_down"


def test_an_attention_that_stands_in_a_list_of_its_own_is_one():
    config = XLMConfig(vocab_size=32, emb_dim=16, n_layers=2, n_heads=2, n_langs=1, max_position_embeddings=32)
    spec = describe(XLMForSequenceClassification(config), "text-classification", "SEQ_CLS")
    role = {linear.name: linear.role for linear in spec.linears}
    attention = [role[f"transformer.attentions.0.{name}"] for name in ("q_lin", "k_lin", "v_lin", "out_lin")]
    assert attention == ["query", "key", "value", "attention_output"]
    assert role["transformer.ffns.0.lin1"] == "feed_forward_up"
    assert role["transformer.ffns.0.lin2"] == "feed_forward_down"
