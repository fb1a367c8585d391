"""Where the base model of a winner is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from autopeft.common.exceptions import ModelError
from autopeft.common.locate import NotFoundError, locate
from autopeft.models import digest

if TYPE_CHECKING:
    from autopeft.study.card import Card


def find_base(card: Card) -> Path | str:
    """Where a winner's base model is: the one that it was trained on, and no other in its place.

    Raises:
        ModelError: it is not there any more, or another is.
    """
    try:
        location = locate(card.base_model, Path.cwd(), digest.kind_of(card.base_digest))
    except NotFoundError as error:
        raise ModelError(f"the winner's base model is needed, but: {error}") from None
    if isinstance(location, Path) and card.base_digest and (found := digest.of(location)) != card.base_digest:
        raise ModelError(
            f"the winner was trained on another base model than {location} holds now (digest {card.base_digest[:19]}… "
            f"then, {found[:19]}… now), and would predict something else; put the files back that were there, or run "
            "the study again."
        )
    return location
