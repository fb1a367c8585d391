"""VeRA: a linear map W becomes W + Λb B Λd A; A and B are random, frozen and shared, and only the diagonals train."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from autopeft import Bounds, Float, Integer, ModelSpec, Params, PeftMethod, SearchSpace, Support, TargetGroups

if TYPE_CHECKING:
    import torch
    from torch import nn

TARGETS = TargetGroups()  # "query_value" first: Kopiczko et al. on RoBERTa

PROJECTION_SEED = 0
"""Seed of A and B: the same for every trial, so that no trial has a luckier draw."""


class Vera(PeftMethod):
    """LoRA with random matrices that all targets share; only two vectors per target are trained.

    These are `r + out_features` trained numbers per target, instead of LoRA's `r · (in_features + out_features)`.

    A and B have the shape of the largest target, and smaller ones use a corner of them. They are saved with a winner,
    so its size grows with r, although the number of trained parameters hardly does.
    """

    contract = 1
    name = "vera"
    paper = "Kopiczko et al. 2024, arXiv:2310.11454"
    unequal = ("d_initial", "vera_dropout")

    def supports(self, spec: ModelSpec) -> Support:
        """Any model with linear maps in its transformer layers."""
        return TARGETS.supports(spec)

    def search_space(self, spec: ModelSpec | None = None) -> SearchSpace:
        """Rank, first value of Λd, targets and dropout; groups that coincide on this model are offered once.

        The defaults are peft's. Kopiczko et al. use ranks of 256 to 1024, and find first values of at most 0.1 better
        than 1.
        """
        return SearchSpace(
            {
                "r": Integer(low=16, high=1024, default=256, log=True),
                "d_initial": Float(low=1e-3, high=1.0, default=0.1, log=True),
                "target_modules": TARGETS.dimension(spec),
                "vera_dropout": Float(low=0.0, high=0.3, default=0.0, bounds=Bounds(least=0, below=1)),
            }
        )

    def training_space(self, spec: ModelSpec | None = None) -> SearchSpace:
        """Learning rates about ten times LoRA's, as in Kopiczko et al. (up to 1e-2 and above)."""
        return SearchSpace({"learning_rate": Float(low=1e-3, high=1e-1, default=1e-2, log=True)})

    def apply(self, model: nn.Module, params: Params, spec: ModelSpec) -> nn.Module:
        """Wrap the targets with peft; the head goes through peft too, so that peft saves it."""
        from peft import VeraConfig, get_peft_model

        linears = TARGETS.linears(spec, str(params["target_modules"]))
        names = [linear.name for linear in linears]
        config = VeraConfig(
            **{**params, "target_modules": names},
            projection_prng_key=PROJECTION_SEED,
            save_projection=True,  # a winner must not depend on the random generator of another torch
            fan_in_fan_out=linears[0].transposed,
            modules_to_save=list(spec.head),
            task_type=spec.peft_task_type,
        )
        wrapped: nn.Module = get_peft_model(model, config)
        for name in names:
            model.get_submodule(name).register_forward_hook(_in_product_precision)
        return wrapped

    def trained_params(self, params: Params, spec: ModelSpec) -> int:
        """Both diagonals of every target."""
        targets = TARGETS.linears(spec, str(params["target_modules"]))
        return sum(int(params["r"]) + linear.out_features for linear in targets)

    def merge(self, model: nn.Module) -> nn.Module:
        """W + Λb B Λd A in place of each W."""
        plain: nn.Module = cast("Any", model).merge_and_unload()
        return plain


def _in_product_precision(module: nn.Module, args: object, output: torch.Tensor) -> torch.Tensor:
    """The output in autocast's precision; peft's layer returns its input's precision, with which DeBERTa fails."""
    import torch

    device = output.device.type
    return output.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else output
