"""The methods of a study, each with its settings in the study file."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from autopeft.common.exceptions import MethodError, SpecError, brief
from autopeft.study.file import read_section

if TYPE_CHECKING:
    from collections.abc import Mapping

    from autopeft.methods.contract import PeftMethod
    from autopeft.methods.registry import Registry
    from autopeft.study.file import StudySpec


def with_settings(registry: Registry, spec: StudySpec) -> Registry:
    """The methods found, with the settings that a study gives them.

    Raises:
        SpecError: a table is no method's, or a setting is unknown, missing or wrong.
        MethodError: a method that needs settings is not installed.
    """
    given, methods = spec.methods.settings, dict(registry.methods)
    for name in {**given, **dict.fromkeys(spec.search.methods or ())}:
        if name in given or name in methods:  # else it is missed where it is needed
            methods[name] = _configured(registry, name, given.get(name), spec)
    return replace(registry, methods=methods)


def _configured(registry: Registry, name: str, given: Mapping[str, Any] | None, spec: StudySpec) -> PeftMethod:
    try:
        method = registry[name]
    except MethodError as error:
        raise SpecError(f"[methods.{name}] must be a method's settings, but {error}") from None
    if method.Options is None:
        if given:
            raise SpecError(
                f'"{brief(next(iter(given)))}" in [methods.{name}] is not a setting, because {name} has none; what is '
                f"searched is set in [search], as `{name}.DIMENSION`, and `autopeft methods {name}` lists that."
            )
        return method
    return method.configured(read_section(method.Options, given or {}, f"methods.{name}"), spec.folder)
