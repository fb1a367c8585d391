"""BitFit: only the biases that the base model already has are trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autopeft import Categorical, Float, ModelSpec, Params, PeftMethod, SearchSpace, Support, mean_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

ROLES = {
    "query_feed_forward": ("query", "qkv", "feed_forward_up"),
    "attention": ("query", "key", "value", "qkv", "attention_output"),
    "feed_forward": ("feed_forward_up", "feed_forward_down"),
}
"""The values of `biases` besides "all", with the roles of the linear maps whose biases they stand for."""


class BitFit(PeftMethod):
    """Trained biases: every bias of the base model, including those of its norms, or only those of some linear maps.

    Ben Zaken et al. found that the biases of `query_feed_forward` change most, and trained these alone, at half the
    parameters: b_q and b_m2, the biases of the query and of the map into the feed-forward part. If query, key and value
    are one map, it is the bias of the three.
    """

    contract = 1
    name = "bitfit"
    paper = "Ben Zaken et al. 2022, arXiv:2106.10199"
    unequal = ()

    def supports(self, spec: ModelSpec) -> Support:
        """Models whose transformer layers have linear maps with a bias."""
        if any(linear.bias for linear in spec.linears):
            return Support()
        return Support(f"the linear maps in the layers of {spec.architecture} have no biases.")

    def search_space(self, spec: ModelSpec | None = None) -> SearchSpace:
        """Which biases; choices that coincide on this model are offered once."""
        choices = ("all", *(_biased(spec) if spec else ROLES))
        return SearchSpace({"biases": Categorical(choices=choices, default="all")})

    def training_space(self, spec: ModelSpec | None = None) -> SearchSpace:
        """Learning rates from the 1e-4 to 1e-3 of Ben Zaken et al. upwards.

        They train on thousands of rows for many epochs; a few hundred rows need larger steps.
        """
        return SearchSpace({"learning_rate": Float(low=1e-4, high=3e-2, default=3e-3, log=True)})

    def apply(self, model: nn.Module, params: Params, spec: ModelSpec) -> nn.Module:
        """Let the chosen biases require gradients; the host gives this model its own copies of them."""
        chosen = None if params["biases"] == "all" else _biased(spec)[str(params["biases"])]
        whole: Any = model
        of_base = {id(parameter) for parameter in whole.base_model.parameters()}  # a language model's head stays
        for name, parameter in model.named_parameters():
            module, _, leaf = name.rpartition(".")
            of_head = any(f".{head}." in f".{name}" for head in spec.head)
            if leaf == "bias" and id(parameter) in of_base and not of_head and (chosen is None or module in chosen):
                parameter.requires_grad_(True)
        return model

    def average(self, folds: Sequence[Mapping[str, Tensor]], params: Params, spec: ModelSpec) -> Mapping[str, Tensor]:
        """The mean of each bias, which adds the mean of what the biases add."""
        return mean_of(folds)

    def merge(self, model: nn.Module) -> nn.Module:
        """The model itself: its biases are in their places."""
        return model

    def export(self, model: nn.Module, params: Params, spec: ModelSpec, library: str, folder: Path) -> Support:
        """No other library has this method; a merged model keeps the biases."""
        return Support(f"{library} has no method that trains a model's own biases; use the format `merged`.")


def _biased(spec: ModelSpec) -> dict[str, tuple[str, ...]]:
    """This model's groups of linear maps with a bias; if two groups are equal, only the first."""
    found: dict[str, tuple[str, ...]] = {}
    for group, roles in ROLES.items():
        names = tuple(linear.name for linear in spec.linears if linear.bias and linear.role in roles)
        if names and names not in found.values():
            found[group] = names
    return found
