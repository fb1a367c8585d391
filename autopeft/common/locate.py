"""Find what a study file refers to: a file of an installed package, a local path, or a name on the Hugging Face hub."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path, PurePosixPath

from autopeft.common.exceptions import UserInputError, brief, shorten
from autopeft.common.paths import as_path

PACKAGE = "package:"
HUB_ID = re.compile(r"^[\w-][\w.-]*(/[\w-][\w.-]*)?\Z")
"""What may be on the hub: a name, or an owner's and one. Nothing with another slash, a backslash, or a `.`, `/` or `~`
in front matches; that can only be a path."""

FILE_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".toml", ".txt", ".arrow")

IN_PACKAGE, LOCAL, ON_HUB = "package", "local", "hub"
"""Kinds of references. A reference keeps the kind that it had when its study began."""


class NotFoundError(UserInputError):
    """A reference in a study file does not exist."""


def locate(reference: str, folder: Path, kind: str | None = None) -> Path | str:
    """The local path that `reference` means, or `reference` itself where it can only be a hub id.

    Args:
        reference: ``package:name/inner/path`` (found without importing the package), a path (relative ones start at
            `folder`), or a hub id such as ``org/name``.
        folder: where the study file is.
        kind: its kind when the study began, if known: a path that has vanished is then not looked for on the hub, and a
            hub id is not taken for a folder that happens to have its name.

    Raises:
        NotFoundError: no such package or file, and no hub id either.
    """
    if reference.startswith(PACKAGE):
        return _in_package(reference)
    shown = f'"{brief(reference)}"'
    may_be_on_hub = bool(HUB_ID.match(reference)) and not reference.lower().endswith(FILE_SUFFIXES)
    if kind == ON_HUB and may_be_on_hub:
        return reference
    try:
        path = folder / as_path(reference)
    except ValueError as error:
        raise NotFoundError(f"a reference {error}.") from None
    if path.exists():
        return path
    if kind == LOCAL:
        raise NotFoundError(
            f"{shown} was a local path when this began, but {brief(path, 300)} no longer exists; put it back (it is "
            "not looked for on the hub)."
        )
    if may_be_on_hub:
        return reference
    raise NotFoundError(
        f"{shown} must be an existing path, `package:…` or a hub id, but {brief(path, 300)} does not exist."
    )


def kind_of(reference: str, folder: Path) -> str:
    """The kind of a reference: `IN_PACKAGE`, `LOCAL` or `ON_HUB`.

    Raises:
        NotFoundError: it does not exist.
    """
    found = locate(reference, folder)
    if reference.startswith(PACKAGE):
        return IN_PACKAGE
    return LOCAL if isinstance(found, Path) else ON_HUB


def portable(reference: str, folder: Path) -> str:
    """`reference` in a form that does not depend on where the study file is: local paths made absolute."""
    found = locate(reference, folder)
    return str(found.resolve()) if isinstance(found, Path) and not reference.startswith(PACKAGE) else reference


def as_reference(given: str | Path) -> str:
    """A reference from a caller's argument: a `Path` stays a path, whatever it looks like and even if it is missing."""
    if isinstance(given, Path) and HUB_ID.match(str(given)):
        return f"./{given}"
    return str(given)


def _in_package(reference: str) -> Path:
    name, _, inner = reference.removeprefix(PACKAGE).partition("/")
    shown = f'"{brief(reference)}"'
    try:
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise NotFoundError(
            f"{shown} names the package {shorten(name)}, which is not installed; "
            f"install it (pip install {brief(name.replace('_', '-'))}), or give a path."
        )
    if PurePosixPath(inner).is_absolute() or ".." in re.split(r"[/\\]", inner):
        raise NotFoundError(f"{shown} must stay inside the package {name!r}, without `..` and `//`; fix it.")
    roots = [Path(root) for root in spec.submodule_search_locations]
    for root in roots:
        path = root / inner
        try:
            found, home = path.resolve(strict=True), root.resolve()
        except (OSError, RuntimeError, ValueError):  # missing, a loop of links, or not a valid file name
            continue
        if not found.is_relative_to(home):
            raise NotFoundError(
                f"{shown} must stay inside the package {name!r}, but is a link to {found}; give that path itself."
            )
        return path
    raise NotFoundError(f"{shown} must exist inside the package {name!r}, but {brief(roots[0] / inner, 300)} does not.")
