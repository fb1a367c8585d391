"""The references in a study file: base models, rows and earlier studies, each a path, `package:…` or a hub id."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, PlainValidator

from autopeft.common.address import is_address
from autopeft.common.exceptions import shorten
from autopeft.common.locate import PACKAGE
from autopeft.common.paths import as_path


def _reference(text: str) -> str:
    """Check that a reference is a path, `package:…` or a hub id, not an address, which may hold a password."""
    if is_address(text):
        raise ValueError(
            "must be a path, `package:…` or a hub id, but is an address (not repeated here, because it may hold a "
            "password); download the file and give its path"
        )
    as_path(text.removeprefix(PACKAGE))
    return text


Reference = Annotated[str, Field(min_length=1), AfterValidator(_reference)]


MOST_STARTS = 100
"""Most references in one setting."""


def _references(given: Any) -> str | list[str]:
    """One reference, or a list of them; checked only here, as pydantic would report what is wrong for either type."""
    found = given if isinstance(given, list) else [given]
    if not 0 < len(found) <= MOST_STARTS or not all(isinstance(one, str) and one for one in found):
        raise ValueError(
            f"must be a text in quotes that is not empty, or a list of 1 to {MOST_STARTS} of these, but got "
            f"{shorten(given)}"
        )
    for one in found:
        _reference(one)
    return given if isinstance(given, str) else found


References = Annotated[str | list[str], PlainValidator(_references, json_schema_input_type=str | list[str])]


MOST_CANDIDATES = 8
"""Most base models of one study: each is loaded, and tried first with a method's default."""


def several(given: Any) -> list[str]:
    """The base models of one study; checked only here, as pydantic would report each entry."""
    found = given if isinstance(given, list) else []
    if not 2 <= len(found) <= MOST_CANDIDATES or not all(isinstance(one, str) and one for one in found):
        raise ValueError(
            f"`candidates` must be a list of 2 to {MOST_CANDIDATES} base models, each a text in quotes that is not "
            f"empty, but got {shorten(given)}; for a single model, use `name_or_path`"
        )
    for place, one in enumerate(found):
        try:
            _reference(one)
        except ValueError as error:
            raise ValueError(f"`candidates[{place}]` {error}") from None
        if one in found[:place]:
            raise ValueError(f"`candidates` must name each base model once, but names {shorten(one)} twice")
    return found
