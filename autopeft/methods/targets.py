"""The groups of linear maps that methods such as LoRA choose from, the same on every model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autopeft.methods.contract import Support
from autopeft.methods.dimensions import Categorical

if TYPE_CHECKING:
    from autopeft.methods.contract import LinearModule, ModelSpec

ATTENTION = ("query", "key", "value", "qkv", "attention_output")
FEED_FORWARD = ("feed_forward_up", "feed_forward_down")
ROLES = {
    "query_value": ("query", "value", "qkv"),  # or the one map that is query, key and value
    "attention": ATTENTION,
    "feed_forward": FEED_FORWARD,
    "all_linear": ATTENTION + FEED_FORWARD,
}
CROSS = "cross_attention"
"""A group that only models with an encoder and a decoder have (Gheini et al. 2021, arXiv:2104.08771)."""


@dataclass(frozen=True)
class TargetGroups:
    """The choices of a dimension such as `target_modules`: groups of linear layers, found by their roles.

    Attributes:
        names: of the groups, in order; the first is the default.
    """

    names: tuple[str, ...] = tuple(ROLES)

    def on(self, spec: ModelSpec) -> dict[str, tuple[str, ...]]:
        """The groups that a model has, each with the names of its modules; of equal ones, only the first.

        A decoder's attention to an encoder, if there is one, is one more group.
        """
        found = spec.groups({name: ROLES[name] for name in self.names})
        crossing = spec.modules(*ATTENTION, cross=True)
        return {**found, CROSS: crossing} if crossing else found

    def linears(self, spec: ModelSpec, group: str) -> list[LinearModule]:
        """The linear maps of a group that the model has."""
        names = self.on(spec)[group]
        return [linear for linear in spec.linears if linear.name in names]

    def supports(self, spec: ModelSpec) -> Support:
        """Support for any model with linear maps in its transformer layers."""
        if self.on(spec):
            return Support()
        return Support(f"no linear layer with a known role was found in the layers of {spec.architecture}.")

    def dimension(self, spec: ModelSpec | None = None) -> Categorical:
        """The groups to draw from on a model; without a model, all groups."""
        choices = tuple(self.on(spec)) if spec else self.names
        return Categorical(choices=choices, default=choices[0])
