"""Check the params on a winner's card, which anybody may have written: only what a study can draw reaches a method."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from autopeft.common.exceptions import UserInputError
from autopeft.methods.dimensions import Categorical, Integer

if TYPE_CHECKING:
    from autopeft.common.params import Params, ParamValue
    from autopeft.methods.contract import ModelSpec, PeftMethod
    from autopeft.methods.dimensions import Dimension

MOST = 65_536
"""The largest integer accepted as a size, if the method itself offers smaller ones."""


def check_params(method: PeftMethod, params: Params, spec: ModelSpec) -> None:
    """Make sure that a study could have drawn `params` of the method, also one that widened its ranges.

    Dimensions missing in `params` are not checked: they may be newer than the winner.

    Raises:
        UserInputError: one is not a dimension of the method on this model, or has an impossible value.
    """
    space = method.search_space(spec)
    for name, value in params.items():
        if name not in space or not _possible(space[name], value):
            what = f"but `{name[:80]}` is {str(value)[:80]!r}" if name in space else f"but `{name[:80]}` is not one"
            raise UserInputError(
                f'the `params` on a winner\'s card must be those of its method "{method.name}", {what}; restore the '
                "card, or install the version of the plugin that wrote it."
            )


def _possible(dimension: Dimension, value: ParamValue) -> bool:
    if isinstance(dimension, Categorical):
        return value in dimension or value in dict(dimension.refused)  # elsewhere it may be allowed
    kinds = (int,) if isinstance(dimension, Integer) else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        return False
    most = max(dimension.high, MOST) if isinstance(dimension, Integer) else math.inf
    if dimension.log:
        return 0 < value <= most
    return (0 if dimension.low >= 0 else -most) <= value <= most
