"""AdapterFusion: trained attention over the frozen adapters of earlier winners."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BeforeValidator, Field

from autopeft import (
    Categorical,
    Float,
    LinearModule,
    ModelSpec,
    ParameterGroup,
    Params,
    PeftMethod,
    SearchSpace,
    Section,
    Support,
    layer_groups,
    mean_of,
    saved_addons,
)
from autopeft_fusion.sources import MOST_SOURCES, Source, agreeing, facts_of, from_addon, from_facts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from torch import Tensor, nn

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


class FusionOptions(Section):
    """Which adapters are fused."""

    sources: Annotated[
        list[Annotated[str, Field(min_length=1)]],
        BeforeValidator(lambda given: [given] if isinstance(given, str) else given),
        Field(min_length=1, max_length=MOST_SOURCES),
    ]
    """Winners of the method `adapter` on the same base model, with one placement (`pfeiffer` or `houlsby`): the output
    folders of their studies, or saved winners."""


class Fusion(PeftMethod):
    """Attention over the frozen adapters of earlier winners, trained for a new task (AdapterFusion).

    A winner holds a copy of the adapters that it uses, so that the earlier winners are not needed again.
    """

    contract = 1
    name = "fusion"
    paper = "Pfeiffer et al. 2021, arXiv:2005.00247"
    Options = FusionOptions
    sources: tuple[Source, ...] = ()

    def configured(self, options: Any, folder: Path) -> Self:
        """With the adapters that a study names."""
        found = saved_addons(options.sources, folder, "`sources` in [methods.fusion]")
        method = super().configured(options, folder)
        method.sources = agreeing([from_addon(one) for one in found])
        return method

    def facts(self) -> Mapping[str, Any]:
        """The structure of the sources, and the SHA-256 of the file of each."""
        return facts_of(self.sources) if self.sources else {}

    def knowing(self, facts: Mapping[str, Any]) -> Self:
        """With sources whose tensors will be loaded."""
        method = copy.copy(self)
        method.sources = from_facts(facts)
        return method

    def example(self) -> Self:
        """With three made-up sources of different structure."""
        method = copy.copy(self)
        method.sources = (
            Source("first", "pfeiffer", 4, "relu", "all"),
            Source("second", "pfeiffer", 8, "gelu", "all"),
            Source("third", "pfeiffer", 4, "silu", "top_half"),
        )
        return method

    def supports(self, spec: ModelSpec) -> Support:
        """The model on which all sources were trained."""
        if not self.sources:
            return Support("it fuses winners of earlier studies; name some in `sources` under [methods.fusion].")
        if not spec.modules("feed_forward_down"):
            return Support(f"no feed-forward part was found in the layers of {spec.architecture}.")
        answers = (source.fits(spec) for source in self.sources)
        return next((answer for answer in answers if not answer), Support())

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
        import torch

        from autopeft_fusion.fused import Fused, SourceAdapter

        given = {place: self.sources[place].tensors() for place in self._chosen(str(params["sources"]))}
        layers = layer_groups(len(spec.layers))[str(params["layers"])]
        for site, places in self._sites(spec, str(params["sources"]), layers).items():
            base = model.get_submodule(site.name)
            like, adapters = next(base.parameters()), []
            for place in places:
                source = self.sources[place]
                adapter = SourceAdapter(site.out_features, source.width(spec), source.non_linearity, like)
                if given[place] and like.device.type != "meta":
                    for name, parameter in adapter.named_parameters():
                        parameter.data.copy_(torch.from_numpy(given[place][f"{site.name}.adapter.{name}"]))
                adapters.append(adapter)
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

    def average(self, folds: Sequence[Mapping[str, Tensor]], params: Params, spec: ModelSpec) -> Mapping[str, Tensor]:
        """The mean of each tensor: folds start alike."""
        return mean_of(folds)

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

    def save(self, model: nn.Module) -> Mapping[str, Tensor]:
        """What is trained, and the sources, so that they are not needed again."""
        return {
            name: parameter.detach()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad or ".sources." in name
        }

    def load(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Fill what is trained, and the sources."""
        for name, tensor in tensors.items():
            model.get_parameter(name).data.copy_(tensor)

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
        found: dict[LinearModule, list[int]] = {}
        for place in self._chosen(choice):
            for site in self.sources[place].sites(spec, layers):
                found.setdefault(site, []).append(place)
        return found
