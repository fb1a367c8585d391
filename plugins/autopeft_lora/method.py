"""Low-rank adaptation: a frozen linear map W becomes W + scale · B A, with only A and B trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

from autopeft import (
    Bounds,
    Categorical,
    Float,
    Integer,
    ModelSpec,
    ParameterGroup,
    Params,
    PeftMethod,
    SearchSpace,
    Support,
    TargetGroups,
    TrainingRows,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor, nn

TARGETS = TargetGroups()  # "query_value" first: Hu et al.'s choice
RATIO, INITIAL = "loraplus_lr_ratio", "init_lora_weights"
DEFAULT, GAUSSIAN, ORTHOGONAL = "default", "gaussian", "orthogonal"
SUBTRACTED = ("pissa", "pissa_niter_4", "olora")
"""First values whose product is not zero and is subtracted again."""

EVA, LOFTQ = "eva", "loftq"
"""First values that depend on training rows, and on quantization."""

QUANTIZED = 'it makes up for what 4 bits lose of the weights; set `quantization = "4bit"` in [model], or leave it out.'


class Lora(PeftMethod):
    """LoRA on one of four groups of linear maps, scaled by lora_alpha / r, or by lora_alpha / √r with `use_rslora`.

    The groups are resolved to full module names from the model's description, so no table of model types is needed.

    Two dimensions are optional: `loraplus_lr_ratio`, how many times faster B learns than everything else (LoRA+), and
    `init_lora_weights`, the first values, by peft's names (`initial.py`, `activations.py`).
    """

    contract = 1
    name = "lora"
    paper = (
        "Hu et al. 2021, arXiv:2106.09685; rsLoRA: Kalajdzievski 2023, arXiv:2312.03732; LoRA+: Hayou et al. 2024, "
        "arXiv:2402.12354"
    )
    unequal = ("r", "lora_alpha", "lora_dropout", "use_rslora", RATIO)
    decomposes: ClassVar[bool] = False
    """Whether the sum is split into length and direction."""

    def supports(self, spec: ModelSpec) -> Support:
        """Any model with linear maps in its transformer layers."""
        return TARGETS.supports(spec)

    def search_space(self, spec: ModelSpec | None = None) -> SearchSpace:
        """Rank, scale, targets and dropout; target groups that coincide on this model are offered once."""
        in_4_bits = spec is None or spec.quantization == "4bit"
        first = (DEFAULT, GAUSSIAN, ORTHOGONAL, *SUBTRACTED, EVA, *[LOFTQ] * in_4_bits)
        return SearchSpace(
            {
                "r": Integer(low=1, high=64, default=8, log=True),
                "lora_alpha": Integer(low=1, high=128, default=16, log=True),
                "target_modules": TARGETS.dimension(spec),
                "lora_dropout": Float(low=0.0, high=0.3, default=0.0, bounds=Bounds(least=0, below=1)),
                "use_rslora": Categorical(choices=(False, True), default=False),
                RATIO: Float(low=1, high=16, default=1, log=True, bounds=Bounds(above=0, most=1000), optional=True),
                INITIAL: Categorical(
                    choices=first, default=DEFAULT, optional=True, refused=() if in_4_bits else ((LOFTQ, QUANTIZED),)
                ),
            }
        )

    def training_space(self, spec: ModelSpec | None = None) -> SearchSpace:
        """Learning rates far above those of full fine-tuning; the default suits a few hundred rows."""
        return SearchSpace({"learning_rate": Float(low=1e-4, high=1e-2, default=3e-3, log=True)})

    def apply(self, model: nn.Module, params: Params, spec: ModelSpec) -> nn.Module:
        """Wrap the targets with peft; the head goes through peft too, so that peft saves it."""
        from peft import LoraConfig, get_peft_model

        linears = TARGETS.linears(spec, str(params["target_modules"]))
        names = [linear.name for linear in linears]
        how = str(params.get(INITIAL, DEFAULT))
        own: dict[str, Any] = {name: value for name, value in params.items() if name != RATIO}
        own |= {"target_modules": names, INITIAL: GAUSSIAN if how == GAUSSIAN else True}
        if how in SUBTRACTED:  # of twice the rank, at the same scale
            own["r"] = 2 * int(params["r"])
            own["lora_alpha"] = int(params["lora_alpha"]) * (2**0.5 if params.get("use_rslora") else 2)
        config = LoraConfig(
            **own,
            fan_in_fan_out=linears[0].transposed,
            use_dora=self.decomposes,
            modules_to_save=list(spec.head),
            task_type=spec.peft_task_type,
        )
        wrapped: nn.Module = get_peft_model(model, config)
        if how not in (DEFAULT, GAUSSIAN, EVA):
            from autopeft_lora import initial

            initial.start(map(model.get_submodule, names), how, int(params["r"]))
        return wrapped

    def initial_values(
        self, model: nn.Module, batches: Iterable[TrainingRows], params: Params, spec: ModelSpec
    ) -> Mapping[str, Tensor]:
        """With `eva`, A from the targets' inputs; else nothing."""
        if params.get(INITIAL, DEFAULT) != EVA:
            return {}
        from autopeft_lora import activations

        linears = TARGETS.linears(spec, str(params["target_modules"]))
        return activations.first_values(model, batches, linears, spec, int(params["r"]))

    def parameter_groups(
        self, trained: Mapping[str, tuple[int, ...]], params: Params, spec: ModelSpec
    ) -> tuple[ParameterGroup, ...]:
        """A group of all B, if B learns faster; the head learns as fast as A."""
        ratio = float(params.get(RATIO, 1))
        names = tuple(name for name in trained if ".lora_B." in name)
        return (ParameterGroup(names, rate=ratio),) if ratio != 1 else ()

    def factors(self, trained: Iterable[str], params: Params, spec: ModelSpec) -> Mapping[str, float]:
        """The scale of every B; for pairs that are subtracted too, since both are scaled alike."""
        rank = int(params["r"])
        scale = int(params["lora_alpha"]) / (rank**0.5 if params.get("use_rslora") else rank)
        return {name: scale for name in trained if ".lora_B." in name}

    def trained_params(self, params: Params, spec: ModelSpec) -> int:
        """A and B of every target, and DoRA's lengths."""
        targets = TARGETS.linears(spec, str(params["target_modules"]))
        lengths = sum(linear.out_features for linear in targets) if self.decomposes else 0
        return int(params["r"]) * sum(linear.in_features + linear.out_features for linear in targets) + lengths

    def average(
        self, folds: Sequence[Mapping[str, Tensor]], params: Params, spec: ModelSpec
    ) -> Mapping[str, Tensor] | None:
        """For each pair, the product of its rank that is nearest to the mean of the products; None for DoRA."""
        if self.decomposes:
            return None
        from autopeft_lora.mean import mean_of_products

        return mean_of_products(folds)

    def merge(self, model: nn.Module) -> nn.Module:
        """W + scale · B A in place of each W."""
        from autopeft_lora import initial

        initial.as_plain(model)
        plain: nn.Module = cast("Any", model).merge_and_unload()
        return plain


class Dora(Lora):
    """LoRA of the direction alone: each row of W + scale · B A is scaled to a length of its own, which trains too.

    It is a method and not a setting of LoRA, since a step takes far more time and memory (it computes every target's
    full weight), and its folds are packed in another way.
    """

    contract = 1
    name = "dora"
    paper = "Liu et al. 2024, arXiv:2402.09353"
    decomposes = True
