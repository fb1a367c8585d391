"""Prompt tuning: where the virtual tokens stand, what they cost, and that all else is read as without them."""

import pytest
import torch
from autopeft_prompt_tuning import PromptTuning
from autopeft_prompt_tuning.prompt import insertion
from transformers import AutoConfig, AutoModelForSequenceClassification

from autopeft.models.architecture import describe
from autopeft.models.attach import attach, trainable
from autopeft.models.base import BaseModel
from tests.tiny_models import FAMILIES, PAD, VOCABULARY, batch, tiny_base

WIDTH = {"electra": 16, "albert": 16}
"""Of the embedding, where it is not that of the model."""

FORWARD = {"gpt2", "opt", "llama", "qwen2", "t5"}
"""Read from left to right, or by a decoder that is."""


def prompt(family, tokens=5, initialization="vocabulary", **options):
    params = {"num_virtual_tokens": tokens, "initialization": initialization}
    base = tiny_base(family) if isinstance(family, str) else family
    return attach(base, PromptTuning(), params, **options)


def seen(model, rows):
    """What the model is given once the tokens are in."""
    found = {}
    hook = model.register_forward_pre_hook(lambda _, args, kwargs: found.update(kwargs), with_kwargs=True)
    with torch.no_grad():
        model.eval()(**rows)
    hook.remove()
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_a_token_costs_one_embedding(family):
    add_on = [p.shape for name, p in trainable(prompt(family, meta=True)).items() if name.endswith("prompt")]
    assert add_on == [(5, WIDTH.get(family, 32))]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tokens_stand_where_the_classifier_does_not_read(family):
    model, rows = prompt(family), batch()
    ids, mask = (seen(model, rows)[name] for name in ("input_ids", "attention_mask"))
    virtual, place = torch.arange(VOCABULARY, VOCABULARY + 5), 0 if family in FORWARD else 1
    assert (ids[:, place : place + 5] == virtual).all()
    assert torch.equal(torch.cat([ids[:, :place], ids[:, place + 5 :]], dim=1), rows["input_ids"])
    assert torch.equal(mask.sum(dim=1), rows["attention_mask"].sum(dim=1) + 5)


@pytest.mark.parametrize("family", FAMILIES)
def test_they_act_as_the_words_they_are_copies_of(family):
    base, words = tiny_base(family), torch.tensor([7, 9, 11])
    model, rows = prompt(family, 3), batch()
    embedding = model.get_input_embeddings()
    embedding.prompt.data = base.module.get_input_embeddings()(words).clone()
    place = 0 if family in FORWARD else 1
    spelled = {
        "input_ids": torch.cat(
            [rows["input_ids"][:, :place], words.expand(6, -1), rows["input_ids"][:, place:]], dim=1
        ),
        "attention_mask": torch.cat([torch.ones(6, 3, dtype=torch.int64), rows["attention_mask"]], dim=1),
    }
    with torch.no_grad():
        expected = base.module(**spelled).logits
        torch.testing.assert_close(model.eval()(**rows).logits, expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_is_never_read(family):
    model, rows = prompt(family).eval(), batch()
    row = int(rows["attention_mask"].sum(dim=1).argmin())
    length = int(rows["attention_mask"][row].sum())
    with torch.no_grad():
        together = model(input_ids=rows["input_ids"], attention_mask=rows["attention_mask"]).logits[row]
        alone = model(**{name: rows[name][row : row + 1, :length] for name in ("input_ids", "attention_mask")}).logits
    torch.testing.assert_close(together, alone[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "opt", "deberta-v2", "modernbert"])
def test_rows_as_long_as_the_model_allows_are_cut_for_their_tokens(family):
    limit = 128 - (PAD + 1) * (family == "roberta")
    model, rows = prompt(family, 100), batch(length=limit)
    model(**rows).loss.backward()
    ids = seen(model, rows)["input_ids"]
    assert ids.shape == (6, limit)


def test_a_row_is_cut_before_its_last_token():
    insert = insertion(range(90, 93), 1, 8)
    rows = {
        "input_ids": torch.tensor([[2, 5, 6, 7, 8, 9, 3], [2, 5, 3, 1, 1, 1, 1]]),
        "attention_mask": torch.tensor([[1] * 7, [1] * 3 + [0] * 4]),
        "token_type_ids": torch.tensor([[0, 0, 0, 1, 1, 1, 1], [0] * 7]),
    }
    _, found = insert(None, (), rows)
    assert found["input_ids"].tolist() == [[2, 90, 91, 92, 5, 6, 7, 3], [2, 90, 91, 92, 5, 3, 1, 1]]
    assert found["attention_mask"].tolist() == [[1] * 8, [1] * 6 + [0] * 2]
    assert found["token_type_ids"].tolist() == [[0, 0, 0, 0, 0, 0, 1, 1], [0] * 8]


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_models_with_a_decoder_read_the_tokens_as_part_of_the_text(kind):
    sizes = {
        "t5": {"d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4},
        "bart": {"encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
                 "encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_position_embeddings": 32},
    }[kind]  # fmt: skip
    special = {"pad_token_id": PAD, "eos_token_id": 3, "bos_token_id": 2, "decoder_start_token_id": PAD}
    config = AutoConfig.for_model(kind, vocab_size=VOCABULARY, d_model=32, num_labels=3, **sizes, **special)
    module = AutoModelForSequenceClassification.from_config(config).requires_grad_(False).eval()
    base = BaseModel(module, None, describe(module, "text-classification", "SEQ_CLS"))
    rows = batch(length=32)
    last = rows["attention_mask"].sum(dim=1, keepdim=True) - 1
    rows["input_ids"].scatter_(1, last, 3)
    model = prompt(base)
    losses = []
    optimizer = torch.optim.AdamW(trainable(model).values(), lr=3e-2)
    for _ in range(6):
        losses.append(model(**rows).loss)
        losses[-1].backward()
        assert all(p.grad.abs().sum() > 0 for name, p in trainable(model).items() if name.endswith("prompt"))
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]


def test_first_values_are_words_of_the_vocabulary_or_uniform():
    words = tiny_base("bert").module.get_input_embeddings().weight
    drawn = prompt("bert", 20).get_input_embeddings().prompt
    assert (drawn[:, None] == words).all(dim=2).any(dim=1).all()
    uniform = prompt("bert", 100, "random").get_input_embeddings().prompt
    assert 0.45 < uniform.abs().max() <= 0.5
    assert torch.equal(uniform, prompt("bert", 100, "random").get_input_embeddings().prompt)
    assert not torch.equal(uniform, prompt("bert", 100, "random", seed=1).get_input_embeddings().prompt)
