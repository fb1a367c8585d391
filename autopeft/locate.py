"""Find what a study file refers to: a file of an installed package, a local path, or a name on the Hugging Face hub."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from autopeft.exceptions import UserInputError, brief, shorten
from autopeft.paths import as_path

PACKAGE = "package:"
HUB_ID = re.compile(r"^[\w-][\w.-]*(/[\w-][\w.-]*)?$")
FILE_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".toml", ".txt", ".arrow")


class NotFoundError(UserInputError):
    """A reference in a study file leads nowhere."""


def locate(reference: str, folder: Path) -> Path | str:
    """The local path that `reference` means, or `reference` itself where it can only be a hub id.

    Args:
        reference: ``package:name/inner/path`` (found without importing the package), a path (relative ones start at
            `folder`), or a hub id such as ``org/name``.
        folder: where the study file is.

    Raises:
        NotFoundError: no such package or file, and no hub id either.
    """
    if reference.startswith(PACKAGE):
        return _in_package(reference)
    try:
        path = folder / as_path(reference)
    except ValueError as error:
        raise NotFoundError(f"a reference {error}.") from None
    if path.exists():
        return path
    if HUB_ID.match(reference) and not reference.lower().endswith(FILE_SUFFIXES):
        return reference
    raise NotFoundError(
        f'"{brief(reference)}" must be an existing path, `package:…` or a hub id, but {brief(path, 300)} does not '
        "exist."
    )


def portable(reference: str, folder: Path) -> str:
    """`reference` in a form that does not depend on where the study file is: local paths made absolute."""
    found = locate(reference, folder)
    return str(found.resolve()) if isinstance(found, Path) and not reference.startswith(PACKAGE) else reference


def _in_package(reference: str) -> Path:
    name, _, inner = reference.removeprefix(PACKAGE).partition("/")
    try:
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise NotFoundError(
            f'"{brief(reference)}" names the package {shorten(name)}, which is not installed; '
            f"install it (pip install {brief(name.replace('_', '-'))}), or give a path."
        )
    candidates = [Path(root) / inner for root in spec.submodule_search_locations]
    for path in candidates:
        if path.exists():
            return path
    raise NotFoundError(
        f'"{brief(reference)}" must exist inside the package {name!r}, but {brief(candidates[0], 300)} does not.'
    )
