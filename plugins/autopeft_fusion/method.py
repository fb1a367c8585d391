"""AdapterFusion: trained attention over the frozen adapters of earlier winners."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopeft import (
    Categorical,
    Float,
    LinearModule,
    ModelSpec,
    ParameterGroup,
    Params,
    SearchSpace,
    Support,
    layer_groups,
)
from autopeft_fusion.on_adapters import OnAdapters

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from torch import nn

    from autopeft import ReportSection, TrainingRows
    from autopeft_fusion.penalty import ValuePenalty

TYPICAL_DEPTH = 12
ALL, WITHOUT, ONLY = "all", "without_", "only_"
FEW = 3
"""With this many sources, each of them alone is a choice too, so that every subset is one."""

HEAD_RATE = 30.0
"""The head's learning rate, as a multiple of the fusion's: it starts from random values, and the fusion close to the
mean of its sources. On two draws of 100 rows of ten classes, a small encoder scored 5 points and 1 point higher than
with a multiple of 10."""


class Fusion(OnAdapters):
    """Attention over the frozen adapters of earlier winners, trained for a new task (AdapterFusion)."""

    contract = 1
    name = "fusion"
    paper = "Pfeiffer et al. 2021, arXiv:2005.00247"

    def search_space(self, spec: ModelSpec | None = None) -> SearchSpace:
        """Which sources, whether their values are transformed, dropout of the attention, and the layers."""
        groups = layer_groups(len(spec.layers) if spec else TYPICAL_DEPTH)
        choices = [one for one in self._choices if not spec or self._sites(spec, one, groups[ALL])]
        layers = [
            name
            for name, indices in groups.items()
            if not spec or all(self._sites(spec, choice, indices) for choice in choices)
        ]
        return SearchSpace(
            {
                "sources": Categorical(choices=tuple(choices) or (ALL,), default=ALL),
                "values": Categorical(choices=("dynamic", "static"), default="dynamic"),
                "dropout": Float(low=0.0, high=0.3, default=0.0),
                "layers": Categorical(choices=tuple(layers) or (ALL,), default=ALL),
            }
        )

    def training_space(self, spec: ModelSpec | None = None) -> SearchSpace:
        """The rate of the fusion; the paper's is 5e-5 for much longer training."""
        return SearchSpace({"learning_rate": Float(low=1e-5, high=1e-3, default=3e-4, log=True)})

    def apply(self, model: nn.Module, params: Params, spec: ModelSpec) -> nn.Module:
        """Put a fusion behind every map where at least one chosen source has an adapter."""
        from autopeft_fusion.fused import Fused, frozen_adapter

        layers = layer_groups(len(spec.layers))[str(params["layers"])]
        for site, places in self._sites(spec, str(params["sources"]), layers).items():
            base = model.get_submodule(site.name)
            adapters = [frozen_adapter(self.sources[place], site, spec, next(base.parameters())) for place in places]
            fused = Fused(
                base,
                adapters,
                places,
                site.out_features,
                values=params["values"] == "dynamic",
                dropout=float(params["dropout"]),
            )
            model.set_submodule(site.name, fused)
        return model

    def trained_params(self, params: Params, spec: ModelSpec) -> int:
        """Three square maps, or two without values, and two biases for each fusion."""
        layers = layer_groups(len(spec.layers))[str(params["layers"])]
        squares = 3 if params["values"] == "dynamic" else 2
        sites = self._sites(spec, str(params["sources"]), layers)
        return sum(squares * site.out_features**2 + 2 * site.out_features for site in sites)

    def parameter_groups(
        self, trained: Mapping[str, tuple[int, ...]], params: Params, spec: ModelSpec
    ) -> Iterable[ParameterGroup]:
        """The head, which learns faster."""
        head = tuple(name for name in trained if any(f".{part}." in f".{name}." for part in spec.head))
        return [ParameterGroup(head, rate=HEAD_RATE)] if head else []

    def callback(self, model: nn.Module, params: Params, spec: ModelSpec) -> ValuePenalty:
        """The penalty on values."""
        from autopeft_fusion.penalty import ValuePenalty

        return ValuePenalty(model)

    def sections(
        self, model: nn.Module, batches: Iterable[TrainingRows], params: Params, spec: ModelSpec
    ) -> Sequence[ReportSection]:
        """The attention to each source in each layer."""
        from autopeft_fusion.report import sections

        return sections(model, batches, [source.name for source in self.sources], spec)

    def variants(self, model: nn.Module, params: Params, spec: ModelSpec) -> Mapping[str, AbstractContextManager[None]]:
        """The winner without each of its sources, if it has several."""
        from autopeft_fusion.fused import fusions, without

        modules, chosen = list(fusions(model).values()), self._chosen(str(params["sources"]))
        if len(chosen) == 1:
            return {}
        return {f"without {self.sources[place].name}": without(modules, place) for place in chosen}

    def export(self, model: nn.Module, params: Params, spec: ModelSpec, library: str, folder: Path) -> Support:
        """For the `adapters` library; peft has no fusion."""
        from autopeft_fusion.adapterhub import write

        if library != "adapterhub":
            return Support(f"{library} has no fusion of adapters; use the format `adapterhub`.")
        return write(model, params, spec, self.sources, folder)

    @property
    def _choices(self) -> tuple[str, ...]:
        """The choices of the dimension `sources`."""
        names = [source.name for source in self.sources] or ["NAME"]
        if len(self.sources) == 1:
            return (ALL,)
        alone = [f"{ONLY}{name}" for name in names] if len(names) == FEW else []
        return (ALL, *(f"{WITHOUT}{name}" for name in names), *alone)

    def _chosen(self, choice: str) -> tuple[int, ...]:
        """The numbers of the sources that a choice names."""
        everything = tuple(range(len(self.sources)))
        if choice == ALL:
            return everything
        if choice.startswith(ONLY):
            return tuple(place for place in everything if f"{ONLY}{self.sources[place].name}" == choice)
        return tuple(place for place in everything if f"{WITHOUT}{self.sources[place].name}" != choice)

    def _sites(self, spec: ModelSpec, choice: str, layers: tuple[int, ...]) -> dict[LinearModule, list[int]]:
        """The maps to put a fusion behind, each with the numbers of the sources that have an adapter there."""
        return self.sites(spec, self._chosen(choice), layers)
