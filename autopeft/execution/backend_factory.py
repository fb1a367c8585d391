"""The contract between the host and a plugin with a backend, and the backends that plugins bring."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from autopeft.common.containment import unguarded
from autopeft.common.exceptions import PluginError, SpecError, brief
from autopeft.common.plugins import LOADING_SECONDS, Found, Origin, check_contract, check_signatures, load_plugins
from autopeft.study.sections import LOCAL_BACKEND

if TYPE_CHECKING:
    from autopeft.execution.backend import Backend
    from autopeft.execution.study_work import StudyWork
    from autopeft.study.file import StudySpec

CONTRACT = 1
"""The version of this contract. It rises when backends written for the old one no longer work."""


class BackendFactory(ABC):
    """Makes backends of one kind: what runs the trials of a study, such as a cluster.

    Class attributes:
        contract: the version of this contract that it was written for, as a number.
        name: its name in study files.
    """

    contract: ClassVar[int]
    name: ClassVar[str]

    def check(self, address: str | None) -> None:  # noqa: B027  # a backend without rules of its own needs none
        """Refuse what cannot work here. Called before torch is imported, so it must not take long. Default: nothing.

        Args:
            address: the setting of a study.

        Raises:
            SpecError: the address has another form, or a library is not installed; in one sentence, with what to do.
        """

    @abstractmethod
    def make(self, work: StudyWork) -> Backend:
        """A backend for the trials of a study. It may connect to machines only when its `with` block begins."""


def backend_mistakes(spec: StudySpec, block: tuple[str, ...] = ()) -> list[str]:
    """A sentence for each mistake in a study's `backend`; plugins are loaded only if it is not the local one.

    Args:
        spec: the study.
        block: entry points to leave out.
    """
    search = spec.search
    if search.backend == LOCAL_BACKEND:
        return []
    if spec.model.candidates:
        return [
            f'`backend` in [search] must be "{LOCAL_BACKEND}" if [model] has `candidates`, because each worker would '
            f"load all of them, but is {brief(search.backend)}; remove it, or give one `name_or_path`."
        ]
    try:
        find_backend(search.backend, block).check(search.address)
    except SpecError as error:
        return [str(error)]
    return []


def find_backend(name: str, block: tuple[str, ...] = ()) -> BackendFactory:
    """The factory of the backend of that name.

    Raises:
        SpecError: no plugin brings it, or its plugin is broken.
    """
    found = discover(block)
    if name not in found.items:
        broken = next((str(fault) for fault in found.faults if fault.concerns(name)), None)
        installed = f"installed: {', '.join([LOCAL_BACKEND, *found.items])}"
        why = f"its plugin is broken: {broken}" if broken else f"{installed}. Install the plugin that brings it."
        raise SpecError(f'`backend` in [search] is "{brief(name)}", which no plugin provides; {why}')
    return found.items[name]


@functools.cache
@unguarded()
def discover(block: tuple[str, ...] = (), seconds: float = LOADING_SECONDS) -> Found[BackendFactory]:
    """The backends of every plugin that can be used; see `load_plugins`. A process looks for them once."""
    return load_plugins("register_backends", "backend", _check, block, seconds)


def _check(factory: Any, origin: Origin) -> tuple[str, BackendFactory]:
    if not isinstance(factory, BackendFactory):
        raise PluginError(f"register_backends() must yield BackendFactory instances, but yielded {factory!r}.")
    name, shown = str(getattr(factory, "name", "")), type(factory).__name__
    if not name.isidentifier() or name == LOCAL_BACKEND:
        raise PluginError(
            f'a backend needs an identifier as `name`, and not "{LOCAL_BACKEND}", but {shown} has {name!r}.'
        )
    check_contract(getattr(factory, "contract", None), CONTRACT, factory, "backend", name, origin)
    check_signatures(factory, BackendFactory)
    return name, factory
