"""The models in a winner's folder: one, or one for each fold in its own folder, which answer together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopeft.common.exceptions import UserInputError
from autopeft.models import weights_file
from autopeft.models.readers import READERS
from autopeft.models.weights_file import OWN_FILES, PEFT_FILES, write_weights
from autopeft.study.card import CARD, MOST_MEMBERS
from autopeft.study.journal import writing
from autopeft.winner.base_model import load_base_of
from autopeft.winner.method import method_of
from autopeft.winner.readme import README
from autopeft.winner.task import task_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from torch import nn

    from autopeft.methods.contract import PeftMethod
    from autopeft.models.base import BaseModel
    from autopeft.study.card import Card

FEW = 1_000
"""A head with up to this many classes is built without a check against the weights."""

OWN = (*OWN_FILES, *PEFT_FILES)

MEMBER_FILES = {f"fold_{number}/{name}" for number in range(MOST_MEMBERS) for name in (*OWN, README)}
"""Names of files in the folders of folds."""


def write(modules: nn.Module | Iterable[nn.Module], method: PeftMethod, folder: Path) -> tuple[int, dict[str, str]]:
    """Write the weights of a model, or of several, one after another as they come.

    Returns:
        The number of several models, 0 for a single one; and the SHA-256 of each file, by its path in the folder.

    Raises:
        StoreError: they could not be written.
    """
    from torch import nn

    if isinstance(modules, nn.Module):
        return 0, write_weights(modules, method, folder)
    digests, count = dict[str, str](), 0
    for module in modules:
        inner = folder / f"fold_{count}"
        with writing(folder):
            inner.mkdir(exist_ok=True)
        digests |= {f"{inner.name}/{name}": digest for name, digest in write_weights(module, method, inner).items()}
        with writing(folder):
            (inner / README).unlink(missing_ok=True)  # peft's, which knows nothing about the winner
        count += 1
    return count, digests


def read(folder: Path, card: Card, *, trust_remote_code: bool) -> tuple[BaseModel, list[nn.Module]]:
    """A winner's base model, and each of its models with the add-on.

    Raises:
        UserInputError: as `winner.load`.
    """
    if card.trust_remote_code and not trust_remote_code:
        raise UserInputError(
            f"{folder} needs code that its base model {card.base_model} brings, and autopeft runs it only on request; "
            "if you trust that model, load the winner with `trust_remote_code=True` (`--trust-remote-code`)."
        )
    task = task_of(card, folder)
    members = {f"fold_{number}/": folder / f"fold_{number}" for number in range(card.members)} or {"": folder}
    shapes = weights_file.shapes(next(iter(members.values())))
    widest = max((max(shape, default=1) for shape in shapes.values()), default=1)
    if len(card.labels) > max(widest, FEW):  # each label costs a row of the head
        raise UserInputError(
            f"{folder / CARD} must name the classes of its weights, but has {len(card.labels):,} labels, while no "
            f"tensor has more than {widest:,} rows; restore it."
        )
    base = load_base_of(card, task)
    READERS[task.processor].of_winner(base.processor, base.module, card, str(folder / CARD))
    return base, [_model(base, inner, prefix, card) for prefix, inner in members.items()]


def _model(base: BaseModel, folder: Path, prefix: str, card: Card) -> nn.Module:
    """The model whose weights are in the folder; their names on the card have the prefix."""
    named = {name.removeprefix(prefix): digest for name, digest in card.digests.items() if name.startswith(prefix)}
    return weights_file.read_weights(
        base,
        lambda: method_of(card),
        card.params,
        folder,
        seed=card.seed,
        name=card.method,
        digests={name: digest for name, digest in named.items() if name != CARD},
    )
