"""The prompt's parts: an embedding with tokens behind its vocabulary, and a hook that puts these into every row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable


class PromptEmbedding(nn.Module):
    """A frozen embedding with trained, virtual tokens at the end of its vocabulary: ids `[…]` → `[…, width]`.

    Args:
        base: the embedding; the virtual tokens' ids follow its own.
        tokens: how many virtual tokens.
        random: start from random values in ±0.5, not from the embeddings of random words of the vocabulary.
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
        """The frozen embedding for words, the trained one for virtual tokens."""
        virtual = ids - self.words
        words: torch.Tensor = self.base(ids.clamp(max=self.words - 1))
        return torch.where((virtual >= 0).unsqueeze(-1), self.prompt[virtual.clamp(min=0)].to(words.dtype), words)


def insertion(ids: range, place: int, room: int | None) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
    """A forward pre-hook that puts tokens into every row.

    A row that would then have more tokens than the model has positions is cut as a tokenizer cuts it: its last token,
    often an end mark, stays.

    Args:
        ids: of the tokens.
        place: how many of a row's own tokens come before them.
        room: the most tokens of a row, including these; None for any number.
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
