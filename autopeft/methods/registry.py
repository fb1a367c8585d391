"""Discover method plugins, with their provenance, and keep a broken one from taking the host down."""

from __future__ import annotations

import importlib.metadata
import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pluggy

from autopeft.common.containment import guarded, unguarded
from autopeft.common.exceptions import HangError, MethodError, PluginError, brief, in_a_line, nearest
from autopeft.methods import hooks
from autopeft.methods.contract import CONTRACT, PeftMethod
from autopeft.methods.search_space import SearchSpace

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

LOADING_SECONDS = 60.0
"""That a plugin may take to be imported and to answer: it should need one, but a cold disk may make it many."""


@dataclass(frozen=True)
class Origin:
    """Where a plugin comes from: its distribution, version and entry point."""

    distribution: str
    version: str
    entry_point: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version} (entry point {self.entry_point!r})"


_hung: dict[Origin, HangError] = {}
"""Plugins that hung when they were loaded; a process waits for each once."""


@dataclass(frozen=True)
class Fault:
    """A plugin that cannot be used, and why; `methods` are those it brings, as far as that is known."""

    origin: Origin
    reason: str
    methods: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.origin}: {self.reason}"

    def concerns(self, name: str) -> bool:
        """Whether it is why there is no method of that name."""
        return name == self.origin.entry_point or name in self.methods


@dataclass(frozen=True)
class Registry:
    """The methods found, by name in alphabetical order, the plugins that failed, and those told to leave out."""

    methods: dict[str, PeftMethod] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    blocked: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> PeftMethod:
        if name not in self.methods:
            broken = next((str(fault) for fault in self.faults if fault.concerns(name)), None)
            why = f"its plugin is broken: {broken}" if broken else nearest(name, self.methods)
            raise MethodError(
                f'no plugin provides the method "{brief(name)}"; {why} '
                "Install the plugin that brings it, or see `autopeft methods`."
            )
        return self.methods[name]


@unguarded()
def discover(block: Collection[str] = (), seconds: float = LOADING_SECONDS) -> Registry:
    """Load every plugin in the entry-point group ``autopeft``, one at a time.

    One that fails to import, hangs for `seconds`, has the wrong hook or brings a method that breaks the contract is
    reported in `Registry.faults`, and the others go on. So is one that brings a name which is another's too: autopeft's
    own keep theirs, and of strangers that clash none is taken. `block` names entry points to leave out.
    """
    manager = pluggy.PluginManager(hooks.PROJECT)
    manager.add_hookspecs(hooks)
    points = {_origin(p): p for p in importlib.metadata.entry_points(group=hooks.PROJECT) if p.name not in block}
    found: dict[Origin, dict[str, PeftMethod]] = {}
    clashes = _clashes({origin: (origin.entry_point,) for origin in points})
    faults = [Fault(origin, f"two plugins bring the entry point {reason}") for origin, reason in clashes.items()]
    for origin in sorted(points.keys() - clashes.keys(), key=str):
        try:
            if origin in _hung:
                raise _hung[origin]
            with guarded(seconds):
                found[origin] = _methods(manager, points[origin], origin)
        except Exception as error:
            if isinstance(error, HangError):
                _hung[origin] = error
            faults.append(Fault(origin, in_a_line(error)))
    for origin, reason in _clashes(found).items():
        faults.append(Fault(origin, f"two plugins bring the method {reason}", tuple(found.pop(origin))))
    methods = {name: (method, origin) for origin, brought in found.items() for name, method in brought.items()}
    return Registry(
        {name: methods[name][0] for name in sorted(methods)},
        {name: methods[name][1] for name in sorted(methods)},
        tuple(sorted(faults, key=str)),
        tuple(block),
    )


def _origin(point: importlib.metadata.EntryPoint) -> Origin:
    known = point.dist
    return Origin(known.name if known else "unknown distribution", known.version if known else "?", point.name)


def _clashes(names: Mapping[Origin, Collection[str]]) -> dict[Origin, str]:
    """The plugins to leave out because a name of theirs is another's, with that name and the other; never our own."""
    ours = {origin for origin in names if origin.distribution == hooks.PROJECT}
    strangers = names.keys() - ours
    reasons: dict[Origin, str] = {}
    for rivals in (ours, strangers):  # what clashes with ours is out, and so in nobody's way
        left = strangers - reasons.keys()
        for origin in left:
            for other in sorted((rivals & (ours | left)) - {origin}, key=str):
                for name in sorted(set(names[origin]) & set(names[other])):
                    reasons[origin] = f'"{name}", this one and {other}; uninstall one, or leave it out with --block.'
    return reasons


def _methods(
    manager: pluggy.PluginManager, point: importlib.metadata.EntryPoint, origin: Origin
) -> dict[str, PeftMethod]:
    """Load one plugin, and check what it brings."""
    plugin = point.load()
    manager.register(plugin, point.name)
    caller = manager.subset_hook_caller("register_methods", manager.get_plugins() - {plugin})
    if not caller.get_hookimpls():
        raise PluginError("the module has no `@autopeft.hookimpl def register_methods()`.")
    manager.check_pending()
    found: dict[str, PeftMethod] = {}
    for method in (method for result in caller() for method in result):
        if not isinstance(method, PeftMethod):
            raise PluginError(f"register_methods() must yield PeftMethod instances, but yielded {method!r}.")
        name = str(getattr(method, "name", ""))
        if not name.isidentifier():
            raise PluginError(f"a method needs an identifier as `name`, but {type(method).__name__} has {name!r}.")
        if name in found:
            raise PluginError(f'register_methods() must yield each method once, but yielded two named "{name}".')
        _check_contract(method, origin)
        _check_signatures(method)
        for space in (method.search_space, method.training_space):
            if not isinstance(answer := space(), SearchSpace):
                raise PluginError(f"{space.__name__}() must return a SearchSpace, but returned {answer!r}.")
        found[name] = method
    return found


def _check_signatures(method: PeftMethod) -> None:
    """What the host calls must take what the host gives, and may leave out where it does."""
    for name, function in inspect.getmembers(PeftMethod, inspect.isfunction):
        wanted = [
            parameter for parameter in inspect.signature(function).parameters.values() if parameter.name != "self"
        ]
        given = inspect.signature(getattr(method, name))
        try:
            given.bind(*wanted)
            given.bind(*(parameter for parameter in wanted if parameter.default is parameter.empty))
        except TypeError:
            raise PluginError(
                f"{type(method).__name__}.{name}() must take ({_shown(wanted)}) as PeftMethod's does, but takes "
                f"({_shown(given.parameters.values())})."
            ) from None


def _shown(parameters: Iterable[inspect.Parameter]) -> str:
    """As in a signature, without annotations."""
    return ", ".join(str(parameter.replace(annotation=parameter.empty)) for parameter in parameters)


def _check_contract(method: PeftMethod, origin: Origin) -> None:
    stated = getattr(method, "contract", None)
    if stated == CONTRACT:
        return
    kind = type(method).__name__
    if stated is None:
        raise PluginError(
            f"a method must state the contract it was written for, but {kind} does not; this autopeft has contract "
            f"{CONTRACT}. Add `contract = {CONTRACT}` to the class, and run `autopeft check {method.name}`."
        )
    raise PluginError(
        f"{kind} was written for contract {stated}, but this autopeft has contract {CONTRACT}; install another version "
        f"of {origin.distribution}, or of autopeft."
    )
