"""One LoRA made of several, by peft's `add_weighted_adapter`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from autopeft_lora.sources import maps_of, names_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from autopeft import LinearModule, ModelSpec
    from autopeft_lora.sources import Source

MERGED = "merged"
"""peft's name for the result; the sources are called by their numbers."""

DEVIATION = 0.1
"""Of the values of sources that no winner brings."""

Pair = tuple[torch.Tensor, torch.Tensor]
"""A `[rank, in]` and B `[out, rank]`, whose product is added to a map."""


def merged(
    sources: Sequence[Source], spec: ModelSpec, weights: Sequence[float], combination: str, density: float | None
) -> dict[str, Pair]:
    """The pair of each map that a source changes, by the map's name; the scales are in the pairs.

    peft gets the sources on maps without weights, so that nothing of the model's size is made. All have the largest
    rank but with `cat`: rows of zeros in A, and columns of zeros in B, leave a product as it is.

    Args:
        sources: that are merged.
        spec: of the model.
        weights: of each.
        combination: as peft calls it.
        density: the share of values that are kept, if the combination drops some.
    """
    from peft import LoraConfig, get_peft_model

    linears = maps_of(sources, spec)
    frame = nn.ModuleList(_without_weights(linear) for linear in linears)
    places = {linear.name: str(place) for place, linear in enumerate(linears)}
    widest = max(source.rank for source in sources)
    model: Any = None
    for number, source in enumerate(sources):
        rank = source.rank if combination == "cat" else widest
        own = source.linears(spec)
        config = LoraConfig(
            r=rank, lora_alpha=source.scale * rank, target_modules=[places[linear.name] for linear in own]
        )
        if model is None:
            model = get_peft_model(frame, config, adapter_name=str(number))
        else:
            model.add_adapter(str(number), config)
        for linear in own:
            layer = model.base_model.model[int(places[linear.name])]
            for part, values in zip((layer.lora_A, layer.lora_B), _pair(source, linear), strict=True):
                weight = part[str(number)].weight
                weight.data.zero_()
                weight.data[: values.shape[0], : values.shape[1]] = values
    chosen = {} if density is None else {"density": density}
    numbers = [str(number) for number in range(len(sources))]
    model.add_weighted_adapter(numbers, [*weights], MERGED, combination_type=combination, **chosen)
    layers = {name: model.base_model.model[int(place)] for name, place in places.items()}
    return {name: (one.lora_A[MERGED].weight.data, one.lora_B[MERGED].weight.data) for name, one in layers.items()}


def _without_weights(linear: LinearModule) -> nn.Linear:
    """A linear map of that shape on the CPU, all of whose weights are one number."""
    found = nn.Linear(linear.in_features, linear.out_features, bias=False, device="meta")
    weight = torch.zeros(()).expand(linear.out_features, linear.in_features)
    found.weight = nn.Parameter(weight, requires_grad=False)
    return found


def _pair(source: Source, linear: LinearModule) -> Pair:
    """A source's pair for a map; drawn, if no winner brings it."""
    if source.saved is None:
        shapes = (source.rank, linear.in_features), (linear.out_features, source.rank)
        down, up = (DEVIATION * torch.randn(shape) for shape in shapes)
        return down, up
    tensors: Mapping[str, Any] = source.saved.tensors
    down, up = (torch.from_numpy(tensors[name]).float() for name in names_of(linear))
    return down, up
