"""A function of the user's own: of a Python file beside the study file, as a setting names it."""

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
        setting: which one names it, for errors, such as "`metric` in [validation]".
        others: what the setting may hold beside a function, likewise.

    Raises:
        SpecError: there is no such file or function, or the file fails as it runs.
    """
    form = f"{setting} must be {others}, or `module:function` of a file beside the study"
    if not NAME.fullmatch(name):
        raise SpecError(f'{form}, but got "{brief(name)}".')
    module, _, function = name.partition(":")
    path = folder / f"{module}.py"
    if not path.is_file():
        raise SpecError(f'{form}, but for "{brief(name)}" there is no file {path}.')
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    spec = importlib.util.spec_from_file_location(f"autopeft_user_{module}_{digest[:8]}", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(loaded)
    except Exception as error:  # a file of the user's may raise anything
        raise SpecError(f"{setting}: {path} fails as it is run: {in_a_line(error)}.") from error
    found = getattr(loaded, function, None)
    if not callable(found):
        raise SpecError(f"{setting}: {path} must have a function `{function}`, but has none.")
    return found, digest
