"""(IA)³: keys, values and the feed-forward part's inner activations, each scaled by a trained vector."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

from autopeft import Categorical, Float, ModelSpec, Params, PeftMethod, SearchSpace, Support, mean_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

KEY_VALUE = ("key", "value", "qkv")
GROUPS = {
    "key_value_feed_forward": (*KEY_VALUE, "feed_forward_down"),  # Liu et al., section 3.3
    "key_value": KEY_VALUE,
    "feed_forward": ("feed_forward_down",),
}
"""The values of `target_modules`, with the roles each stands for."""


class Ia3(PeftMethod):
    """One vector of ones per target: it scales a key's or value's output, and the last feed-forward map's input.

    If query, key and value are one map, all of its output is scaled. A query's scale multiplies the same products as
    its key's, so without rotary positions this adds parameters but the model can do no more.
    """

    contract = 1
    name = "ia3"
    paper = "Liu et al. 2022, arXiv:2205.05638"
    unequal = ()

    def supports(self, spec: ModelSpec) -> Support:
        """Any model with keys, values or a feed-forward part in its transformer layers."""
        if spec.groups(GROUPS):
            return Support()
        return Support(f"no key, value or feed-forward part was found in the layers of {spec.architecture}.")

    def search_space(self, spec: ModelSpec | None = None) -> SearchSpace:
        """What is scaled; groups that coincide on this model are offered once."""
        groups = tuple(spec.groups(GROUPS) if spec else GROUPS)
        return SearchSpace({"target_modules": Categorical(choices=groups, default=groups[0])})

    def training_space(self, spec: ModelSpec | None = None) -> SearchSpace:
        """Learning rates from Liu et al.'s 3e-3 (their appendix on training) upwards, and no weight decay.

        They train for a thousand steps; a few hundred rows give fewer, hence the higher default. Decay would pull the
        vectors from one, where they change nothing, to zero, where they switch off what they scale.
        """
        return SearchSpace(
            {
                "learning_rate": Float(low=1e-3, high=1e-1, default=1e-2, log=True),
                "weight_decay": Float(low=0.0, high=0.0, default=0.0),
            }
        )

    def apply(self, model: nn.Module, params: Params, spec: ModelSpec) -> nn.Module:
        """Wrap the targets with peft; the head goes through peft too, so that peft saves it."""
        from peft import IA3Config, get_peft_model
        from peft.tuners.ia3 import Linear

        names = spec.groups(GROUPS)[str(params["target_modules"])]
        inner = spec.modules("feed_forward_down")
        config = IA3Config(
            target_modules=list(names),
            feedforward_modules=[name for name in names if name in inner],
            fan_in_fan_out=next(linear.transposed for linear in spec.linears if linear.name in names),
            modules_to_save=list(spec.head),
            task_type=spec.peft_task_type,
        )
        wrapped: nn.Module = get_peft_model(model, config)
        for module in wrapped.modules():
            if type(module) is Linear:
                cast("Any", module).forward_packed = partial(_packed, module)
        return wrapped

    def average(self, folds: Sequence[Mapping[str, Tensor]], params: Params, spec: ModelSpec) -> Mapping[str, Tensor]:
        """The mean of each vector, which gives the mean of the scaled values."""
        return mean_of(folds)

    def merge(self, model: nn.Module) -> nn.Module:
        """Every W and its bias, multiplied by the vector."""
        plain: nn.Module = cast("Any", model).merge_and_unload()
        return plain


def _packed(layer: Any, x: Tensor, folds: int) -> Tensor:
    """Run peft's layer on the rows of several folds, one fold after the other, each scaled by its fold's vector.

    A scaling is so fast that mapping it over the folds would cost several times as much.
    """

    def scaled(rows: Tensor) -> Tensor:
        (name,) = layer.active_adapters
        per_fold = layer.ia3_l[name].reshape(folds, *[1] * (rows.ndim - 1), -1)
        result: Tensor = rows.reshape(folds, -1, *rows.shape[1:]) * per_fold
        return result.to(rows.dtype).flatten(0, 1)

    result: Tensor = layer.base_layer(scaled(x)) if layer.is_feedforward else scaled(layer.base_layer(x))
    return result
