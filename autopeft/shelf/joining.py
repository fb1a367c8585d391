"""Joins the same part of several models into one module, in which all rows share whatever the models share.

The models are compared module by module. Where their modules are alike and have the same tensors, one runs for all
rows. Linear maps and normalisations with tensors of their own become stacks (`stacked`). Anywhere else each row goes
through its own model's module (`routing`). Whether the result is right is checked by the answers (`packed_check`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from autopeft.models.marks import FROZEN
from autopeft.shelf.routing import Routed
from autopeft.shelf.stacked import STACKED
from autopeft.shelf.stacked_lora import StackedLora, is_plain_lora
from autopeft.training.packing import CONTAINERS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from autopeft.shelf.routing import Members, Routing

PLAIN = (bool, int, float, str, type(None))
"""Types of the attributes by which modules of one class may differ in what they do."""

HOOKS = ("_forward_hooks", "_forward_pre_hooks")


class Joiner:
    """Joins modules of models.

    Args:
        routing: of the pass; models are known by their places in it.
        alone: models whose own modules are never joined with those of others, only frozen ones of the base model.
    """

    def __init__(self, routing: Routing, alone: Collection[int] = ()) -> None:
        self._routing, self._alone = routing, set(alone)
        self._known: dict[tuple[int, ...], nn.Module] = {}

    def trunk(self, members: Members, trunks: Sequence[nn.Module]) -> nn.Module:
        """The trunks of models on one base as one. Call its `forward`: what is hooked to a trunk is its owner's.

        A part that some trunks lack, such as a pooling layer, runs for the rows of these too: nobody reads its output.
        """
        whole = _shell(max(trunks, key=lambda trunk: len(trunk._modules)))
        vars(whole).update({hooks: {} for hooks in HOOKS})
        vars(whole).pop("forward", None)  # of a port
        for name, part in whole._modules.items():
            whole._modules[name] = self._child(members, [trunk._modules.get(name) or part for trunk in trunks])
        return whole

    def _child(self, members: Members, modules: Sequence[nn.Module | None]) -> nn.Module | None:
        given = [module for module in modules if module is not None]
        return self._joined(members, given) if len(given) == len(modules) else None

    def _joined(self, members: Members, modules: Sequence[nn.Module]) -> nn.Module:
        key = (*members, *map(id, modules))  # a module may have several places
        if key not in self._known:
            self._known[key] = self._made(members, modules)
        return self._known[key]

    def _made(self, members: Members, modules: Sequence[nn.Module]) -> nn.Module:
        if all(module is modules[0] for module in modules):
            return modules[0]
        groups: dict[Any, list[int]] = {}
        for place, module in enumerate(modules):
            groups.setdefault(self._kind(members[place], module), []).append(place)
        if len(groups) == 1 and self._alike(members, modules):
            return self._as_one(members, modules)
        made: list[tuple[Members, nn.Module]] = []
        for places in groups.values():
            for few in self._parts(members, modules, places):
                who, own = tuple(members[place] for place in few), [modules[place] for place in few]
                made.append((who, self._joined(who, own) if len(few) > 1 else own[0]))
        return Routed(self._routing, made)

    def _parts(self, members: Members, modules: Sequence[nn.Module], places: list[int]) -> list[list[int]]:
        """The places of modules of one kind, put together where these can run as one."""
        if self._fit(members, modules, places):
            return [places]
        equal: dict[Any, list[int]] = {}
        for place in places:
            equal.setdefault(tuple(one.data_ptr() for one in modules[place].parameters()), []).append(place)
        found: list[list[int]] = []
        for few in equal.values():
            smaller = len(few) < len(places) and self._fit(members, modules, few)
            found += [few] if smaller else [[place] for place in few]
        return found

    def _fit(self, members: Members, modules: Sequence[nn.Module], places: Sequence[int]) -> bool:
        return self._alike([members[place] for place in places], [modules[place] for place in places])

    def _kind(self, member: int, module: nn.Module) -> Any:
        """Equal for modules that do the same if their tensors are equal, as far as can be seen."""
        own = member if member in self._alone and not hasattr(module, FROZEN) else None
        if isinstance(module, nn.Dropout | nn.Identity):
            return own, nn.Identity
        if is_plain_lora(module):
            return own, type(module), type(module.base_layer)
        if any(vars(module)[hooks] for hooks in HOOKS) or "forward" in vars(module):
            return own, id(module)
        return own, type(module), tuple(module._modules), _filled(module), _settings(module)

    def _alike(self, members: Sequence[int], modules: Sequence[nn.Module]) -> bool:
        """Whether modules of one kind can run as one, those inside them being joined in turn."""
        if len(modules) == 1 or is_plain_lora(modules[0]):
            return len(modules) == 1 or not self._alone.intersection(members)
        if not _same_tensors(modules) and (type(modules[0]) not in STACKED or self._alone.intersection(members)):
            return False
        for name, part in modules[0]._modules.items():
            if isinstance(part, CONTAINERS):  # it does not run itself, so nothing can be routed in its place
                parts = [module._modules[name] for module in modules]
                kinds = {self._kind(member, one) for member, one in zip(members, parts, strict=True) if one is not None}
                if len(kinds) != 1 or not self._alike(members, [one for one in parts if one is not None]):
                    return False
        return True

    def _as_one(self, members: Members, modules: Sequence[nn.Module]) -> nn.Module:
        if is_plain_lora(modules[0]):
            base = self._joined(members, [module.base_layer for module in modules])  # type: ignore[misc]
            return StackedLora(self._routing, members, modules, base)
        if not _same_tensors(modules):
            return STACKED[type(modules[0])](self._routing, members, modules)
        whole = _shell(modules[0])
        for name in whole._modules:
            whole._modules[name] = self._child(members, [module._modules[name] for module in modules])
        return whole


def _shell(module: nn.Module) -> nn.Module:
    """A copy of a module that shares everything with it, but may get other modules inside."""
    twin = object.__new__(type(module))
    vars(twin).update(vars(module))
    vars(twin)["_modules"] = dict(module._modules)
    return twin


def _filled(module: nn.Module) -> tuple[tuple[str, bool], ...]:
    """The names of a module's own parameters, and which of them it has."""
    return tuple((name, parameter is not None) for name, parameter in module._parameters.items())


def _same_tensors(modules: Sequence[nn.Module]) -> bool:
    """Whether modules share the tensors that they own themselves."""
    first, *others = [[*module._parameters.items(), *module._buffers.items()] for module in modules]
    return all(len(first) == len(other) and all(map(_same, first, other)) for other in others)


def _same(one: tuple[str, Any], other: tuple[str, Any]) -> bool:
    (name, tensor), (named, another) = one, other
    if tensor is None or another is None:
        return name == named and tensor is another
    return bool(name == named and tensor.shape == another.shape and tensor.data_ptr() == another.data_ptr())


def _settings(module: nn.Module) -> tuple[tuple[str, Any], ...]:
    """The attributes of a module that are plain values, or tuples, lists and dictionaries of these."""
    found = ((name, _frozen(value)) for name, value in vars(module).items() if not name.startswith("_"))
    return tuple((name, value) for name, value in found if value is not Ellipsis)


def _frozen(value: Any) -> Any:
    """A value that can be compared and hashed; an ellipsis for any other."""
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, tuple | list):
        return tuple(map(_frozen, value))
    if isinstance(value, dict):
        return tuple((key, _frozen(kept)) for key, kept in value.items() if isinstance(key, str))
    return ...
