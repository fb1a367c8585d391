"""Finds plugins by their entry points, loads them one at a time, and keeps them from taking the host down."""

from __future__ import annotations

import importlib.metadata
import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pluggy

from autopeft.common import hooks
from autopeft.common.containment import guarded
from autopeft.common.exceptions import HangError, PluginError, in_a_line

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

LOADING_SECONDS = 60.0
"""Time for a plugin to be imported and to answer: it should need one second, but many more on a cold disk."""

HOOKS = ("register_methods", "register_tasks", "register_backends")

Brought = TypeVar("Brought")


@dataclass(frozen=True)
class Origin:
    """Where a plugin comes from: its distribution, version and entry point."""

    distribution: str
    version: str
    entry_point: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version} (entry point {self.entry_point!r})"


_hung: dict[Origin, HangError] = {}
"""Plugins that hung when they were loaded; a process waits only once for each."""


@dataclass(frozen=True)
class Fault:
    """A plugin that cannot be used, and why; `names` are the names of what it brings, as far as they are known."""

    origin: Origin
    reason: str
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.origin}: {self.reason}"

    def concerns(self, name: str) -> bool:
        """Whether this fault is the reason that nothing of that name was found."""
        return name == self.origin.entry_point or name in self.names


@dataclass(frozen=True)
class Found(Generic[Brought]):
    """What plugins bring through one hook, in alphabetical order of names, and the plugins that failed."""

    items: dict[str, Brought] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()


def load_plugins(
    hook: str,
    noun: str,
    check: Callable[[Any, Origin], tuple[str, Brought]],
    block: Collection[str],
    seconds: float,
) -> Found[Brought]:
    """Load every plugin in the entry-point group ``autopeft``, one at a time, and gather what one hook yields.

    A plugin that fails to import, hangs, has no hook or a wrong one, or brings what `check` refuses is reported in
    `Found.faults`, and the others are loaded all the same. If plugins bring the same name, autopeft's own plugin keeps
    it and the others are reported; if none of them is autopeft's, all are reported.

    Args:
        hook: its name.
        noun: word for what it yields, for messages.
        check: checks one thing that was yielded, given its origin; returns its name and the thing.
        block: entry points to leave out.
        seconds: time limit for one plugin.
    """
    manager = pluggy.PluginManager(hooks.PROJECT)
    manager.add_hookspecs(hooks)
    points = {_origin(p): p for p in importlib.metadata.entry_points(group=hooks.PROJECT) if p.name not in block}
    found: dict[Origin, dict[str, Brought]] = {}
    clashes = _clashes({origin: (origin.entry_point,) for origin in points})
    faults = [Fault(origin, f"two plugins bring the entry point {reason}") for origin, reason in clashes.items()]
    for origin in sorted(points.keys() - clashes.keys(), key=str):
        try:
            if origin in _hung:
                raise _hung[origin]
            with guarded(seconds):
                found[origin] = _brought(manager, points[origin], origin, (hook, noun), check)
        except Exception as error:
            if isinstance(error, HangError):
                _hung[origin] = error
            faults.append(Fault(origin, in_a_line(error)))
    for origin, reason in _clashes(found).items():
        faults.append(Fault(origin, f"two plugins bring the {noun} {reason}", tuple(found.pop(origin))))
    items = {name: (item, origin) for origin, brought in found.items() for name, item in brought.items()}
    return Found(
        {name: items[name][0] for name in sorted(items)},
        {name: items[name][1] for name in sorted(items)},
        tuple(sorted(faults, key=str)),
    )


def _origin(point: importlib.metadata.EntryPoint) -> Origin:
    known = point.dist
    return Origin(known.name if known else "unknown distribution", known.version if known else "?", point.name)


def _clashes(names: Mapping[Origin, Collection[str]]) -> dict[Origin, str]:
    """The plugins to leave out because another has the same name, with that name and the other; never our own."""
    ours = {origin for origin in names if origin.distribution == hooks.PROJECT}
    strangers = names.keys() - ours
    reasons: dict[Origin, str] = {}
    for rivals in (ours, strangers):  # a stranger that clashes with ours is out, and blocks no other
        left = strangers - reasons.keys()
        for origin in left:
            for other in sorted((rivals & (ours | left)) - {origin}, key=str):
                for name in sorted(set(names[origin]) & set(names[other])):
                    reasons[origin] = f'"{name}", this one and {other}; uninstall one, or leave it out with --block.'
    return reasons


def _brought(
    manager: pluggy.PluginManager,
    point: importlib.metadata.EntryPoint,
    origin: Origin,
    hook: tuple[str, str],
    check: Callable[[Any, Origin], tuple[str, Brought]],
) -> dict[str, Brought]:
    """Load one plugin, and check what it brings through a hook."""
    asked, noun = hook
    plugin = point.load()
    manager.register(plugin, point.name)
    others = manager.get_plugins() - {plugin}
    callers = {name: manager.subset_hook_caller(name, others) for name in HOOKS}
    if not any(caller.get_hookimpls() for caller in callers.values()):
        wanted = " or ".join(f"`@autopeft.hookimpl def {name}()`" for name in HOOKS)
        raise PluginError(f"the module has no {wanted}.")
    manager.check_pending()
    found: dict[str, Brought] = {}
    for item in (item for result in callers[asked]() for item in result):
        name, checked = check(item, origin)
        if name in found:
            raise PluginError(f'{asked}() must yield each {noun} once, but yielded two named "{name}".')
        found[name] = checked
    return found


def check_signatures(item: object, contract: type) -> None:
    """Check that `item`'s methods can be called as `contract`'s are.

    Raises:
        PluginError: a method of `item` takes other arguments than `contract`'s method of the same name.
    """
    for name, function in inspect.getmembers(contract, inspect.isfunction):
        wanted = [
            parameter for parameter in inspect.signature(function).parameters.values() if parameter.name != "self"
        ]
        given = inspect.signature(getattr(item, name))
        try:
            given.bind(*wanted)
            given.bind(*(parameter for parameter in wanted if parameter.default is parameter.empty))
        except TypeError:
            raise PluginError(
                f"{type(item).__name__}.{name}() must take ({_shown(wanted)}), like {contract.__name__}'s, but takes "
                f"({_shown(given.parameters.values())})."
            ) from None


def _shown(parameters: Iterable[inspect.Parameter]) -> str:
    """Parameters as in a signature, without annotations."""
    return ", ".join(str(parameter.replace(annotation=parameter.empty)) for parameter in parameters)


def check_contract(stated: object, current: int, item: object, noun: str, name: str, origin: Origin) -> None:
    """Check that an item states the contract it was written for, and that it is this autopeft's.

    Raises:
        PluginError: it states none, or another.
    """
    kind = type(item).__name__
    if stated == current:
        return
    check = "" if noun == "backend" else f", and run `autopeft check {name}`"  # which trains on tiny models
    if stated is None:
        raise PluginError(
            f"a {noun} must state the contract it was written for, but {kind} does not; this autopeft has contract "
            f"{current}. Add `contract = {current}` to the class{check}."
        )
    raise PluginError(
        f"{kind} was written for contract {stated}, but this autopeft has contract {current}; install another version "
        f"of {origin.distribution}, or of autopeft."
    )
