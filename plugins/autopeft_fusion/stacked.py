"""A new adapter on top of the frozen adapter of an earlier winner, or only a new head."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from autopeft_adapter import Adapter

from autopeft import Categorical, Float, ModelSpec, Params, SearchSpace
from autopeft_fusion.on_adapters import OnAdapters

if TYPE_CHECKING:
    from torch import nn

ALL, ONLY = "all", "only_"
ADAPTER, NONE = "adapter", "none"
OWN = ("own", ADAPTER)


class Stacked(OnAdapters):
    """A new adapter behind the frozen adapters of an earlier winner, or the mean of several; or only a new head.

    - `sources`: the winner whose adapters are used as they are, or `all`: the mean of what the adapters of all winners
      add.
    - `own`: whether a new adapter is trained behind each (MAD-X), or the head alone.
    """

    contract = 1
    name = "stacked"
    paper = "Pfeiffer et al. 2020 (MAD-X), arXiv:2005.00052"

    def search_space(self, spec: ModelSpec | None = None) -> SearchSpace:
        """The source, whether there is a new adapter, and its size, non-linearity and layers."""
        alone = [f"{ONLY}{source.name}" for source in self.sources] if len(self.sources) > 1 else []
        adapter = Adapter().search_space(spec)
        own = (ADAPTER, NONE) if spec is None or spec.head else (ADAPTER,)
        kept = {name: dimension for name, dimension in adapter.items() if name != "placement"}
        return SearchSpace(
            {
                "sources": Categorical(choices=(ALL, *alone), default=ALL),
                "own": Categorical(choices=own, default=ADAPTER),
                **{name: replace(dimension, when=OWN) for name, dimension in kept.items()},
            }
        )

    def training_space(self, spec: ModelSpec | None = None) -> SearchSpace:
        """The rates of adapters."""
        return SearchSpace({"learning_rate": Float(low=1e-4, high=1e-2, default=4e-3, log=True)})

    def apply(self, model: nn.Module, params: Params, spec: ModelSpec) -> nn.Module:
        """Put the frozen adapters behind their maps, and the new ones behind these."""
        from autopeft_fusion.fused import frozen_adapter
        from autopeft_fusion.summed import Summed

        places = self._chosen(params)
        for site, own in self.sites(spec, places, tuple(range(len(spec.layers)))).items():
            base = model.get_submodule(site.name)
            like = next(base.parameters())
            adapters = [frozen_adapter(self.sources[place], site, spec, like) for place in own]
            model.set_submodule(site.name, Summed(base, adapters, len(places)))
        if params["own"] == ADAPTER:
            return Adapter().apply(model, self._new(params), spec)
        for name in spec.head:
            model.get_submodule(name).requires_grad_(True)
        return model

    def _new(self, params: Params) -> Params:
        """The params of the new adapter, which is where those of the sources are."""
        kept = {name: params[name] for name in ("reduction_factor", "non_linearity", "layers")}
        return {"placement": self.sources[0].placement, **kept}

    def _chosen(self, params: Params) -> tuple[int, ...]:
        """The numbers of the sources that are used."""
        choice = params["sources"]
        return tuple(place for place, source in enumerate(self.sources) if choice in (ALL, f"{ONLY}{source.name}"))
