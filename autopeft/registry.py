"""Discover method plugins, with their provenance, and keep a broken one from taking the host down."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pluggy

from autopeft import hookspecs
from autopeft.exceptions import MethodError, PluginError, nearest
from autopeft.method import CONTRACT, PeftMethod

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


@dataclass(frozen=True)
class Origin:
    """Where a plugin comes from: its distribution, version and entry point."""

    distribution: str
    version: str
    entry_point: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version} (entry point {self.entry_point!r})"


@dataclass(frozen=True)
class Fault:
    """A plugin that cannot be used, and why."""

    origin: Origin
    reason: str

    def __str__(self) -> str:
        return f"{self.origin}: {self.reason}"


@dataclass(frozen=True)
class Registry:
    """The methods found, by name in alphabetical order, the plugins that failed, and those told to leave out."""

    methods: dict[str, PeftMethod] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    blocked: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> PeftMethod:
        if name not in self.methods:
            broken = next((str(fault) for fault in self.faults if fault.origin.entry_point == name), None)
            why = f"its plugin is broken: {broken}" if broken else nearest(name, self.methods)
            raise MethodError(
                f'no plugin provides the method "{name}"; {why} '
                "Install the plugin that brings it, or see `autopeft methods`."
            )
        return self.methods[name]


def discover(block: Collection[str] = ()) -> Registry:
    """Load every plugin in the entry-point group ``autopeft``, one at a time.

    One that fails to import, has the wrong hook or brings a method that breaks the contract is reported in
    `Registry.faults`, and the others go on. `block` names entry points to leave out.

    Raises:
        PluginError: two distributions bring an entry point or a method of the same name; pluggy would silently
            take one of them, and which one is nobody's choice.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    for name in block:
        manager.set_blocked(name)
    origins = _origins(block)
    methods: dict[str, tuple[PeftMethod, Origin]] = {}
    faults = []
    for origin in origins:
        try:
            for method in _methods(manager, origin):
                if method.name in methods:
                    raise PluginError(
                        f'two plugins bring a method named "{method.name}": {methods[method.name][1]} and {origin}; '
                        "uninstall one, or leave one out with --block."
                    )
                methods[method.name] = (method, origin)
        except PluginError:
            raise
        except (Exception, SystemExit) as error:
            faults.append(Fault(origin, f"{type(error).__name__}: {error}"))
    ordered = sorted(methods)
    return Registry(
        {name: methods[name][0] for name in ordered},
        {name: methods[name][1] for name in ordered},
        tuple(faults),
        tuple(block),
    )


def _origins(block: Collection[str]) -> list[Origin]:
    """The entry points of the group, sorted; two of the same name from two distributions are refused."""
    found: dict[str, Origin] = {}
    for point in importlib.metadata.entry_points(group=hookspecs.PROJECT):
        if point.name in block:
            continue
        distribution = point.dist
        origin = Origin(
            distribution.name if distribution else "unknown distribution",
            distribution.version if distribution else "?",
            point.name,
        )
        if point.name in found and found[point.name] != origin:
            raise PluginError(
                f'two distributions bring the entry point "{point.name}": {found[point.name]} and {origin}; '
                "uninstall one, or leave both out with --block."
            )
        found[point.name] = origin
    return [found[name] for name in sorted(found)]


def _methods(manager: pluggy.PluginManager, origin: Origin) -> Iterable[PeftMethod]:
    """Load one plugin by name and check what it brings."""
    before = set(manager.get_plugins())
    manager.load_setuptools_entrypoints(hookspecs.PROJECT, name=origin.entry_point)
    for plugin in set(manager.get_plugins()) - before:
        caller = manager.subset_hook_caller("register_methods", manager.get_plugins() - {plugin})
        if not caller.get_hookimpls():
            raise TypeError("the module has no `@autopeft.hookimpl def register_methods()`.")
        manager.check_pending()
        found = [method for result in caller() for method in result]
        for method in found:
            if not isinstance(method, PeftMethod):
                raise TypeError(f"register_methods() must yield PeftMethod instances, but yielded {method!r}.")
            if not str(getattr(method, "name", "")).isidentifier():
                raise TypeError(f"a method needs an identifier as `name`, but {type(method).__name__} has none.")
            _check_contract(method, origin)
            method.search_space()
            method.training_space()
        yield from found


def _check_contract(method: PeftMethod, origin: Origin) -> None:
    stated = getattr(method, "contract", None)
    if stated == CONTRACT:
        return
    kind = type(method).__name__
    if stated is None:
        raise TypeError(
            f"a method must state the contract it was written for, but {kind} does not; this autopeft has contract "
            f"{CONTRACT}. Add `contract = {CONTRACT}` to the class, and run `autopeft check {method.name}`."
        )
    raise TypeError(
        f"{kind} was written for contract {stated}, but this autopeft has contract {CONTRACT}; install another version "
        f"of {origin.distribution}, or of autopeft."
    )
