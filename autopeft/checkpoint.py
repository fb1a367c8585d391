"""What an interrupted trial leaves behind: each fold's training state, from which it goes on as if nothing happened."""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from autopeft.search_space import ParamValue
    from autopeft.training import Learner


History = list[tuple[float, float]]
"""A fold's score and loss at each rung."""

FOLDER = "checkpoint"


@dataclass(frozen=True)
class Checkpoint:
    """The folds of one trial on disk, a safetensors file each, written whole or not at all.

    Random numbers are drawn per fold and epoch, so a fold that goes on from its file ends where it would have anyway.
    """

    folder: Path

    @classmethod
    def of(cls, output: Path, params: Mapping[str, ParamValue]) -> Checkpoint:
        """The checkpoint of the trial with these params."""
        return cls(output / FOLDER / _key(params))

    @staticmethod
    def clear(output: Path, waiting: Iterable[Mapping[str, ParamValue]] = ()) -> None:
        """Remove what trials left in `output` but those with the params that are waiting; for when none runs."""
        kept = {_key(params) for params in waiting}
        for folder in (output / FOLDER).glob("*"):
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # one waits, or there never was any
            (output / FOLDER).rmdir()

    def keep(self, folds: Iterable[int], learner: Learner, histories: Iterable[History]) -> None:
        """Write where the folds of a learner stand: its state, and the score and loss at each rung so far."""
        from safetensors.torch import save_file

        self.folder.mkdir(parents=True, exist_ok=True)
        for fold, state, history in zip(folds, learner.states(), histories, strict=True):
            draft = self.folder / f"{fold}.draft"
            save_file(state, draft, metadata={"history": json.dumps(history)})
            draft.replace(self.folder / f"{fold}.safetensors")

    def restore(self, folds: Iterable[int], learner: Learner) -> list[History]:
        """Put a learner back where its folds' files say; returns their histories, empty where there are no files."""
        from safetensors import safe_open

        states, histories = [], list[History]()
        for fold in folds:
            path = self.folder / f"{fold}.safetensors"
            if not path.is_file():
                histories.append([])
                continue
            with safe_open(path, framework="pt") as file:
                states.append({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118  # no mapping
                histories.append([(score, loss) for score, loss in json.loads(file.metadata()["history"])])
        if states:
            learner.restore(states)
        return histories

    def even(self, folds: int) -> bool:
        """Whether all folds stand at the same rung, so that they can go on side by side."""
        from safetensors import safe_open

        rungs = []
        for path in self.folder.glob("*.safetensors"):
            with safe_open(path, framework="pt") as file:
                rungs.append(len(json.loads(file.metadata()["history"])))
        return not rungs or (len(rungs) == folds and len(set(rungs)) == 1)

    def remove(self) -> None:
        """Delete it: the trial ended."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _key(params: Mapping[str, ParamValue]) -> str:
    return hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()[:16]
