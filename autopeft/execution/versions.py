"""What must be the same on every machine that trains for a study: versions, and the code of plugins."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autopeft.execution.problem import Problem

LIBRARIES = ("numpy", "peft", "safetensors", "torch", "transformers")
"""Distributions whose version can change what a trial computes, or what is sent from one machine to another."""

SHOWN = 12
"""Characters of a digest: enough to tell two apart."""


def versions_of(problem: Problem) -> dict[str, str]:
    """The versions of Python, libraries and autopeft, and those of the plugins that a problem uses, with their code."""
    found = {"Python": ".".join(platform.python_version_tuple()[:2]), **{name: _version(name) for name in LIBRARIES}}
    found["autopeft"] = f"{_version('autopeft')} (code {_code('autopeft')})"
    for name, part in problem.space.items():
        found[f"the plugin of {name}, {problem.origins[name].distribution}"] = _described(
            type(part.method), name, problem
        )
    kind = type(problem.task)
    found[f"the plugin of {problem.task.kind}"] = f"code {_code(kind.__module__.partition('.')[0])}"
    return found


def differences(here: dict[str, str], there: dict[str, str]) -> list[str]:
    """What differs, a phrase each: the name, then what is there and here."""
    names = [name for name in {**here, **there} if here.get(name) != there.get(name)]
    return [f"{name} is {there.get(name, 'missing')} there and {here.get(name, 'missing')} here" for name in names]


def _described(method: type, name: str, problem: Problem) -> str:
    return f"{problem.origins[name].version} (code {_code(method.__module__.partition('.')[0])})"


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


@functools.cache
def _code(package: str) -> str:
    """The beginning of a SHA-256 of a package's Python files, or of a module's."""
    spec = importlib.util.find_spec(package)
    digest = hashlib.sha256()
    roots = [Path(root) for root in (spec and spec.submodule_search_locations) or ()]
    files = [(path, path.relative_to(root).as_posix()) for root in roots for path in root.rglob("*.py")]
    if not roots and spec and spec.origin:
        files = [(Path(spec.origin), Path(spec.origin).name)]
    for path, name in sorted(files, key=lambda file: file[1]):
        content = path.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:SHOWN]
