"""Finds the methods that plugins bring, and where each comes from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from autopeft.common.containment import unguarded
from autopeft.common.exceptions import MethodError, PluginError, brief, nearest
from autopeft.common.plugins import LOADING_SECONDS, Fault, Origin, check_contract, check_signatures, load_plugins
from autopeft.methods.contract import CONTRACT, PeftMethod
from autopeft.methods.needed import needed_settings
from autopeft.methods.search_space import SearchSpace

if TYPE_CHECKING:
    from collections.abc import Collection


@dataclass(frozen=True)
class Registry:
    """The methods found, in alphabetical order, the plugins that failed, and the entry points to leave out."""

    methods: dict[str, PeftMethod] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    blocked: tuple[str, ...] = ()

    @property
    def provenance(self) -> dict[str, str]:
        """Where each method comes from, and each plugin that failed, with the reason."""
        found = {name: str(origin) for name, origin in self.origins.items()}
        return {**found, **{str(fault.origin): fault.reason for fault in self.faults}}

    def __getitem__(self, name: str) -> PeftMethod:
        if name not in self.methods:
            broken = next((str(fault) for fault in self.faults if fault.concerns(name)), None)
            why = f"its plugin is broken: {broken}" if broken else nearest(name, self.methods)
            raise MethodError(
                f'no plugin provides the method "{brief(name)}"; {why} '
                "Install the plugin that brings it, or see `autopeft methods`."
            )
        return self.methods[name]

    def chosen(self, named: Collection[str] | None, excluded: Collection[str]) -> list[str]:
        """The names of the methods that a study asks for.

        If it names none, of all except those that it excludes, and those whose settings it would have to give.

        Raises:
            MethodError: none is left.
        """
        names = named or [
            name for name, method in self.methods.items() if name not in excluded and not needed_settings(method)
        ]
        if not names:
            raise MethodError("a search needs at least one method, but no plugin provides any; see `autopeft methods`.")
        return sorted(set(names))


@unguarded()
def discover(block: Collection[str] = (), seconds: float = LOADING_SECONDS) -> Registry:
    """The methods of every usable plugin; see `load_plugins`. `block` names entry points to leave out."""
    found = load_plugins("register_methods", "method", _check, block, seconds)
    return Registry(found.items, found.origins, found.faults, tuple(block))


def _check(method: Any, origin: Origin) -> tuple[str, PeftMethod]:
    if not isinstance(method, PeftMethod):
        raise PluginError(f"register_methods() must yield PeftMethod instances, but yielded {method!r}.")
    name = str(getattr(method, "name", ""))
    if not name.isidentifier():
        raise PluginError(f"a method needs an identifier as `name`, but {type(method).__name__} has {name!r}.")
    check_contract(getattr(method, "contract", None), CONTRACT, method, "method", name, origin)
    check_signatures(method, PeftMethod)
    for space in (method.search_space, method.training_space):
        if not isinstance(answer := space(), SearchSpace):
            raise PluginError(f"{space.__name__}() must return a SearchSpace, but returned {answer!r}.")
    return name, method
