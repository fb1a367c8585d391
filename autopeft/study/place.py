"""Finds a study from any of three paths: its study file, its output folder or its winner's folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autopeft.common.exceptions import SpecError, UserInputError, brief
from autopeft.study.card import CARD
from autopeft.study.folder import JOURNAL, STUDY_FILE, WINNER, holds_study
from autopeft.study.winner_of_task import is_task, is_winner, of_each_task, of_task

if TYPE_CHECKING:
    from pathlib import Path

    from autopeft.study.file import StudySpec

NAMES = "a study file, the output folder of a study or its winner's folder"


@dataclass(frozen=True)
class Place:
    """Where a study writes.

    Attributes:
        output: its output folder.
        name: the study's name.
        tracking_uri: of the MLflow store that its file names; None where it names none.
    """

    output: Path
    name: str
    tracking_uri: str | None


def place_of(given: Path) -> Place:
    """The study that a path means.

    Args:
        given: a study file, an output folder, or a winner's folder in one.

    Raises:
        UserInputError: it is none of these, or the study file has mistakes.
    """
    if given.is_dir():
        return _kept(_folder_of_study(given))
    spec = _spec(given)
    return Place(spec.output, spec.name, spec.tracking.uri)


def output_of(given: Path) -> Path:
    """The output folder of the study that a path means, whether or not the study has begun.

    Raises:
        UserInputError: as `place_of`.
    """
    return _folder_of_study(given) if given.is_dir() else _spec(given).output


def winner_of(given: Path, task: str | None = None) -> Path:
    """The winner's folder of the study that a path means.

    Args:
        given: as for `place_of`; the winner's folder itself may be anywhere.
        task: the name of one of the study's several tasks; None if it has one task.

    Raises:
        UserInputError: it is none of these, there is no winner yet, or the task is missing or unknown.
    """
    return of_task(_winner(given), task)


def winners_of(given: Path) -> list[Path]:
    """The folders of all winners that a path means: one, or that of each task of a study of several.

    Raises:
        UserInputError: as `winner_of`.
    """
    return of_each_task(_winner(given))


def study_file_of(given: Path) -> Path:
    """The study file that a path means: itself, or the one kept in the output folder of a study started without one.

    Raises:
        SpecError: the path is a folder that holds none.
    """
    if not given.is_dir():
        return given
    found = (_output(given) or given) / STUDY_FILE
    if not found.is_file():
        raise SpecError(
            f"{brief(given)} is a folder without a study file ({STUDY_FILE}); give the study file itself. Only a study "
            "that was started without a study file keeps one in its output folder."
        )
    return found


def _none(given: Path, lack: str) -> UserInputError:
    if not given.exists():
        return UserInputError(f"{brief(given)} must be {NAMES}, but does not exist.")
    return UserInputError(
        f"{brief(given)} must be {NAMES}, but is a folder without {lack}; give another one, or start a study with "
        "`autopeft run`."
    )


def _winner(given: Path) -> Path:
    """The folder that holds a winner, or one for each of several tasks."""
    folder = given if given.is_dir() or not given.exists() else _spec(given).output
    for found in (folder, folder / WINNER):
        if is_winner(found):
            return found
    if holds_study(folder) or folder is not given:
        raise UserInputError(f"{brief(folder)} holds no winner yet; run its study to the end with `autopeft run`.")
    raise _none(given, CARD)


def _spec(given: Path) -> StudySpec:
    from autopeft.study.file import StudySpec

    if not given.exists():
        raise _none(given, "")
    return StudySpec.from_file(given)


def _folder_of_study(folder: Path) -> Path:
    output = _output(folder)
    if output is None and is_winner(folder):
        raise UserInputError(
            f"{brief(folder)} holds a winner, but its parent folder holds no study; give the study file or the output "
            "folder of its study."
        )
    if output is None:
        raise _none(folder, JOURNAL)
    return output


def _output(folder: Path) -> Path | None:
    """A folder if it is an output folder, or its parent if it is a winner's folder."""
    around = folder.absolute().parent
    inside = [around.parent if is_task(folder) else around] if is_winner(folder) else []
    return next((one for one in (folder, *inside) if holds_study(one)), None)


def _kept(output: Path) -> Place:
    """The place of the study in an output folder, from its own store."""
    from autopeft.study.storage import open_study

    if study := open_study(output):
        given = study.user_attrs.get("given", {})
        return Place(output, study.study_name, given.get("tracking", {}).get("uri"))
    raise UserInputError(f"the study in {output} has not started; run it with `autopeft run`.")
