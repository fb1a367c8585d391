"""Bottleneck adapters: small two-layer networks beside or behind the sublayers of a frozen transformer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopeft import (
    Categorical,
    Float,
    Integer,
    LinearModule,
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
    from pathlib import Path

    from torch import Tensor, nn

TYPICAL_DEPTH = 12


class Adapter(PeftMethod):
    """Adapters in three placements, always before the residual sum.

    - `houlsby`: behind the attention's and the feed-forward part's output projections.
    - `pfeiffer`: behind the feed-forward part's only.
    - `parallel`: beside the feed-forward part, from its input to its output (He et al. 2022).
    """

    contract = 1
    name = "adapter"
    paper = (
        "Houlsby et al. 2019, arXiv:1902.00751; Pfeiffer et al. 2021, arXiv:2005.00247; "
        "He et al. 2022, arXiv:2110.04366"
    )
    unequal = ("reduction_factor",)

    def supports(self, spec: ModelSpec) -> Support:
        """Any model with a feed-forward part in its transformer layers."""
        if _placements(spec):
            return Support()
        return Support(f"no feed-forward part was found in the layers of {spec.architecture}.")

    def search_space(self, spec: ModelSpec | None = None) -> SearchSpace:
        """Placement, size, non-linearity and layers; choices that coincide on this model are offered once."""
        placements = _placements(spec) if spec else ("houlsby", "pfeiffer", "parallel")
        layers = tuple(layer_groups(len(spec.layers) if spec else TYPICAL_DEPTH))
        return SearchSpace(
            {
                "placement": Categorical(choices=placements, default="pfeiffer"),
                "reduction_factor": Integer(low=2, high=64, default=16, log=True),
                "non_linearity": Categorical(choices=("relu", "gelu", "silu"), default="relu"),
                "layers": Categorical(choices=layers, default="all"),
            }
        )

    def training_space(self, spec: ModelSpec | None = None) -> SearchSpace:
        """Learning rates far above those of full fine-tuning; the default suits a few hundred rows."""
        return SearchSpace({"learning_rate": Float(low=1e-4, high=1e-2, default=4e-3, log=True)})

    def apply(self, model: nn.Module, params: Params, spec: ModelSpec) -> nn.Module:
        """Put adapters of width `hidden size / reduction_factor` (at least 1) on the chosen layers."""
        from autopeft_adapter.adapter import Bottleneck, ParallelAdapter, SequentialAdapter, Tap

        size = max(1, spec.hidden_size // int(params["reduction_factor"]))
        placement = str(params["placement"])
        roles = ("attention_output", "feed_forward_down") if placement == "houlsby" else ("feed_forward_down",)
        chosen = layer_groups(len(spec.layers))[str(params["layers"])]
        for linear in _linears(spec, chosen, *roles):
            base = model.get_submodule(linear.name)
            bottleneck = Bottleneck(
                linear.out_features, size, str(params["non_linearity"]), like=next(base.parameters())
            )
            if placement == "parallel":
                first = _linears(spec, (linear.layer,), "feed_forward_up")[0].name
                tap = Tap(model.get_submodule(first))
                model.set_submodule(first, tap)
                model.set_submodule(linear.name, ParallelAdapter(base, bottleneck, tap))
            else:
                model.set_submodule(linear.name, SequentialAdapter(base, bottleneck))
        return model

    def average(self, folds: Sequence[Mapping[str, Tensor]], params: Params, spec: ModelSpec) -> Mapping[str, Tensor]:
        """The mean of each tensor: folds start alike, so their hidden units correspond."""
        return mean_of(folds)

    def export(self, model: nn.Module, params: Params, spec: ModelSpec, library: str, folder: Path) -> Support:
        """For the `adapters` library; peft has no bottleneck adapter."""
        from autopeft_adapter.adapterhub import write

        if library != "adapterhub":
            return Support(f"{library} has no bottleneck adapter; use the format `adapterhub`.")
        return write(model, params, spec, folder)


def _placements(spec: ModelSpec) -> tuple[str, ...]:
    if not spec.modules("feed_forward_down"):
        return ()
    needs = {"houlsby": "attention_output", "pfeiffer": "feed_forward_down", "parallel": "feed_forward_up"}
    return tuple(placement for placement, role in needs.items() if spec.modules(role))


def _linears(spec: ModelSpec, layers: tuple[int, ...], *roles: str) -> list[LinearModule]:
    return [linear for linear in spec.linears if linear.layer in layers and linear.role in roles]
