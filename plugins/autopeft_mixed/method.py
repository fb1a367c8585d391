"""Prefixes on attention, and adapters beside and behind the feed-forward part, in any combination."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from autopeft_adapter import Adapter
from autopeft_prefix_tuning import PrefixTuning

from autopeft import (
    Categorical,
    Float,
    Integer,
    ModelSpec,
    Params,
    PeftMethod,
    SearchSpace,
    Support,
    layer_groups,
    mean_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

TYPICAL_DEPTH = 12
PARTS = ("prefix", "parallel", "sequential")
PLACEMENTS = {"sequential": "pfeiffer", "parallel": "parallel"}
"""The adapters by `Adapter`'s names, in the order they are applied: the parallel one encloses the sequential one."""


class Mixed(PeftMethod):
    """Several add-ons at once: up to three, which `parts` names, each of its own size, on the same `layers`.

    - `prefix`: keys and values in front of attention's own, trained directly.
    - `parallel`: an adapter beside the feed-forward part, of width `hidden size / parallel_factor`.
    - `sequential`: an adapter behind the feed-forward part, of width `hidden size / sequential_factor`.

    The default is the MAM adapter of He et al.: a short prefix, and most parameters in a parallel adapter. Three parts,
    each with its own size, and the layers are the space of AutoPEFT (Zhou et al.).
    """

    contract = 1
    name = "mixed"
    paper = "He et al. 2022, arXiv:2110.04366; Zhou et al. 2024, arXiv:2301.12132"

    def supports(self, spec: ModelSpec) -> Support:
        """Models that support at least two of the parts."""
        parts = _possible(spec)
        if len(parts) > 1:
            return Support()
        taken = f"only the {parts[0]} one" if parts else "none"
        return Support(f"a mixture needs two of the parts {', '.join(PARTS)}, but {spec.architecture} takes {taken}.")

    def search_space(self, spec: ModelSpec | None = None) -> SearchSpace:
        """The parts, at least one, the size of each, and the layers."""
        mixtures = tuple(
            "+".join(chosen)
            for count in (2, 3, 1)
            for chosen in combinations(_possible(spec) if spec else PARTS, count)
        )

        def where(part: str) -> tuple[str, tuple[str, ...]]:
            return "parts", tuple(mixture for mixture in mixtures if part in mixture.split("+"))

        sizes = {
            "prefix": ("num_virtual_tokens", 8),
            "parallel": ("parallel_factor", 8),
            "sequential": ("sequential_factor", 16),
        }
        layers = tuple(layer_groups(len(spec.layers) if spec else TYPICAL_DEPTH))
        return SearchSpace(
            {
                "parts": Categorical(choices=mixtures, default=mixtures[0]),
                **{
                    name: Integer(low=2, high=64, default=default, log=True, when=where(part))
                    for part, (name, default) in sizes.items()
                    if where(part)[1]
                },
                "layers": Categorical(choices=layers, default="all"),
            }
        )

    def training_space(self, spec: ModelSpec | None = None) -> SearchSpace:
        """Learning rates that suit adapters and prefixes; the default is the adapter's, which has most parameters."""
        return SearchSpace({"learning_rate": Float(low=5e-4, high=1e-2, default=4e-3, log=True)})

    def apply(self, model: nn.Module, params: Params, spec: ModelSpec) -> nn.Module:
        """Apply each part with the method that it comes from."""
        parts = str(params["parts"]).split("+")
        for part, placement in PLACEMENTS.items():
            if part in parts:
                own: Params = {
                    "placement": placement,
                    "reduction_factor": params[f"{part}_factor"],
                    "non_linearity": "relu",
                    "layers": params["layers"],
                }
                model = Adapter().apply(model, own, spec)
        if "prefix" in parts:
            own = {
                "num_virtual_tokens": params["num_virtual_tokens"],
                "prefix_projection": False,
                "layers": params["layers"],
            }
            model = PrefixTuning().apply(model, own, spec)
        return model

    def average(self, folds: Sequence[Mapping[str, Tensor]], params: Params, spec: ModelSpec) -> Mapping[str, Tensor]:
        """The mean of each tensor, as the methods of its parts do."""
        return mean_of(folds)


def _possible(spec: ModelSpec) -> tuple[str, ...]:
    """The parts that a model supports."""
    placements: tuple[object, ...] = ()
    if Adapter().supports(spec):
        placement = Adapter().search_space(spec)["placement"]
        placements = placement.choices if isinstance(placement, Categorical) else ()
    return tuple(
        part
        for part in PARTS
        if (PLACEMENTS[part] in placements if part in PLACEMENTS else bool(PrefixTuning().supports(spec)))
    )
