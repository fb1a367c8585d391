"""What all methods have in common that build on the frozen adapters of earlier winners."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Self

from autopeft import LinearModule, ModelSpec, PeftMethod, Support, mean_of, saved_addons
from autopeft_fusion.sources import AdapterSources, Source, agreeing, facts_of, from_addon, from_facts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from autopeft import Params


class OnAdapters(PeftMethod):
    """A method that builds on the frozen adapters of earlier winners.

    A winner holds a copy of the adapters that it uses, so that the earlier winners are not needed again.
    """

    Options = AdapterSources
    sources: tuple[Source, ...] = ()

    def configured(self, options: Any, folder: Path) -> Self:
        """With the adapters that a study names."""
        setting = f"`sources` in [methods.{self.name}]"
        found = saved_addons(options.sources, folder, setting)
        method = super().configured(options, folder)
        method.sources = agreeing([from_addon(one, setting) for one in found], setting)
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
            return Support(
                f"it builds on winners of earlier studies; name some in `sources` under [methods.{self.name}]."
            )
        if not spec.modules("feed_forward_down"):
            return Support(f"no feed-forward part was found in the layers of {spec.architecture}.")
        answers = (source.fits(spec) for source in self.sources)
        return next((answer for answer in answers if not answer), Support())

    def average(self, folds: Sequence[Mapping[str, Tensor]], params: Params, spec: ModelSpec) -> Mapping[str, Tensor]:
        """The mean of each tensor: folds start alike."""
        return mean_of(folds)

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

    def sites(self, spec: ModelSpec, places: Iterable[int], layers: tuple[int, ...]) -> dict[LinearModule, list[int]]:
        """The maps in these layers that have an adapter behind them, each with the numbers of its sources.

        Args:
            spec: of the model.
            places: numbers of the sources that are used.
            layers: indices of the layers.
        """
        found: dict[LinearModule, list[int]] = {}
        for place in places:
            for site in self.sources[place].sites(spec, layers):
                found.setdefault(site, []).append(place)
        return found
