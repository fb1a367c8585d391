"""The user's own function: a setting names it, and it is in a Python file beside the study file."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from typing import TYPE_CHECKING, Any

from autopeft.common.exceptions import SpecError, brief, in_a_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAME = re.compile(r"[A-Za-z_]\w*:[A-Za-z_]\w*")


def load(name: str, folder: Path, setting: str, others: str) -> tuple[Callable[..., Any], str]:
    """The function of that name, and the SHA-256 of its file.

    Args:
        name: ``module:function``; `module.py` is in the folder.
        folder: of the study file.
        setting: the setting that names it, for errors, such as "`metric` in [validation]".
        others: what the setting may hold instead of a function, also for errors.

    Raises:
        SpecError: there is no such file or function, or the file fails when it runs.
    """
    form = f"{setting} must be {others}, or `module:function` of a file beside the study"
    if not NAME.fullmatch(name):
        raise SpecError(f'{form}, but got "{brief(name)}".')
    module, _, function = name.partition(":")
    path = folder / f"{module}.py"
    if not path.is_file():
        raise SpecError(f'{form}, but got "{brief(name)}", and there is no file {path}.')
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    spec = importlib.util.spec_from_file_location(f"autopeft_user_{module}_{digest[:8]}", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(loaded)
    except Exception as error:  # a user's file may raise anything
        raise SpecError(f"{setting}: {path} fails when it runs: {in_a_line(error)}.") from error
    found = getattr(loaded, function, None)
    if not callable(found):
        raise SpecError(f"{setting}: {path} must have a function `{function}`, but does not.")
    return found, digest
