"""The fusion of several adapters behind one frozen linear map."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from autopeft import LinearModule, ModelSpec
    from autopeft_fusion.sources import Source

NON_LINEARITIES: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}
QUERY_DEVIATION, OFF_DIAGONAL = 0.02, 1e-6
"""Initial values, as in AdapterHub: the deviation of W_q and W_k, and what W_v has off its diagonal of ones."""

MADE_UP = 0.2
"""The deviation of the weights of adapters that no winner brings."""


class SourceAdapter(nn.Module):
    """A frozen adapter without its residual: `up(f(down(h)))`, `[…, width]` → `[…, width]`."""

    def __init__(self, width: int, size: int, non_linearity: str, like: torch.Tensor) -> None:
        super().__init__()
        self.down = nn.Linear(width, size, device=like.device)
        self.non_linearity = NON_LINEARITIES[non_linearity]()
        self.up = nn.Linear(size, width, device=like.device)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=MADE_UP)
        self.requires_grad_(False)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """What it would add to the map's output."""
        added: torch.Tensor = self.up(self.non_linearity(self.down(h)))
        return added


def frozen_adapter(source: Source, site: LinearModule, spec: ModelSpec, like: torch.Tensor) -> SourceAdapter:
    """A source's adapter behind a map, with the source's values unless it is made up.

    Args:
        source: of the adapter.
        site: the map.
        spec: of the model.
        like: a tensor on the device to use.
    """
    adapter = SourceAdapter(site.out_features, source.width(spec), source.non_linearity, like)
    if source.saved and like.device.type != "meta":
        for name, parameter in adapter.named_parameters():
            parameter.data.copy_(torch.from_numpy(source.tensors()[f"{site.name}.adapter.{name}"]))
    return adapter


class Fused(nn.Module):
    """A frozen map followed by a fusion of adapters (Pfeiffer et al. 2021, section 3.1), as in AdapterHub.

    With `h = base(x)` and what the N adapters make of it, `z_n`, each token gets
    `h + Σ_n softmax_n(dropout(q · k_n)) v_n`, where `q = W_q h + b_q`, `k_n = W_k z_n + b_k` and `v_n = W_v z_n`, or
    `v_n = z_n` without W_v.

    Args:
        base: the frozen map.
        adapters: the frozen adapters.
        places: the number of each among all sources of the study.
        width: of the map's output.
        values: whether there is a W_v.
        dropout: of the scores.
    """

    def __init__(
        self,
        base: nn.Module,
        adapters: Sequence[SourceAdapter],
        places: Sequence[int],
        width: int,
        *,
        values: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        like = next(base.parameters())
        self.base = base
        self.sources = nn.ModuleList(adapters)
        self.places = tuple(places)
        self.query = nn.Linear(width, width, device=like.device)
        self.key = nn.Linear(width, width, device=like.device)
        for linear in (self.query, self.key):
            nn.init.normal_(linear.weight, std=QUERY_DEVIATION)
            nn.init.zeros_(linear.bias)
        self.value = nn.Linear(width, width, bias=False, device=like.device) if values else None
        if self.value is not None:
            with torch.no_grad():
                self.value.weight.fill_(OFF_DIAGONAL).fill_diagonal_(1.0)
        self.dropout = nn.Dropout(dropout)
        self.seen: list[torch.Tensor] | None = None  # the attention of each pass, where somebody asks for it
        self.left_out: int | None = None  # the source, by its number in the study, that is left out now

    @property
    def weight(self) -> torch.Tensor:
        """The frozen weight, which some models read, also of a base that is wrapped itself."""
        return cast("torch.Tensor", self.base.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[…, in_features]` → `[…, width]`."""
        h: torch.Tensor = self.base(x)
        used = [place != self.left_out for place in self.places]
        made = [adapter(h) for adapter, use in zip(self.sources, used, strict=True) if use]
        if not made:
            return h
        z = torch.stack(made, dim=-2)
        scores = (self.key(z) @ self.query(h).unsqueeze(-1)).squeeze(-1)
        attention = torch.softmax(self.dropout(scores), dim=-1)
        if self.seen is not None:
            whole = attention.new_zeros(*attention.shape[:-1], len(used))
            whole[..., [index for index, use in enumerate(used) if use]] = attention
            self.seen.append(whole.detach())
        values = z if self.value is None else self.value(z)
        added: torch.Tensor = (attention.unsqueeze(-2).to(values.dtype) @ values).squeeze(-2)
        return h + added


def fusions(model: nn.Module) -> dict[str, Fused]:
    """The fusions in a model, by name, bottom to top."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Fused)}


@contextmanager
def without(modules: Iterable[Fused], source: int) -> Iterator[None]:
    """Leave one source out, by its number in the study: the attention is shared among the others."""
    chosen = list(modules)
    for module in chosen:
        module.left_out = source
    try:
        yield
    finally:
        for module in chosen:
            module.left_out = None
