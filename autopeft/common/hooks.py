"""The markers and the hooks a plugin implements.

A plugin is a distribution with an entry point in the group ``autopeft`` whose module implements at least one hook:

```toml
[project.entry-points.autopeft]
lora = "autopeft_lora"
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable

PROJECT = "autopeft"
"""The pluggy project name, and the entry-point group."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a plugin's hook implementation: ``@autopeft.hookimpl``."""


@hookspec
def register_methods() -> Iterable[Any]:  # type: ignore[empty-body]  # pluggy reads the signature alone
    """Return the methods this plugin brings, each an `autopeft.PeftMethod` instance.

    Called once per process, also by `autopeft methods`: keep torch, transformers and peft out of the import.
    """


@hookspec
def register_tasks() -> Iterable[Any]:  # type: ignore[empty-body]  # pluggy reads the signature alone
    """Return the kinds of task this plugin brings, each an `autopeft.Task` instance.

    Called once per process, also by `autopeft tasks`: keep torch, transformers and scikit-learn out of the import.
    """


@hookspec
def register_backends() -> Iterable[Any]:  # type: ignore[empty-body]  # pluggy reads the signature alone
    """Return the backends this plugin brings, each an `autopeft.BackendFactory` instance.

    Called once per process where a study names a backend: keep torch, and what the backend itself needs, out of the
    import.
    """
