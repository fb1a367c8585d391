"""Finds the base model of a winner."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from autopeft.common.exceptions import ModelError
from autopeft.common.locate import NotFoundError, locate
from autopeft.models import digest

if TYPE_CHECKING:
    from autopeft.models import base as models
    from autopeft.study.card import Card
    from autopeft.tasks.contract import Task


def find_base(card: Card) -> Path | str:
    """The place of a winner's base model, checked to be the one that it was trained on.

    Raises:
        ModelError: it is gone or has changed.
    """
    try:
        location = locate(card.base_model, Path.cwd(), digest.kind_of(card.base_digest))
    except NotFoundError as error:
        raise ModelError(f"the winner's base model cannot be found: {error}") from None
    if isinstance(location, Path) and card.base_digest and (found := digest.of(location)) != card.base_digest:
        raise ModelError(
            f"the base model {location} is not the one that the winner was trained on (digest "
            f"{card.base_digest[:19]}… then, {found[:19]}… now), so it would predict something else; restore the old "
            "files, or run the study again."
        )
    return location


def load_base_of(card: Card, task: Task) -> models.BaseModel:
    """A winner's base model without the add-on, and with the winner's head still untrained.

    It is described as without linear maps in the layers whose add-ons were dropped.

    Raises:
        ModelError: it is gone or has changed.
    """
    from autopeft.models.load import load_base

    base = load_base(
        find_base(card),
        task,
        seed=card.seed,
        trust_remote_code=card.trust_remote_code,
        config_overrides=task.config(card.labels),
        quantized=card.quantization,
        revision=digest.revision_of(card.base_digest),
    )
    return base.bare_below(card.dropped_layers)
