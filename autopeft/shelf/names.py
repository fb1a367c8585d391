"""The folders of winners, by the names that they are asked by; all must be trained on one base model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from autopeft.common.exceptions import ModelError, UserInputError, brief, quoted
from autopeft.study.card import Card, Evidence
from autopeft.study.folder import WINNER
from autopeft.study.place import winners_of
from autopeft.study.winner_of_task import is_task

if TYPE_CHECKING:
    from collections.abc import Sequence


EMPTY = "a shelf needs at least one winner, but none is named; give a winner's folder."


def find(folders: str | Path | Sequence[str | Path] | Mapping[str, str | Path]) -> dict[str, Path]:
    """The winners' folders by name: the key, `NAME=`, the study's name, or the folder's.

    A study of several tasks gives a winner for each; "/TASK" is added to its name.

    Args:
        folders: as for `Shelf.load`.

    Raises:
        UserInputError: there are none, a path leads to no winner, or two have one name.
        ModelError: two were trained on different base models, or on one in different precisions.
    """
    folders = [folders] if isinstance(folders, str | Path) else folders
    given = list(folders.items()) if isinstance(folders, Mapping) else [_named(folder) for folder in folders]
    if not given:
        raise UserInputError(EMPTY)
    found: dict[str, Path] = {}
    for chosen, path in given:
        for folder in winners_of(Path(path)):
            name = _name(chosen, folder, Path(path))
            if name in found:
                raise UserInputError(
                    f"each winner needs a name of its own, but {brief(found[name])} and {brief(folder)} are both "
                    f"{quoted(name)}; give one as NAME=FOLDER."
                )
            found[name] = folder
    _check({name: Card.read(folder) for name, folder in found.items()})
    return found


def _named(folder: str | Path) -> tuple[str, str | Path]:
    """A name, or none, and a path; a path with an equals sign in it is one if it exists."""
    name, mark, path = str(folder).partition("=")
    return ("", folder) if not mark or not name or "/" in name or Path(folder).exists() else (name, path)


def _name(chosen: str, folder: Path, given: Path) -> str:
    """The name of the winner in a folder to which the path `given` leads, with its task where it has several."""
    several = is_task(folder)
    if chosen:
        return chosen if not several or folder == given else f"{chosen}/{folder.name}"
    evidence, whole = Evidence.read(folder), folder.resolve()
    study = whole.parent if several else whole
    found = study.parent.name if study.name == WINNER else study.name
    if evidence and evidence.study:
        found = evidence.study
    return f"{found}/{whole.name}" if several else found


def _check(cards: Mapping[str, Card]) -> None:
    """Make sure that all cards name the same base model, with its tokenizer, in the same precision."""
    (first, card), *others = cards.items()
    for name, other in others:
        if (card.base_digest or card.base_model) != (other.base_digest or other.base_model):
            raise ModelError(
                "winners that are served together need the same base model with the same tokenizer, but "
                f"{quoted(first)} was trained on {brief(card.base_model)} ({_short(card)}) and {quoted(name)} on "
                f"{brief(other.base_model)} ({_short(other)}); serve it in a process of its own."
            )
        if card.quantization != other.quantization:
            raise ModelError(
                "winners that are served together need the base model in the same precision, but the `quantization` of "
                f'{quoted(first)} is "{card.quantization}" and that of {quoted(name)} "{other.quantization}"; serve it '
                "in a process of its own."
            )


def _short(card: Card) -> str:
    return f"digest {card.base_digest[:19]}…" if card.base_digest else "no digest on its card"
