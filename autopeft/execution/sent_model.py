"""The base model of a study on another machine: found there if it is the same, else received once and kept."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from autopeft.common import cache
from autopeft.common.exceptions import ModelError, StoreError, UserInputError
from autopeft.common.files import draft_folder
from autopeft.common.locate import locate
from autopeft.models import digest
from autopeft.study.journal import writing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from autopeft.execution.work_order import WorkOrder

RECEIVED = "base_models"
"""Folder in the user's cache for base models that were received, each under its identity."""


class SentModel:
    """Finds or receives the base model of an order. Workers of one machine share what one of them received.

    Args:
        order: names it.
    """

    def __init__(self, order: WorkOrder) -> None:
        self._order, self._reference = order, order.spec.model.name_or_path

    @property
    def lacking(self) -> bool:
        """Whether its files must be received."""
        return not (self._order.on_hub or self._here() or _is(self._place, self._order.base_digest))

    def ready(self, files: Iterable[tuple[str, bytes]]) -> str:
        """A reference to the base model on this machine.

        Args:
            files: names and pieces of its files, in order; read only if it is not here.

        Raises:
            StoreError: it could not be written.
        """
        if self._order.on_hub or self._here():
            return self._reference
        place = self._place
        with writing(place):
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with FileLock(f"{place}.lock"):  # another worker of this machine may be receiving it
                if not _is(place, self._order.base_digest):
                    shutil.rmtree(place, ignore_errors=True)
                    self._receive(place, files)
        return str(place)

    def _receive(self, place: Path, files: Iterable[tuple[str, bytes]]) -> None:
        with draft_folder(place) as draft:
            for name, piece in files:
                path = draft / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("ab") as file:
                    file.write(piece)
            if not _is(draft, self._order.base_digest):
                raise StoreError(f"the base model did not arrive whole at {place}; run the same command again.")
            os.replace(draft, place)

    def _here(self) -> bool:
        """Whether the study's own reference leads to the same model here."""
        try:
            found = locate(self._reference, Path("/"))
        except UserInputError:
            return False
        return isinstance(found, Path) and _is(found, self._order.base_digest)

    @property
    def _place(self) -> Path:
        return cache.folder() / RECEIVED / self._order.base_digest.removeprefix(digest.FILES)


def _is(folder: Path, identity: str) -> bool:
    """Whether a folder holds the model of that identity."""
    try:
        return folder.is_dir() and digest.of(folder) == identity
    except ModelError:
        return False
