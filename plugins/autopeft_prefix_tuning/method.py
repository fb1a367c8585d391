"""Prefix-tuning: attention also sees a few trained keys and values in front of the input's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    from pathlib import Path

    from torch import Tensor, nn

TYPICAL_DEPTH = 12


class PrefixTuning(PeftMethod):
    """Trained keys and values before those of the tokens: `num_virtual_tokens` for each attention module.

    They are trained directly, or made by a small network.

    With `prefix_projection` a two-layer network of width `encoder_hidden_size` makes them. The network is trained, but
    only its output is saved, so such a candidate trains many times more parameters than it saves.

    Models of two stacks have prefixes in both, and in the attention from one to the other, like Li & Liang's BART.

    With a prefix in every layer, models that peft knows count the input's positions from the prefix's end, as peft
    does, so that peft can read what is saved. In all other cases the positions are those of pretraining.
    """

    contract = 1
    name = "prefix_tuning"
    paper = "Li & Liang 2021, arXiv:2101.00190; on chosen layers, Zhou et al. 2024, arXiv:2301.12132"

    def supports(self, spec: ModelSpec) -> Support:
        """Models whose attention can be replaced by a function of autopeft's."""
        from autopeft_prefix_tuning.places import attentions

        if not spec.has_attention_interface:
            return Support(
                f"{spec.architecture} computes attention itself instead of through transformers' attention "
                "interface, so a prefix cannot be added."
            )
        if not attentions(spec):
            return Support(f"no attention with heads of equal width was found in the layers of {spec.architecture}.")
        return Support()

    def search_space(self, spec: ModelSpec | None = None) -> SearchSpace:
        """Length of the prefix, whether a network makes it and how wide that is, and the layers that have a prefix."""
        layers = tuple(layer_groups(len(spec.layers) if spec else TYPICAL_DEPTH))
        return SearchSpace(
            {
                "num_virtual_tokens": Integer(low=2, high=64, default=16, log=True),
                "prefix_projection": Categorical(choices=(False, True), default=False),
                "encoder_hidden_size": Integer(
                    low=32, high=512, default=128, log=True, when=("prefix_projection", True)
                ),
                "layers": Categorical(choices=layers, default="all"),
            }
        )

    def training_space(self, spec: ModelSpec | None = None) -> SearchSpace:
        """Learning rates about ten times LoRA's for a prefix without a network.

        With `prefix_projection` they must be as low as LoRA's (at 5e-3 and above a MiniLM only learns the majority
        class), hence the wide range.
        """
        return SearchSpace({"learning_rate": Float(low=5e-4, high=5e-2, default=2e-2, log=True)})

    def apply(self, model: nn.Module, params: Params, spec: ModelSpec) -> nn.Module:
        """Give the attention modules of the chosen layers their prefixes."""
        from autopeft_prefix_tuning.peft_format import count_as_peft
        from autopeft_prefix_tuning.places import attentions
        from autopeft_prefix_tuning.prefix import CHILD, Network, Prefix, ProjectedPrefix, use_prefixes

        tokens = int(params["num_virtual_tokens"])
        chosen = layer_groups(len(spec.layers))[str(params["layers"])]
        network: Network | None = None
        for place in attentions(spec):
            if place.layer in chosen:
                module = model.get_submodule(place.name)
                device = next(module.parameters()).device
                if params["prefix_projection"]:
                    network = network or Network(tokens, int(params["encoder_hidden_size"]), place, device)
                    module.add_module(CHILD, ProjectedPrefix(network, place, device))
                else:
                    module.add_module(CHILD, Prefix.drawn(tokens, place, device))
        use_prefixes(model)
        count_as_peft(model, tokens, spec, len(chosen))
        return model

    def average(self, folds: Sequence[Mapping[str, Tensor]], params: Params, spec: ModelSpec) -> Mapping[str, Tensor]:
        """The mean of each tensor, including a network's."""
        return mean_of(folds)

    def save(self, model: nn.Module) -> Mapping[str, Tensor]:
        """The prefixes' keys and values as `<attention module>.prefix.states`, and the head's tensors."""
        from autopeft_prefix_tuning.prefix import prefixes

        found = prefixes(model)
        kept = {f"{name}.states": prefix()[0].detach() for name, prefix in found.items()}
        own = {id(parameter) for prefix in found.values() for parameter in prefix.parameters()}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and id(parameter) not in own:
                kept[name] = parameter.detach()
        return kept

    def load(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Put saved keys and values and the head's tensors in their places; this needs no network any more."""
        from autopeft_prefix_tuning.prefix import Prefix, prefixes

        for name, prefix in prefixes(model).items():
            states = tensors[f"{name}.states"].to(next(prefix.parameters()).device)
            model.set_submodule(name, Prefix(states))
        for name, parameter in model.named_parameters():
            if name in tensors:
                parameter.data.copy_(tensors[name])

    def export(self, model: nn.Module, params: Params, spec: ModelSpec, library: str, folder: Path) -> Support:
        """For peft, if its model would predict the same."""
        from autopeft_prefix_tuning.peft_format import write

        if library != "peft":
            return super().export(model, params, spec, library, folder)
        if write(model, self.save(model), folder):
            return Support()
        return Support(
            "peft's prefix-tuning needs a prefix in every layer, and a model type on which the two were compared, "
            'such as `layers = "all"` on a BERT.'
        )
