"""What an interrupted trial leaves behind: each fold's training state, from which it goes on as if nothing happened."""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from autopeft.common.containment import paused
from autopeft.common.files import DRAFT, whole
from autopeft.study.folder import CHECKPOINTS
from autopeft.study.journal import writing
from autopeft.training.collapse import COLLAPSED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import torch

    from autopeft.common.params import ParamValue
    from autopeft.training.learner import Learner


class Reached(NamedTuple):
    """A fold's result at a rung: its score, its training loss and its state (`collapse`), empty if unknown."""

    score: float
    loss: float
    state: str = ""


History = list[Reached]
"""A fold's results, one per rung."""

OF_TRIAL = re.compile(r"[0-9a-f]{16}")
OF_FOLD = re.compile(rf"\d+\.(safetensors|draft)|{DRAFT.pattern}|\.tmp[0-9A-Za-z]{{6}}")
"""Names of a trial's folder and of the files in it: nothing else is ever removed. The last pattern is of files that
safetensors writes first, and leaves behind if the process is killed.
"""

SENT = re.compile(r"\d+\.safetensors")
"""Names of the files in it that another machine needs to go on."""


@dataclass(frozen=True)
class Checkpoint:
    """The folds of one trial on disk, a safetensors file each, written whole or not at all.

    Random numbers are drawn per fold and epoch, so a fold that goes on from its file ends where it would have anyway.
    """

    folder: Path

    @classmethod
    def of(cls, output: Path, params: Mapping[str, ParamValue]) -> Checkpoint:
        """The checkpoint of the trial with these params."""
        return cls(output / CHECKPOINTS / _key(params))

    @staticmethod
    def clear(output: Path, waiting: Iterable[Mapping[str, ParamValue]] = ()) -> None:
        """Remove all checkpoints in `output` except those of `waiting` trials. Call it while no trial runs."""
        kept = {_key(params) for params in waiting}
        for folder in (output / CHECKPOINTS).glob("*"):
            if OF_TRIAL.fullmatch(folder.name) and folder.name not in kept:
                Checkpoint(folder).remove()
        with suppress(OSError):  # a trial waits, there never was one, or somebody's own files are there
            (output / CHECKPOINTS).rmdir()

    def keep(self, folds: Iterable[int], learner: Learner, histories: Iterable[History]) -> None:
        """Write the state of a learner's folds, and their results at each rung so far.

        Raises:
            StoreError: it could not be written.
        """
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        parts = list(zip(folds, learner.states(), histories, strict=True))
        with paused(), writing(self.folder, SafetensorError):
            self.folder.mkdir(parents=True, exist_ok=True)
            for fold, state, history in parts:
                with whole(self._file(fold)) as draft:
                    save_file(state, draft, metadata={"history": json.dumps(history)})

    def restore(self, folds: Iterable[int], learner: Learner) -> list[History]:
        """Restore a learner from its folds' files; returns their histories, empty if there are no files."""
        found = [_read(self._file(fold)) for fold in folds]
        if states := [state for state, history in found if history]:
            learner.restore(states)
        return [history for _, history in found]

    def files(self) -> dict[str, bytes]:
        """The folds' files by name, to send them to another machine; empty if there are none."""
        with suppress(OSError):
            return {path.name: path.read_bytes() for path in self.folder.iterdir() if SENT.fullmatch(path.name)}
        return {}

    def receive(self, files: Mapping[str, bytes]) -> None:
        """Put files here that `files` gave on another machine.

        Raises:
            StoreError: they could not be written.
        """
        with writing(self.folder):
            for name, content in files.items():
                if SENT.fullmatch(name):
                    self.folder.mkdir(parents=True, exist_ok=True)
                    with whole(self.folder / name) as draft:
                        draft.write_bytes(content)

    def even(self, folds: int) -> bool:
        """Whether all folds stand at the same rung, so that they can go on side by side."""
        return len({len(_read(self._file(fold))[1]) for fold in range(folds)}) == 1

    def holds(self, fold: int) -> bool:
        """Whether there is a state from which the fold can go on."""
        return bool(_read(self._file(fold))[1])

    def rungs(self, folds: int) -> int:
        """How many rungs all folds have reached."""
        return min(len(_read(self._file(fold))[1]) for fold in range(folds))

    def learnt(self, folds: int) -> list[int]:
        """The folds that had not collapsed at their last rung."""
        last = [_read(self._file(fold))[1][-1:] for fold in range(folds)]
        return [fold for fold, reached in enumerate(last) if reached and reached[0].state != COLLAPSED]

    def remove(self) -> None:
        """Delete it: the trial ended, and its record is kept."""
        with suppress(OSError):
            for path in self.folder.iterdir():
                if OF_FOLD.fullmatch(path.name):
                    path.unlink()
            self.folder.rmdir()

    def _file(self, fold: int) -> Path:
        return self.folder / f"{fold}.safetensors"


def _read(path: Path) -> tuple[dict[str, torch.Tensor], History]:
    """The state and the history in a fold's file; empty if there is no file, or a power cut damaged it."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is not a mapping
            return state, [Reached(*rung) for rung in json.loads(file.metadata()["history"])]
    except (OSError, SafetensorError, ValueError, TypeError, KeyError):
        return {}, []


def _key(params: Mapping[str, ParamValue]) -> str:
    return hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()[:16]
