"""The prompt's modules: an embedding with tokens behind its vocabulary, and what writes those into every row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable


class PromptEmbedding(nn.Module):
    """A frozen embedding whose vocabulary goes on with trained, virtual tokens: ids `[…]` → `[…, width]`.

    Args:
        base: the embedding; its ids end where the virtual tokens' begin.
        tokens: how many virtual tokens.
        random: start them from the range ±0.5, not from the embeddings of words drawn from the vocabulary.
    """

    def __init__(self, base: Any, tokens: int, *, random: bool) -> None:
        super().__init__()
        self.base = base
        self.words = int(base.num_embeddings)
        with torch.no_grad():
            drawn = base(torch.randint(self.words, (tokens,), device=base.weight.device)).float()
            self.prompt = nn.Parameter(drawn.uniform_(-0.5, 0.5) if random else drawn)

    @property
    def weight(self) -> torch.Tensor:
        """The frozen weight, which some models read."""
        weight: torch.Tensor = self.base.weight
        return weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """The frozen embedding of words, the trained one of virtual tokens."""
        virtual = ids - self.words
        words: torch.Tensor = self.base(ids.clamp(max=self.words - 1))
        return torch.where((virtual >= 0).unsqueeze(-1), self.prompt[virtual.clamp(min=0)].to(words.dtype), words)


def insertion(ids: range, place: int, room: int | None) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
    """A forward pre-hook that writes tokens into every row.

    A row that would then be longer than the model's positions is cut the way a tokenizer cuts it: its last token, often
    an end mark, stays.

    Args:
        ids: of the tokens.
        place: how many of a row's own tokens stand in front of them.
        room: the most tokens a row may have, them included; None for any number.
    """

    def insert(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        columns = dict(kwargs)
        own, mask = columns["input_ids"], columns["attention_mask"]
        keep = own.shape[1] if room is None else min(own.shape[1], room - len(ids))
        if keep < own.shape[1]:
            length = mask.sum(dim=1, keepdim=True)
            last = own.gather(1, length - 1).where(length > keep, own[:, keep - 1 : keep])
            own = torch.cat([own[:, : keep - 1], last], dim=1)
        tokens = torch.tensor(ids, device=own.device)
        for name, column, fill in (
            ("input_ids", own, tokens),
            ("attention_mask", mask, torch.ones_like(tokens)),
            ("token_type_ids", columns.get("token_type_ids"), torch.zeros_like(tokens)),
        ):
            if column is not None:
                filled = fill.to(column.dtype).expand(len(column), -1)
                columns[name] = torch.cat([column[:, :place], filled, column[:, place:keep]], dim=1)
        return args, columns

    return insert
