"""AdaLoRA: a linear map W becomes W + scale · P Λ Q; training decides how many ranks each target keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from autopeft import (
    Bounds,
    Float,
    Integer,
    ModelSpec,
    Params,
    PeftMethod,
    SearchSpace,
    Support,
    TargetGroups,
    TrainingCallback,
)

if TYPE_CHECKING:
    from torch import nn

TARGETS = TargetGroups(("all_linear", "attention", "feed_forward", "query_value"))  # Zhang et al., section 4


class AdaLora(PeftMethod):
    """LoRA whose ranks move to the targets that need them most while it trains.

    Every target starts with the rank `initial_ratio · target_r`; in the end they have `target_r` on average.

    The memory of a step and the saved size are those of the initial ranks: a dropped rank stays, as zeros.
    """

    contract = 1
    name = "adalora"
    paper = "Zhang et al. 2023, arXiv:2303.10512"

    def supports(self, spec: ModelSpec) -> Support:
        """Any model with linear maps in its transformer layers."""
        return TARGETS.supports(spec)

    def search_space(self, spec: ModelSpec | None = None) -> SearchSpace:
        """Ranks, scale, targets, and the schedule: shares of the steps before and after ranks are dropped.

        Defaults of Zhang et al.: one and a half times the ranks at the start (section 4), and on MNLI the first 8,000
        and the last 50,000 of about 86,000 steps without a change of ranks (their appendix on training).
        """
        return SearchSpace(
            {
                "target_r": Integer(low=1, high=32, default=8, log=True),
                "initial_ratio": Float(low=1.25, high=3.0, default=1.5, bounds=Bounds(least=1, most=100)),
                "lora_alpha": Integer(low=1, high=128, default=32, log=True),
                "target_modules": TARGETS.dimension(spec),
                "lora_dropout": Float(low=0.0, high=0.3, default=0.0, bounds=Bounds(least=0, below=1)),
                "initial_share": Float(low=0.0, high=0.3, default=0.1, bounds=Bounds(least=0, most=1)),
                "final_share": Float(low=0.1, high=0.6, default=0.5, bounds=Bounds(least=0, most=1)),
                "orthogonality": Float(low=0.0, high=0.5, default=0.1),
            }
        )

    def training_space(self, spec: ModelSpec | None = None) -> SearchSpace:
        """Learning rates from Zhang et al.'s 5e-4 to 2e-3 upwards: P and Q start small and Λ at zero."""
        return SearchSpace({"learning_rate": Float(low=5e-4, high=3e-2, default=5e-3, log=True)})

    def apply(self, model: nn.Module, params: Params, spec: ModelSpec) -> nn.Module:
        """Wrap the targets with peft; the callback has the schedule, as the number of steps is not known yet."""
        from peft import AdaLoraConfig, get_peft_model

        linears = TARGETS.linears(spec, str(params["target_modules"]))
        names = [linear.name for linear in linears]
        config = AdaLoraConfig(
            target_r=int(params["target_r"]),
            init_r=_initial_rank(params),
            total_step=1,  # peft requires it; the callback uses its own copy of the config
            orth_reg_weight=0.0,  # the callback adds this loss
            lora_alpha=int(params["lora_alpha"]),
            lora_dropout=float(params["lora_dropout"]),
            target_modules=names,
            fan_in_fan_out=linears[0].transposed,
            modules_to_save=list(spec.head),
            task_type=spec.peft_task_type,
        )
        wrapped: nn.Module = get_peft_model(model, config)
        for name in names:
            layer: Any = model.get_submodule(name)
            layer.ranknum.to(layer.lora_A["default"].device).requires_grad_(False)  # peft leaves it on the CPU
        return wrapped

    def trained_params(self, params: Params, spec: ModelSpec) -> int:
        """P, Λ and Q of every target, at the initial rank."""
        targets = TARGETS.linears(spec, str(params["target_modules"]))
        return _initial_rank(params) * sum(linear.in_features + 1 + linear.out_features for linear in targets)

    def callback(self, model: nn.Module, params: Params, spec: ModelSpec) -> TrainingCallback:
        """The schedule of ranks of one fold."""
        from autopeft_adalora.schedule import RankSchedule

        shares = float(params["initial_share"]), float(params["final_share"])
        return RankSchedule(model, *shares, orthogonality=float(params["orthogonality"]))

    def merge(self, model: nn.Module) -> nn.Module:
        """W + scale · P Λ Q in place of each W."""
        plain: nn.Module = cast("Any", model).merge_and_unload()
        return plain


def _initial_rank(params: Params) -> int:
    target = int(params["target_r"])
    return max(target + 1, round(target * float(params["initial_ratio"])))
