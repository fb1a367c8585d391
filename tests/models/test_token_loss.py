"""The loss of each token without a vocabulary's logits: equal to cross-entropy, and far smaller in memory."""

import copy

import pytest
import torch
import transformers
from torch import nn
from torch.nn.functional import cross_entropy

from autopeft.budget.memory import peak
from autopeft.common.exceptions import ModelError
from autopeft.models import token_loss
from autopeft.testing.tiny import FAMILIES, SIZES

WORDS = 64
OPTIONS = {
    "gpt2": {},
    "opt": {},
    "llama": {},
    "qwen2": {},
    "gemma2": {"head_dim": 8, "final_logit_softcapping": 5.0},
    "cohere": {"logit_scale": 0.3},
    "granite": {"logits_scaling": 4.0},
    "phi": {},
}
"""Of models that scale their logits, bound them, or have a bias."""


def model_of(family):
    special = {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3, "vocab_size": WORDS}
    options = {**SIZES, **special, **FAMILIES.get(family, {}), **OPTIONS[family]}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(family, **options))
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data *= 3
    if getattr(model.get_output_embeddings(), "bias", None) is not None:
        model.get_output_embeddings().bias.data = torch.linspace(-1, 1, WORDS)
    return model.eval()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, WORDS, (3, 9), generator=generator)
    labels = ids[:, 1:].clone()
    labels[0, 5:] = token_loss.IGNORED
    return ids, torch.arange(8).expand(3, 8), labels


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("family", OPTIONS)
def test_losses_and_gradients_are_those_of_cross_entropy(family, trained, batch, monkeypatch):
    monkeypatch.setattr(token_loss, "AT_ONCE", 5 * WORDS)  # several parts, the last one shorter
    ids, at, labels = batch
    counts = torch.arange(24.0).view(3, 8)
    found = []
    for ours in (False, True):
        model = model_of(family)
        model.requires_grad_(False)
        head = model.get_output_embeddings()
        for parameter in head.parameters():
            parameter.requires_grad_(trained)
        inputs = model.get_input_embeddings()(ids).detach().requires_grad_()
        if ours:
            token_loss.put_on(model)
            losses = token_loss.token_losses(model, {"inputs_embeds": inputs}, at, labels)["losses"]
        else:
            logits = model(inputs_embeds=inputs).logits[:, :-1].float()
            losses = cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(3, 8)
        (losses * counts).sum().backward()
        found.append([losses.detach(), inputs.grad, *(p.grad for p in head.parameters() if trained)])
    for wanted, got in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("family", OPTIONS)
def test_a_model_is_left_as_it_was(family, batch):
    model = model_of(family)
    head = model.get_output_embeddings()
    wanted = model(batch[0]).logits
    token_loss.check(model)
    assert model.get_output_embeddings() is head
    token_loss.put_on(model)
    torch.testing.assert_close(model(batch[0]).logits, wanted)
    token_loss.LanguageHead.take_off(model)
    assert model.get_output_embeddings() is head


def test_logits_that_are_made_otherwise_are_refused():
    model = model_of("llama")
    forward = model.forward

    def cubed(*args, **kwargs):
        outputs = forward(*args, **kwargs)
        outputs.logits = outputs.logits**3
        return outputs

    model.forward = cubed
    with pytest.raises(ModelError, match="a linear map of its hidden states"):
        token_loss.check(model)


def test_a_large_vocabulary_takes_a_quarter_of_the_memory_at_most():
    words, width, tokens = 150_000, 16, 512
    head = nn.Linear(width, words, bias=False).requires_grad_(False)
    labels = torch.randint(words, (tokens,))
    states = torch.randn(tokens, width)

    class Model(nn.Module):
        config = None

        def __init__(self):
            super().__init__()
            self.head = token_loss.LanguageHead(head)
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, states):
            return self.head(states * self.scale)

    def ours():
        at = torch.arange(tokens)[None]
        found = token_loss.token_losses(model, {"states": states[None]}, at, labels[None])["losses"]
        found.mean().backward()

    def theirs():
        cross_entropy(head(states * model.scale).float(), labels).backward()

    model = Model()
    small = peak.measure(ours, model, others=[states, labels])
    gradient = model.scale.grad.clone()
    model.scale.grad = None
    held = sum(p.nbytes for p in model.parameters())
    large = peak.measure(theirs, model, others=[states, labels])
    assert (small - held) * 4 < large - held
    torch.testing.assert_close(gradient, model.scale.grad, rtol=1e-5, atol=1e-5)


def test_copies_listen_by_themselves(batch):
    model = model_of("gpt2")
    token_loss.put_on(model)
    twin = copy.deepcopy(model)
    with token_loss.head_of(model).listening() as found:
        assert twin(batch[0]).logits.shape[-1] == WORDS
    assert found == []
