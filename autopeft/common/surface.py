"""The public names of a package, each resolved when it is first used.

So a package says in one place what it is for and what it offers, and importing one of its light modules does not
import its heavy ones (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def surface(package: str, names: Mapping[str, str]) -> Callable[[str], object]:
    """A package's `__getattr__`.

    Args:
        package: its `__name__`.
        names: public name → the module of the package that holds it.
    """

    def resolve(name: str) -> object:
        if name in names:
            return getattr(importlib.import_module(f"{package}.{names[name]}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return resolve
