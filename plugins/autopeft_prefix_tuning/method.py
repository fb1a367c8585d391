"""Prefix-tuning: every attention layer also attends to a few trained keys and values in front of the input's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopeft import Categorical, Float, Integer, ModelSpec, Params, PeftMethod, SearchSpace, Support

if TYPE_CHECKING:
    from torch import nn


class PrefixTuning(PeftMethod):
    """`num_virtual_tokens` keys and values per layer, trained directly or as the output of a small network.

    With `prefix_projection` a two-layer network of width `encoder_hidden_size` produces them. It is trained, but only
    its output is saved, so such a candidate trains many times the parameters it saves.
    """

    contract = 1
    name = "prefix_tuning"
    paper = "Li & Liang 2021, arXiv:2101.00190"

    def supports(self, spec: ModelSpec) -> Support:
        """Models with one stack of layers whose forward pass takes keys and values computed before."""
        if not spec.has_past_key_values:
            return Support(
                f"the forward pass of {spec.architecture} takes no past_key_values, so there is no way in for a prefix."
            )
        if len({layer.rpartition(".")[0] for layer in spec.layers}) > 1:
            return Support(f"{spec.architecture} has several stacks of layers, and a prefix here reaches only one.")
        return Support()

    def search_space(self, spec: ModelSpec | None = None) -> SearchSpace:
        """Length of the prefix and whether, and how wide, a network produces it."""
        return SearchSpace(
            {
                "num_virtual_tokens": Integer(low=2, high=64, default=16, log=True),
                "prefix_projection": Categorical(choices=(False, True), default=False),
                "encoder_hidden_size": Integer(
                    low=32, high=512, default=128, log=True, when=("prefix_projection", True)
                ),
            }
        )

    def training_space(self, spec: ModelSpec | None = None) -> SearchSpace:
        """Learning rates some ten times LoRA's for a bare prefix.

        With `prefix_projection` they must be as low as LoRA's (at 5e-3 and above a MiniLM stays at the majority
        class), hence the wide range.
        """
        return SearchSpace({"learning_rate": Float(low=5e-4, high=5e-2, default=2e-2, log=True)})

    def apply(self, model: nn.Module, params: Params, spec: ModelSpec) -> nn.Module:
        """Wrap the model with peft, which reads heads and widths, grouped keys and values too, from its config."""
        from peft import PrefixTuningConfig, get_peft_model

        config = PrefixTuningConfig(**params, modules_to_save=list(spec.head), task_type=spec.peft_task_type)
        wrapped: nn.Module = get_peft_model(model, config)
        return wrapped
