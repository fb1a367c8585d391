"""How much attention each source gets in each layer, for the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from autopeft import ReportSection, ReportTable
from autopeft_fusion.fused import fusions

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import nn

    from autopeft import ModelSpec, TrainingRows
    from autopeft_fusion.fused import Fused

ROLES = {"attention_output": ", attention", "feed_forward_down": ""}
"""What follows the number of the layer, by the role of the map in front of a fusion."""


def attention(model: nn.Module, batches: Iterable[TrainingRows]) -> dict[str, torch.Tensor]:
    """The mean attention of each fusion, `[its sources]`, over the tokens of some rows, by the fusion's name."""
    found = fusions(model)
    sums = {name: torch.zeros(len(module.places), dtype=torch.float64) for name, module in found.items()}
    counts = dict.fromkeys(found, 0)
    try:
        for batch in batches:
            for module in found.values():
                module.seen = []
            batch.run(model)
            for name, module in found.items():
                for seen in module.seen or ():
                    tokens = batch.filled(seen, of_decoder="decoder" in name)
                    sums[name] += tokens.double().sum(dim=0).cpu()
                    counts[name] += len(tokens)
    finally:
        for module in found.values():
            module.seen = None
    return {name: total / counts[name] for name, total in sums.items() if counts[name]}


def sections(
    model: nn.Module, batches: Iterable[TrainingRows], names: Sequence[str], spec: ModelSpec
) -> list[ReportSection]:
    """A heat map: a row for each fusion, a column for each source that is used."""
    found, linears = fusions(model), {linear.name: linear for linear in spec.linears}
    used = sorted({place for module in found.values() for place in module.places})
    rows = []
    for name, shares in attention(model, batches).items():
        linear = linears[name]
        rows.append((f"{linear.layer + 1}{ROLES[linear.role]}", *_cells(found[name], shares, used)))
    if not rows:
        return []
    columns = ("layer", *(names[place] for place in used))
    text = (
        "The mean attention over the tokens of the held-out rows; layer 1 is the lowest. In each row the shares add up "
        "to 1. They say which adapters the fusion uses, not which of them the score needs."
    )
    table = ReportTable(columns, tuple(rows), tuple(range(1, len(columns))), shaded=True)
    return [ReportSection("Attention to each source", text, table=table)]


def _cells(module: Fused, shares: torch.Tensor, used: Sequence[int]) -> list[str]:
    known = dict(zip(module.places, shares.tolist(), strict=True))
    return [f"{known[place]:.2f}" if place in known else "–" for place in used]
