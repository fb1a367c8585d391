"""Empty the caches in which transformers keeps tensors for all models of a class.

Some models compute a table from sizes alone, such as BEiT's relative positions, and keep it with `functools.lru_cache`.
A fake tensor in such a cache would come back in the first real step.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn

CACHE = type(lru_cache(int))


def clear_cached_tensors(module: nn.Module) -> None:
    """Empty every cache of a function or method in the Python files that define the parts of a module.

    After `compile_compatible_method_lru_cache` in transformers/pytorch_utils.py, whose wrapper holds the cache in its
    closure. PyTorch's own layers keep no tensors.
    """
    files = {kind.__module__ for part in module.modules() for kind in type(part).__mro__}
    for file in files & sys.modules.keys():
        if file != "builtins" and not file.startswith("torch."):
            for function in _functions(vars(sys.modules[file])):
                for cell in getattr(function, "__closure__", None) or ():
                    with suppress(ValueError):  # an empty cell
                        if isinstance(cell.cell_contents, CACHE):
                            cell.cell_contents.cache_clear()


def _functions(names: Mapping[str, Any]) -> Iterator[Any]:
    """What a Python file defines, with the methods of its classes."""
    for value in [*names.values()]:
        yield value
        if isinstance(value, type):
            yield from (getattr(method, "__func__", method) for method in [*vars(value).values()])
