"""Models with an encoder and a decoder: what the decoder begins with, what its tokens cost, and what it writes."""

import numpy as np
import pytest
import torch
import transformers
from torch.nn.functional import cross_entropy

from autopeft.common.exceptions import ModelError
from autopeft.methods.registry import discover
from autopeft.models import generation, token_loss
from autopeft.models.architecture import describe
from autopeft.models.attach import attach
from autopeft.models.base import BaseModel
from autopeft.models.decoder_start import decoder_start
from autopeft.models.writing_limits import WritingLimits
from autopeft.testing.tiny import END, PAD, SIZES, START, VOCABULARY, WRITING_FAMILIES

T5, BART = WRITING_FAMILIES["t5"], WRITING_FAMILIES["bart"]
GATED = {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
OPTIONS = {"t5": T5, "t5 gated": GATED, "umt5": T5, "bart": BART, "marian": BART, "pegasus": BART, "mbart": BART,
           "m2m_100": {**BART, "decoder_start_token_id": END}}  # fmt: skip
LANGUAGE = 9
"""A token that stands for one."""


def model_of(name, **options):
    """A tiny one, of those that have a vector behind their head with one that matters."""
    special = {"pad_token_id": PAD, "bos_token_id": START, "eos_token_id": END, "vocab_size": VOCABULARY}
    config = transformers.AutoConfig.for_model(name.split()[0], **{**SIZES, **special, **OPTIONS[name], **options})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForSeq2SeqLM.from_config(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data *= 3
    if hasattr(model, "final_logits_bias"):
        model.final_logits_bias.data = torch.linspace(-2, 2, VOCABULARY)[None]
    return model.eval()


@pytest.fixture
def batch():
    """Sources, and targets that end with a mark, of different lengths."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(10, VOCABULARY, (3, 9), generator=generator)
    labels = torch.randint(10, VOCABULARY, (3, 7), generator=generator)
    labels[:, -1] = END
    labels[0, 4:] = torch.tensor([END, token_loss.IGNORED, token_loss.IGNORED])
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    return {"input_ids": ids, "attention_mask": mask}, labels


def shifted(labels, start):
    """What a decoder reads."""
    read = labels.roll(1, dims=1).masked_fill(labels.roll(1, dims=1) == token_loss.IGNORED, PAD)
    read[:, 0] = start
    return read


@pytest.mark.parametrize("name", OPTIONS)
def test_losses_and_gradients_are_those_of_the_models_own_logits(name, batch):
    inputs, labels = batch
    found = []
    for ours in (False, True):
        model = model_of(name).requires_grad_(False)
        start = decoder_start(model, np.array([END, END, END]))
        trained = model.get_submodule(describe(model, "seq2seq", "SEQ_2_SEQ_LM", [], new_head=False).linears[-1].name)
        trained.weight.requires_grad_()
        if ours:
            token_loss.put_on(model)
            at = torch.arange(labels.shape[1]).expand_as(labels)
            losses = token_loss.token_losses(model, {**inputs, "decoder_input_ids": shifted(labels, start)}, at, labels)
            losses = losses["losses"]
        else:
            logits = model(**inputs, labels=labels).logits
            losses = cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
        losses.sum().backward()
        found.append((losses.detach(), trained.weight.grad))
    (wanted, slope), (losses, ours) = found
    torch.testing.assert_close(losses, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours, slope, rtol=1e-4, atol=1e-5)
    assert bool((losses[0, 4] > 0) & (losses[0, 5:] == 0).all()), "the mark of the end is learnt, and padding is not"


@pytest.mark.parametrize("name", OPTIONS)
def test_a_model_whose_losses_are_told_passes_and_is_left_as_it_was(name):
    model = model_of(name)
    head = model.get_output_embeddings()
    token_loss.check(model)
    assert model.get_output_embeddings() is head


def test_a_vector_behind_the_head_that_is_not_known_is_noticed(monkeypatch):
    model = model_of("bart")
    monkeypatch.setattr(token_loss, "ADDED", "nothing of that name")
    with pytest.raises(ModelError, match="a linear map of its hidden states"):
        token_loss.check(model)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_decoder_begins_with_what_the_model_makes_of_labels(name):
    ends = np.array([LANGUAGE, LANGUAGE])
    assert decoder_start(model_of(name), ends) == {"mbart": LANGUAGE, "m2m_100": END}.get(name, PAD)


def test_last_tokens_that_differ_cannot_begin():
    with pytest.raises(ModelError, match="must be the same in all rows"):
        decoder_start(model_of("mbart"), np.array([LANGUAGE, END]))


def test_a_configuration_without_a_start_is_refused():
    with pytest.raises(ModelError, match="must name the start token of its decoder"):
        decoder_start(model_of("t5", decoder_start_token_id=None), np.array([END]))


def test_a_model_that_makes_something_else_of_labels_is_refused():
    model = model_of("t5")
    model._shift_right = lambda labels: labels.clamp(min=0)
    with pytest.raises(ModelError, match="shifted by one place"):
        decoder_start(model, np.array([END]))


@pytest.mark.parametrize("name", ["t5", "bart", "m2m_100"])
@pytest.mark.parametrize("method", ["", "lora", "prefix_tuning", "adapter"])
def test_what_is_written_is_what_the_model_finds_most_probable(name, method):
    model = model_of(name)
    if method:
        spec = describe(model, "seq2seq", "SEQ_2_SEQ_LM", [], new_head=False)
        plugin = discover()[method]
        space = plugin.search_space(spec).defaults()
        model = attach(BaseModel(model.requires_grad_(False), None, spec), plugin, space).eval()
        with torch.no_grad():
            for number, parameter in enumerate(p for p in model.parameters() if p.requires_grad):
                noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
                parameter += 0.3 * noise
    tokenizer = type("Tokenizer", (), {"pad_token_id": PAD})
    generator = np.random.default_rng(0)
    sources = [generator.integers(10, VOCABULARY, length) for length in (7, 2, 5, 9)]
    begin = OPTIONS[name]["decoder_start_token_id"], LANGUAGE
    limits = WritingLimits(6, (END,), None, begin)
    found = generation.written(model, tokenizer, sources, limits)
    for source, text in zip(sources, found, strict=True):
        read = [*begin]
        while len(read) < 8 and read[-1] != END:
            ids = torch.from_numpy(source)[None]
            with torch.no_grad():
                logits = model(input_ids=ids, decoder_input_ids=torch.tensor([read])).logits[0, -1]
            logits[PAD] = -torch.inf
            read.append(int(logits.argmax()))
        assert text.tolist() == [token for token in read[2:] if token != END]


def test_a_decoder_writes_no_more_than_it_has_places():
    model = model_of("bart", max_position_embeddings=8)
    tokenizer = type("Tokenizer", (), {"pad_token_id": PAD})
    (found,) = generation.written(model, tokenizer, [np.arange(10, 14)], WritingLimits(50, (), 8, (PAD,)))
    assert len(found) == 7


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_the_attention_of_a_decoder_to_an_encoder_is_told_apart(name):
    spec = describe(model_of(name), "seq2seq", "SEQ_2_SEQ_LM", [], new_head=False)
    crossing = spec.modules("query", cross=True)
    assert len(crossing) == 2
    assert all("decoder" in found and ("EncDec" in found or "encoder_attn" in found) for found in crossing)
    assert {*spec.modules("query", cross=False)} == {*spec.modules("query")} - {*crossing}
    decoder = 2 if name == "bart" else 4  # the tiny one has fewer heads there
    assert [spec.heads_of(layer)[0] for layer in range(4)] == [4, 4, decoder, decoder]
    lora = discover()["lora"].search_space(spec)["target_modules"].choices
    assert lora[-1] == "cross_attention"
    assert lora[:-1] == discover()["lora"].search_space()["target_modules"].choices
