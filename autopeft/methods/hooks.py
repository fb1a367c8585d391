"""The markers and the one hook a method plugin implements.

A plugin is a distribution with an entry point in the group ``autopeft`` whose module implements the hook:

```toml
[project.entry-points.autopeft]
lora = "autopeft_lora"
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from autopeft.methods.contract import PeftMethod

PROJECT = "autopeft"
"""The pluggy project name, and the entry-point group."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a plugin's hook implementation: ``@autopeft.hookimpl``."""


@hookspec
def register_methods() -> Iterable[PeftMethod]:  # type: ignore[empty-body]  # pluggy reads the signature alone
    """Return the methods this plugin brings, each a `PeftMethod` instance.

    Called once per process, also by `autopeft methods`: keep torch, transformers and peft out of the import.
    """
