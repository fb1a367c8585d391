"""What an interrupted trial leaves behind: each fold's training state, from which it goes on as if nothing happened."""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from autopeft.search_space import ParamValue
    from autopeft.training import Learner


@dataclass(frozen=True)
class Checkpoint:
    """The folds of one trial on disk, a safetensors file each, written whole or not at all.

    Random numbers are drawn per fold and epoch, so a fold that goes on from its file ends where it would have anyway.
    """

    folder: Path

    @classmethod
    def of(cls, output: Path, params: Mapping[str, ParamValue]) -> Checkpoint:
        """The checkpoint of the trial with these params; what another trial left in `output` is removed."""
        key = hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()[:16]
        for other in (output / "checkpoint").glob("*"):
            if other.name != key:
                shutil.rmtree(other, ignore_errors=True)
        return cls(output / "checkpoint" / key)

    def keep(self, fold: int, learner: Learner, history: list[tuple[float, float]]) -> None:
        """Write where a fold stands: its learner, and its score and loss at each rung so far."""
        from safetensors.torch import save_file

        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.folder / f"{fold}.draft"
        save_file(learner.state(), draft, metadata={"history": json.dumps(history)})
        draft.replace(self.folder / f"{fold}.safetensors")

    def restore(self, fold: int, learner: Learner) -> list[tuple[float, float]]:
        """Put a fold back where its file says; returns its history, empty where there is no file."""
        from safetensors import safe_open

        path = self.folder / f"{fold}.safetensors"
        if not path.is_file():
            return []
        with safe_open(path, framework="pt") as file:
            learner.restore({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118  # no mapping
            return [(score, loss) for score, loss in json.loads(file.metadata()["history"])]

    def remove(self) -> None:
        """Delete it: the trial ended."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):  # another trial's may be there, or none ever was
            self.folder.parent.rmdir()
