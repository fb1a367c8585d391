"""Attach a method to the base model: what it may train, and what it must return."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from torch import nn

from autopeft.common.exceptions import PluginError
from autopeft.common.seeds import seeded
from autopeft.methods.contract import declared_params
from autopeft.methods.parameter_groups import checked
from autopeft.methods.sharing import OWN, SHARING, SharingMethod
from autopeft.methods.sharing import own as own_params
from autopeft.models.marks import GROUPS, TRAINED
from autopeft.models.model_of_tasks import ModelOfTasks, tie

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from autopeft.common.params import Params
    from autopeft.methods.contract import PeftMethod
    from autopeft.models.base import BaseModel


def attach(base: BaseModel, method: PeftMethod, params: Params, *, seed: int = 0, meta: bool = False) -> nn.Module:
    """Attach a method's add-on to a private copy of the base model; exactly the add-on and the head require gradients.

    Raises:
        PluginError: the method returned no module, one that does not contain the given model, one with nothing to
            train, parameters that another model trains already, or impossible groups of parameters.
    """
    if base.parts:
        return _attach_to_each(base, method, params, seed=seed, meta=meta)
    frozen = base.copy(meta=meta)
    given = [module for module in frozen.modules() if module._parameters]
    shared = {id(parameter): parameter for module in given for parameter in _direct(module).values()}
    try:
        with seeded(seed):
            model = method.apply(frozen, params, base.spec)
        modules = _check_returned(model, given, method.name)
        _own_trained_base_parameters(modules, set(shared))
    finally:
        for parameter in shared.values():  # whatever the method did to the shared ones, also if it failed
            parameter.requires_grad_(False)
    named = dict(model.named_parameters())  # once for all steps below: walking a model takes a millisecond
    _check_trained(named, method.name)
    _train_head(named, base.spec.head)
    _train_in_float32(named.values())
    shapes = {name: tuple(parameter.shape) for name, parameter in named.items() if parameter.requires_grad}
    setattr(model, GROUPS, checked(method.parameter_groups(shapes, params, base.spec), shapes, method.name))
    return model


def _attach_to_each(base: BaseModel, method: PeftMethod, params: Params, *, seed: int, meta: bool) -> nn.Module:
    """The models of several tasks, each with the add-on, which they share as far as `params` say."""
    inner = method.inner if isinstance(method, SharingMethod) else method
    parts = {name: attach(part, inner, own_params(params), seed=seed, meta=meta) for name, part in base.parts.items()}
    model = ModelOfTasks(parts)
    tie(model, {name: part.spec for name, part in base.parts.items()}, str(params.get(SHARING, OWN)))
    return model


def _direct(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of a module itself, without those of its submodules."""
    return {name: parameter for name, parameter in module._parameters.items() if parameter is not None}


def _check_returned(model: object, given: Sequence[nn.Module], name: str) -> list[nn.Module]:
    """The modules of the model that a method returned, which must contain modules of the given one."""
    if not isinstance(model, nn.Module):
        raise PluginError(f'method "{name}": apply() must return a torch module, but returned {model!r}.')
    modules = list(model.modules())
    inside = set(map(id, modules))
    if not any(id(module) in inside for module in given):
        raise PluginError(
            f'method "{name}": apply() must return the model it was given, or a module around it, but the '
            f"{type(model).__name__} that it returned does not contain it."
        )
    return modules


def _check_trained(named: Mapping[str, nn.Parameter], method: str) -> None:
    """Check that something is trained, and by no other model: else one trial would start from another's values."""
    trained = {name: parameter for name, parameter in named.items() if parameter.requires_grad}
    if not trained:
        raise PluginError(f'method "{method}": apply() left nothing to train; add-on parameters need gradients.')
    for name, parameter in trained.items():
        if hasattr(parameter, TRAINED):
            raise PluginError(
                f'method "{method}": apply() must create new parameters each time, but {name} belongs to a model that '
                "it returned before."
            )
        setattr(parameter, TRAINED, True)


def merged(model: nn.Module, method: PeftMethod) -> nn.Module | None:
    """The plain base model with a trained add-on folded in; None if the method cannot. `model` is not changed."""
    from peft.utils import ModulesToSaveWrapper

    own: Any = copy.deepcopy(model)  # weights too: all trials share those of the base
    for name, module in list(own.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):  # some of peft's methods ask any head for one weight
            own.set_submodule(name, module.modules_to_save["default"])
    return method.merge(own)


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that training changes, by name, each once."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def trained_params(base: BaseModel, method: PeftMethod, params: Params, model: nn.Module) -> int:
    """How many parameters of an attached model train, including the head's.

    Raises:
        PluginError: the method gave another number.
    """
    counted = sum(parameter.numel() for parameter in trainable(model).values())
    told = declared_params(method, params, base.spec)
    if told is not None and told + base.head_params != counted:
        raise PluginError(
            f"trained_params() says {told}, but apply() leaves {counted - base.head_params} parameters to train "
            "besides the head."
        )
    return counted


def _own_trained_base_parameters(modules: Iterable[nn.Module], shared: set[int]) -> None:
    """Give the model its own copy of every base parameter that the method trains (BitFit's biases, for one)."""
    for module in modules:
        for name, parameter in _direct(module).items():
            if parameter.requires_grad and id(parameter) in shared:
                parameter.requires_grad_(False)
                setattr(module, name, nn.Parameter(parameter.detach().clone()))


def _train_in_float32(parameters: Iterable[nn.Parameter]) -> None:
    """Keep trained parameters in float32, whatever the base model's type: small updates vanish in half precision."""
    for parameter in parameters:
        if parameter.requires_grad and parameter.is_floating_point():
            parameter.data = parameter.data.float()


def _train_head(named: Mapping[str, nn.Parameter], head: tuple[str, ...]) -> None:
    """Train the head, unless the method put a trainable copy in its place (peft's `modules_to_save`)."""
    trained = [f".{name}." for name, parameter in named.items() if parameter.requires_grad]
    for module in head:
        if any(f".{module}." in path for path in trained):
            continue
        for name, parameter in named.items():
            if f".{module}." in f".{name}.":
                parameter.requires_grad_(True)
