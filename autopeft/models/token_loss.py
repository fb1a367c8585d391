"""The loss of each token of an answer, without holding the logits of a whole vocabulary for all tokens at once.

The map onto the vocabulary is frozen, and the loss of a token depends only on its own state. So the gradient of a state
can be computed with its loss, some tokens at a time, and kept instead of the logits: for N tokens, width H and
vocabulary V that is N · H numbers and not several times N · V (as in Liger's fused loss, arXiv:2410.10989).
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from autopeft.common.exceptions import ModelError
from autopeft.models.output_head import OutputHead

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

AT_ONCE = 2**24
"""Most logits that are held at a time."""

IGNORED = -100
"""The label of a place that is not a token, as in `torch.nn.functional.cross_entropy`."""


class Shape(NamedTuple):
    """What a model does to its logits: it multiplies them by `scale`, and bounds them by `cap` · tanh(logits / cap)."""

    scale: float = 1.0
    cap: float = 0.0


class LanguageHead(OutputHead):
    """A map onto a vocabulary that can instead keep its input.

    Args:
        whole: the map; its tensors stay where they are.
    """

    def __init__(self, whole: nn.Module) -> None:
        super().__init__(whole)
        self._listening = False
        self._heard: torch.Tensor | None = None

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """`[…, hidden size]` → `[…, words]`; or a single number if only the states are wanted."""
        if not self._listening:
            logits: torch.Tensor = self.whole(hidden)
            return logits
        self._heard = hidden
        return hidden.new_zeros((1,) * hidden.ndim)

    @contextmanager
    def listening(self) -> Iterator[list[torch.Tensor]]:
        """Listen while the model runs; afterwards the list has the states that it gave its head."""
        found: list[torch.Tensor] = []
        self._listening = True
        try:
            yield found
            if self._heard is not None:
                found.append(self._heard)
        finally:
            self._listening, self._heard = False, None


def put_on(model: Any) -> None:
    """Make the head of a language model able to keep its input.

    Raises:
        ModelError: it has no linear map onto its vocabulary.
    """
    LanguageHead(OutputHead.map_of(model)).put_on(model)


def head_of(model: nn.Module) -> LanguageHead:
    """The head that `put_on` put there."""
    return next(module for module in model.modules() if isinstance(module, LanguageHead))


ADDED = "final_logits_bias"
"""Name in BART and its relatives of a vector that is added to logits after the map; no method trains it."""


def bias_of(model: nn.Module, head: LanguageHead) -> torch.Tensor | None:
    """What is added to the products with the head's weight: its own bias, and a vector after it; `[words]`."""
    added = next((tensor for name, tensor in model.named_buffers() if name.rpartition(".")[2] == ADDED), None)
    if added is None:
        return head.bias
    behind = added.flatten().to(head.weight.dtype)
    return behind if head.bias is None else head.bias + behind


def shape_of(config: Any) -> Shape:
    """What transformers' models do to their logits, from their configurations."""
    scale = getattr(config, "logit_scale", None) or 1.0  # Cohere
    scale /= getattr(config, "logits_scaling", None) or 1.0  # Granite
    return Shape(float(scale), float(getattr(config, "final_logit_softcapping", None) or 0.0))  # Gemma 2


class TokenLosses(dict[str, torch.Tensor]):
    """For each row the losses of its tokens (`losses`), and whether each is the most probable one (`hits`), float32.

    Both are `[rows, tokens]`, and 0 where a row has no token. They can be cut by rows like a model's outputs.
    """


def token_losses(model: nn.Module, inputs: Mapping[str, Any], at: torch.Tensor, labels: torch.Tensor) -> TokenLosses:
    """Run a language model with a `LanguageHead`, and return the losses of given tokens.

    Args:
        model: after `put_on`; methods may have changed it since.
        inputs: of the model.
        at: places whose states predict the tokens, int64 `[rows, tokens]`.
        labels: the tokens, int64 `[rows, tokens]`; `IGNORED` where a row has fewer.
    """
    head = head_of(model)
    with head.listening() as found:
        outputs = model(**inputs)
    (hidden,) = found
    del outputs
    rows = torch.arange(len(labels), device=labels.device)[:, None].expand_as(labels)
    there = labels != IGNORED
    if isinstance(labels, FakeTensor):  # a memory prediction does not know which places are ignored
        states, wanted = hidden[rows, at].flatten(0, 1), labels.flatten()
    else:
        states, wanted = hidden[rows[there], at[there]], labels[there]
    shape = shape_of(getattr(model, "config", None))
    given: tuple[torch.Tensor, torch.Tensor] = _Losses.apply(  # type: ignore[no-untyped-call]  # torch leaves it untyped
        states, head.weight, bias_of(model, head), wanted, shape
    )
    if isinstance(labels, FakeTensor):
        return TokenLosses(losses=given[0].view(labels.shape), hits=given[1].view(labels.shape))
    empty = torch.zeros(labels.shape, device=labels.device)
    return TokenLosses(losses=empty.masked_scatter(there, given[0]), hits=empty.masked_scatter(there, given[1]))


class _Losses(torch.autograd.Function):
    """Cross-entropy of each state, and whether its label is the most probable word, some states at a time."""

    @staticmethod
    def forward(
        ctx: Any,
        states: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
        shape: Shape,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`states` `[tokens, hidden size]`, `weight` `[words, hidden size]` → losses and hits, float32 `[tokens]`."""
        learning = any(ctx.needs_input_grad)
        losses = torch.empty(len(states), dtype=torch.float32, device=states.device)
        hits = torch.empty_like(losses)
        gradients = torch.empty_like(states) if learning else losses
        for some in _parts(states, weight):
            losses[some], hits[some], slopes = _told(states[some], weight, bias, labels[some], shape, learning=learning)
            if slopes is not None:
                gradients[some] = slopes.to(weight.dtype) @ weight
        trained = ctx.needs_input_grad[1] or ctx.needs_input_grad[2]
        ctx.save_for_backward(gradients, *((states, weight, bias, labels) if trained else ()))
        ctx.shape = shape
        ctx.mark_non_differentiable(hits)
        return losses, hits

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The gradients of states, which were computed with the losses; those of a trained head are computed here."""
        gradients, *more = ctx.saved_tensors
        counts = upstream[0][:, None]
        of_weight = of_bias = None
        if more:
            states, weight, bias, labels = more
            of_weight = torch.zeros_like(weight)
            of_bias = None if bias is None else torch.zeros_like(bias)
            for some in _parts(states, weight):
                slopes = _told(states[some], weight, bias, labels[some], ctx.shape, learning=True)[2]
                slopes = (slopes * counts[some]).to(weight.dtype)
                of_weight += slopes.T @ states[some].to(weight.dtype)
                if of_bias is not None:
                    of_bias += slopes.sum(0)
        return gradients * counts.to(gradients.dtype), of_weight, of_bias, None, None


def _parts(states: torch.Tensor, weight: torch.Tensor) -> Iterator[slice]:
    """As many states at a time as have `AT_ONCE` logits."""
    step = max(1, AT_ONCE // len(weight))
    for start in range(0, len(states), step):
        yield slice(start, start + step)


def _told(
    states: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    labels: torch.Tensor,
    shape: Shape,
    *,
    learning: bool,
) -> tuple[torch.Tensor, torch.Tensor, Any]:
    """Losses, hits, and if `learning` the derivatives of the losses by the products with the weight."""
    logits = nn.functional.linear(states, weight, bias).float()
    slope: Any = None
    if shape.scale != 1:
        logits *= shape.scale
    if shape.cap:
        logits.div_(shape.cap).tanh_()
        slope = 1 - logits.square() if learning else None
        logits *= shape.cap
    label = labels[:, None].clamp(min=0)
    # In place, not by `logsumexp`, which needs the memory of the logits once more without showing it.
    most, best = logits.max(-1, keepdim=True)
    hits = (best == label).squeeze(-1).float()
    given = logits.gather(-1, label)
    sums = logits.sub_(most).exp_().sum(-1, keepdim=True)
    losses = (sums.log() + most - given).squeeze(-1)
    if not learning:
        return losses, hits, None
    slopes = logits.div_(sums)  # probabilities
    slopes.scatter_add_(-1, label, -torch.ones_like(sums))
    if slope is not None:
        slopes *= slope
    return losses, hits, slopes.mul_(shape.scale)


@torch.no_grad()
def check(model: Any, words: int = 8) -> None:
    """Make sure that the losses of some tokens equal those from the model's own logits.

    Args:
        model: of transformers, as it was loaded.
        words: how many tokens are tried.

    Raises:
        ModelError: they differ: the model changes its logits in a way not known here.
    """
    ids = (
        torch.arange(4, 4 + words, device=model.device)[None]
        % OutputHead.map_of(model).get_parameter("weight").shape[0]
    )
    at, labels = torch.arange(words - 1, device=model.device)[None], ids[:, 1:]
    inputs = {"input_ids": ids, **({"decoder_input_ids": ids} if model.config.is_encoder_decoder else {})}
    whole = model(**inputs).logits.float()[:, :-1]
    put_on(model)
    try:
        found = token_losses(model, inputs, at, labels)["losses"]
    finally:
        LanguageHead.take_off(model)
    wanted = nn.functional.cross_entropy(whole.flatten(0, 1), labels.flatten(), reduction="none")
    close = OutputHead.tolerance(next(model.parameters()).dtype) * float(1 + wanted.abs().max())
    if not torch.allclose(found.flatten(), wanted, rtol=0, atol=close):
        raise ModelError(
            "a language model's logits must be a linear map of its hidden states, at most scaled or capped, but those "
            f"of {type(model).__name__} are not; take another model."
        )
