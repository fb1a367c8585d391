"""LoRAs of earlier winners, merged into one for a new task."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Annotated, Any, Self, cast

from pydantic import BeforeValidator, Field

from autopeft import (
    Bounds,
    Categorical,
    Float,
    ModelSpec,
    Params,
    PeftMethod,
    SearchSpace,
    Section,
    Support,
    saved_addons,
)
from autopeft_lora.sources import MOST_SOURCES, WHERE, Source, facts_of, from_addon, from_facts, maps_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

ALL, ONLY = "all", "only_"
CAT = "cat"
OF_SUMS, OF_MEANS = (CAT, "linear", "dare_linear"), ("ties", "dare_ties")
"""Combinations that add the weighted sources, and those that take a mean of them, place by place; by peft's names."""

DROPPING = ("ties", "dare_linear", "dare_ties")
"""Those that drop a share of the values first."""

HEAD, WHOLE = "head", "add_on"


class MergedOptions(Section):
    """Which LoRAs are merged."""

    sources: Annotated[
        list[Annotated[str, Field(min_length=1)]],
        BeforeValidator(lambda given: [given] if isinstance(given, str) else given),
        Field(min_length=1, max_length=MOST_SOURCES),
    ]
    """Winners of the method `lora` on the same base model: the output folders of their studies, or saved winners."""


class Merged(PeftMethod):
    """The LoRAs of earlier winners, merged with weights that are searched; only the head is trained, or the result too.

    `weight_1`, `weight_2`, … belong to the sources in their order. The mean of the sources has all weights at 1: a
    combination that adds the sources divides the weights by their number, and one that takes a mean does not.
    """

    contract = 1
    name = "merged"
    paper = (
        "LoRAHub: Huang et al. 2023, arXiv:2307.13269; TIES: Yadav et al. 2023, arXiv:2306.01708; DARE: Yu et al. "
        "2023, arXiv:2311.03099"
    )
    Options = MergedOptions
    sources: tuple[Source, ...] = ()

    def configured(self, options: Any, folder: Path) -> Self:
        """With the LoRAs that a study names."""
        found = saved_addons(options.sources, folder, WHERE)
        method = super().configured(options, folder)
        method.sources = tuple(from_addon(one) for one in found)
        return method

    def facts(self) -> Mapping[str, Any]:
        """The structure of the sources, and the SHA-256 of the file of each."""
        return facts_of(self.sources) if self.sources else {}

    def knowing(self, facts: Mapping[str, Any]) -> Self:
        """With sources whose merged tensors will be loaded."""
        method = copy.copy(self)
        method.sources = from_facts(facts)
        return method

    def example(self) -> Self:
        """With two made-up sources of different structure."""
        method = copy.copy(self)
        method.sources = Source("first", 2, 2.0, "query_value"), Source("second", 4, 1.0, "all_linear")
        return method

    def supports(self, spec: ModelSpec) -> Support:
        """The model on which all sources were trained."""
        if not self.sources:
            return Support("it merges winners of earlier studies; name some in `sources` under [methods.merged].")
        if not any(source.linears(spec) for source in self.sources):
            return Support(f"no linear layer of the sources was found in the layers of {spec.architecture}.")
        answers = (source.fits(spec) for source in self.sources)
        return next((answer for answer in answers if not answer), Support())

    def search_space(self, spec: ModelSpec | None = None) -> SearchSpace:
        """All sources or a single one, how they are combined, their weights, and what is trained."""
        count = len(self.sources)
        alone = [f"{ONLY}{source.name}" for source in self.sources] if count > 1 else []
        trained = (WHOLE,) if spec and not spec.head else (HEAD, WHOLE)
        several = ("sources", ALL)
        return SearchSpace(
            {
                "sources": Categorical(choices=(ALL, *alone), default=ALL),
                "combination": Categorical(choices=(*OF_SUMS, *OF_MEANS), default=CAT, when=several),
                **{
                    weight_of(place): Float(low=-1.0, high=3.0, default=1.0, when=several)
                    for place in range(count or 1)
                },
                "density": Float(
                    low=0.1, high=0.9, default=0.5, bounds=Bounds(above=0, below=1), when=("combination", DROPPING)
                ),
                "trained": Categorical(choices=trained, default=trained[0]),
            }
        )

    def training_space(self, spec: ModelSpec | None = None) -> SearchSpace:
        """The rates of LoRA, which suit a new head too."""
        return SearchSpace({"learning_rate": Float(low=1e-4, high=1e-2, default=3e-3, log=True)})

    def apply(self, model: nn.Module, params: Params, spec: ModelSpec) -> nn.Module:
        """Put the merged LoRA on the model with peft, at scale 1, so that it is an ordinary LoRA."""
        from peft import LoraConfig, get_peft_model

        from autopeft_lora.initial import ADAPTER
        from autopeft_lora.merging import merged

        sources = self._chosen(params)
        linears, rank = maps_of(sources, spec), self._rank(params)
        config = LoraConfig(
            r=rank,
            lora_alpha=rank,
            target_modules=[linear.name for linear in linears],
            fan_in_fan_out=linears[0].transposed,
            modules_to_save=list(spec.head),
            task_type=spec.peft_task_type,
        )
        wrapped: nn.Module = get_peft_model(model, config)
        layers = {linear.name: cast("Any", model.get_submodule(linear.name)) for linear in linears}
        if next(iter(layers.values())).lora_A[ADAPTER].weight.device.type != "meta":
            combination, weights = str(params.get("combination", CAT)), self._weights(params)
            density = float(params["density"]) if "density" in params else None
            for name, (down, up) in merged(sources, spec, weights, combination, density).items():
                layers[name].lora_A[ADAPTER].weight.data.copy_(down)
                layers[name].lora_B[ADAPTER].weight.data.copy_(up)
        for name, parameter in wrapped.named_parameters():
            if ".lora_" in name:
                parameter.requires_grad_(params["trained"] == WHOLE)
        return wrapped

    def trained_params(self, params: Params, spec: ModelSpec) -> int:
        """A and B of every map, if they are trained."""
        if params["trained"] == HEAD:
            return 0
        linears = maps_of(self._chosen(params), spec)
        return self._rank(params) * sum(linear.in_features + linear.out_features for linear in linears)

    def average(self, folds: Sequence[Mapping[str, Tensor]], params: Params, spec: ModelSpec) -> Mapping[str, Tensor]:
        """For each pair, the product of its rank that is nearest to the mean of the products; else the mean."""
        from autopeft_lora.mean import mean_of_products

        return mean_of_products(folds)

    def merge(self, model: nn.Module) -> nn.Module:
        """W + B A in place of each W."""
        plain: nn.Module = cast("Any", model).merge_and_unload()
        return plain

    def _chosen(self, params: Params) -> tuple[Source, ...]:
        """The sources that params name."""
        choice = params["sources"]
        return self.sources if choice == ALL else tuple(one for one in self.sources if f"{ONLY}{one.name}" == choice)

    def _rank(self, params: Params) -> int:
        """The rank of the merged pairs."""
        ranks = [source.rank for source in self._chosen(params)]
        return sum(ranks) if params.get("combination", CAT) == CAT else max(ranks)

    def _weights(self, params: Params) -> list[float]:
        """The weights, as peft takes them, of the chosen sources; a single one is taken as it is."""
        if params["sources"] != ALL:
            return [1.0]
        share = 1.0 if params["combination"] in OF_MEANS else 1 / len(self.sources)
        return [share * float(params[weight_of(place)]) for place in range(len(self.sources))]


def weight_of(place: int) -> str:
    """The dimension of the weight of a source, by its number among the sources."""
    return f"weight_{place + 1}"
