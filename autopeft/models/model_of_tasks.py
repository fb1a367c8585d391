"""One model for several tasks: a head for each on shared frozen weights, with add-ons that are shared or their own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from torch import nn

from autopeft.common.exceptions import PluginError
from autopeft.methods.sharing import BELOW, OWN
from autopeft.models.marks import GROUPS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from autopeft.methods.contract import ModelSpec


class ModelOfTasks(nn.Module):
    """The models of several tasks; a batch goes through the one of its task.

    Args:
        models: by the name of the task.
    """

    def __init__(self, models: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.names = tuple(models)
        self.models = nn.ModuleList(models.values())

    def of(self, task: str) -> nn.Module:
        """The model of one task."""
        return self.models[self.names.index(task)]

    def items(self) -> Iterator[tuple[str, nn.Module]]:
        """The name and the model of each task."""
        return zip(self.names, self.models, strict=True)

    def prefix(self, task: str) -> str:
        """What the names of a task's parameters begin with in this model."""
        return f"models.{self.names.index(task)}."


def share_weights(models: Mapping[str, nn.Module], heads: Mapping[str, tuple[str, ...]]) -> None:
    """Let the base models of several tasks, each loaded with its own head, have the same frozen tensors.

    Args:
        models: by task; all of the same checkpoint.
        heads: names of the modules of each model's head.
    """
    kept: dict[str, nn.Parameter] = {}
    for task, model in models.items():
        for name, owner, key, parameter in _parameters(model):
            if _within(name, heads[task]):
                continue
            first = kept.setdefault(name, parameter)
            if first.shape == parameter.shape:
                owner._parameters[key] = first


def tie(model: ModelOfTasks, specs: Mapping[str, ModelSpec], sharing: str) -> None:
    """Let the add-ons of all tasks be one, in all layers or in the lower half of them; heads stay apart.

    Parameters outside of the layers, such as a prompt's, count as the lowest.

    Args:
        model: of the tasks, each with an add-on of the same method and params.
        specs: of their base models.
        sharing: one of the choices of `SHARING`.

    Raises:
        PluginError: the method's add-ons do not have the same parameters on all tasks.
    """
    kept: dict[str, tuple[nn.Parameter, str]] = {}
    for task, own in model.items():
        spec = specs[task]
        upper = spec.layers[len(spec.layers) // 2 :] if sharing == BELOW else ()
        for name, owner, key, parameter in _parameters(own):
            if sharing == OWN or not parameter.requires_grad or _within(name, (*spec.head, *upper)):
                continue
            first, of_task = kept.setdefault(name, (parameter, task))
            if first.shape != parameter.shape:
                raise PluginError(
                    f"an add-on can be shared only if it has the same shapes for all tasks, but {name} has the shape "
                    f"{tuple(first.shape)} for {of_task} and {tuple(parameter.shape)} for {task}."
                )
            owner._parameters[key] = first
    _keep_groups(model)


def _keep_groups(model: ModelOfTasks) -> None:
    """Give the whole model the groups of parameters of its parts, each parameter once."""
    there = {name for name, _ in model.named_parameters()}
    found = []
    for task, own in model.items():
        for group in getattr(own, GROUPS, ()):
            names = tuple(name for one in group.names if (name := model.prefix(task) + one) in there)
            found += [replace(group, names=names)] if names else []
    setattr(model, GROUPS, tuple(found))


def _parameters(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, nn.Parameter]]:
    """Each parameter's name, the module that holds it, its name there, and itself; shared ones at every place."""
    for path, module in [*model.named_modules()]:
        for key, parameter in [*module._parameters.items()]:
            if parameter is not None:
                yield f"{path}.{key}".lstrip("."), module, key, parameter


def _within(name: str, modules: tuple[str, ...]) -> bool:
    """Whether a parameter is in one of the modules, also where a method has put its own around the model."""
    return any(f".{module}." in f".{name}" for module in modules)
