"""Whether a method can be in a study, checked on the study's model before anything trains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import peft  # noqa: F401  # here, so that the seconds this takes are not counted as a method's silence

from autopeft.common.containment import guarded, unguarded
from autopeft.common.exceptions import PluginError, in_a_line
from autopeft.methods.candidate import CandidateSpace
from autopeft.methods.contract import Support
from autopeft.methods.search_space import SearchSpace
from autopeft.models.attach import attach, trained_params
from autopeft.models.weights_file import saved_tensors

if TYPE_CHECKING:
    from autopeft.common.plugins import Origin
    from autopeft.methods.contract import PeftMethod
    from autopeft.models.base import BaseModel


@unguarded()
def refusal(method: PeftMethod, origin: Origin, base: BaseModel, task: str, seconds: float) -> str:
    """Why a method cannot be in a study of this task on this model; empty if it can.

    The method may say so. Or its plugin has a fault: its answer is not valid, its default cannot be attached to the
    model without weights, or it hangs for `seconds`.
    """
    try:
        with guarded(seconds):
            return _refusal(method, base, task)
    except Exception as error:
        return f"its plugin is at fault, {origin}: {in_a_line(error)}"


def _refusal(method: PeftMethod, base: BaseModel, task: str) -> str:
    if method.tasks and task not in method.tasks:
        return f"it does not support the task {task}."
    support = method.supports(base.spec)
    if not isinstance(support, Support):
        raise PluginError(f"supports() must return a Support, but returned {support!r}.")
    if not support:
        return support.reason
    for ask in (method.search_space, method.training_space):
        if not isinstance(space := ask(base.spec), SearchSpace):
            raise PluginError(f"{ask.__name__}() must return a SearchSpace, but returned {space!r}.")
    default = CandidateSpace.build([method], base.spec, {}, ())[method.name].default()
    model = attach(base, method, default.params, meta=True)
    trained_params(base, method, default.params, model)
    saved_tensors(model, method)
    return ""
