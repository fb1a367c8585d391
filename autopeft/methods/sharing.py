"""A method in a study of several tasks: its own dimensions, and how far the tasks share one add-on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from autopeft.methods.contract import CONTRACT, PeftMethod
from autopeft.methods.dimensions import Categorical
from autopeft.methods.search_space import SearchSpace

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import nn

    from autopeft.common.params import Params
    from autopeft.methods.contract import ModelSpec, Support

SHARING = "sharing"
"""The dimension of how far the tasks share their add-on."""

SHARED, OWN, BELOW = "shared", "own", "shared_below"
"""Its choices: one add-on for all tasks, one for each, or one in the lower half of the layers and one each above."""

SHARING_SPACE = SearchSpace({SHARING: Categorical(choices=(SHARED, OWN, BELOW), default=SHARED)})
"""That dimension; a model of one layer has no lower half."""


class SharingMethod(PeftMethod):
    """A method whose add-on is put on the models of several tasks (`attach`), which share it or not.

    Args:
        inner: the method.
        choices: of `SHARING`.
    """

    contract = CONTRACT
    name = ""

    def __init__(self, inner: PeftMethod, choices: tuple[str, ...] = (SHARED, OWN, BELOW)) -> None:
        self.inner, self.choices = inner, choices
        vars(self).update(name=inner.name, paper=inner.paper, tasks=inner.tasks)

    def supports(self, spec: ModelSpec) -> Support:
        """As the method itself."""
        return self.inner.supports(spec)

    def search_space(self, spec: ModelSpec | None = None) -> SearchSpace:
        """The method's own dimensions, and `sharing`."""
        sharing = Categorical(choices=self.choices, default=self.choices[0])
        return self.inner.search_space(spec).merged(SearchSpace({SHARING: sharing}))

    def training_space(self, spec: ModelSpec | None = None) -> SearchSpace:
        """As the method itself."""
        return self.inner.training_space(spec)

    def apply(self, model: nn.Module, params: Params, spec: ModelSpec) -> nn.Module:
        """Put the add-on on the model of one task."""
        return self.inner.apply(model, own(params), spec)


def own(params: Params) -> dict[str, Any]:
    """The method's own params, without `sharing`."""
    return {name: value for name, value in params.items() if name != SHARING}


def narrowed(given: Any, choices: Sequence[str]) -> Any:
    """What of a `sharing` for all methods one method offers; None where that is nothing. Mistakes stay in it."""
    lacking = [one for one in (SHARED, OWN, BELOW) if one not in choices]
    if isinstance(given, list) and given:
        return [one for one in given if one not in lacking] or None
    return None if given in lacking else given


def for_each_method(overrides: Mapping[str, Any], methods: Iterable[SharingMethod]) -> dict[str, Any]:
    """Keys of [search] in which `sharing`, if it is given for all methods, is in each method's table."""
    found = {name: value for name, value in overrides.items() if name != SHARING}
    if SHARING in overrides:
        for method in methods:
            if isinstance(table := found.get(method.name, {}), Mapping):
                found[method.name] = {SHARING: narrowed(overrides[SHARING], method.choices), **table}
    return found
