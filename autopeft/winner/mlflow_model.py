"""Writes a saved winner as an MLflow model without pickles, for `mlflow.pyfunc` and `mlflow models serve`."""

from __future__ import annotations

import logging
import warnings
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from autopeft.common.exceptions import UserInputError
from autopeft.common.files import draft_folder, put
from autopeft.data.picture import Picture
from autopeft.models.weights_file import PEFT_CONFIG
from autopeft.study.card import Card, Evidence
from autopeft.winner import winner as artifact

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

REQUIREMENTS = ("autopeft", "peft", "torch", "transformers")
EXAMPLE_ROWS = 2

MLMODEL = "MLmodel"
"""The file that makes a folder an MLflow model."""


class Model:
    """The object that MLflow calls: it takes a frame with the task's input columns and returns a frame of answers."""

    def __init__(self, winner: artifact.Winner) -> None:
        self.winner = winner

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """The answers as a table, such as the most probable label of each row and its probability."""
        return self.winner.table(model_input)


def _load_pyfunc(data_path: str) -> Model:
    """The hook by which `mlflow.pyfunc` loads a model that names this module as its loader."""
    return Model(artifact.load(data_path))


def save(winner: Path, folder: Path, rows: pd.DataFrame) -> None:
    """Write a winner as an MLflow model, with its signature, an input example and its requirements.

    Args:
        winner: the folder that `artifact.save` wrote.
        folder: to write; an earlier model there is replaced, and other files stay.
        rows: some of the study's rows, for the example.
    """
    import mlflow.pyfunc
    import pandas as pd
    from mlflow.models import infer_signature

    model = Model(artifact.load(winner, trust_remote_code=True))  # this study's own, or one that was loaded before
    example = rows[list(model.winner.inputs)].head(EXAMPLE_ROWS).reset_index(drop=True).map(_plain)
    if model.winner.writes:  # rows were read, and conversations have another form
        example = pd.DataFrame(model.winner.sample(model.winner.reader.cells()))
    logging.getLogger("mlflow").setLevel(logging.ERROR)  # it would recommend type hints, which a loader cannot have
    with draft_folder(folder) as draft, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.pyfunc.save_model(
            str(draft / "model"),
            loader_module=__name__,
            data_path=str(winner),
            signature=infer_signature(example, model.predict(example)),
            input_example=example,
            pip_requirements=_requirements(winner, model.winner.card.plugin),
        )
        put(draft / "model", folder, {f"data/{winner.name}/{name}" for name in artifact.FILES}, last=MLMODEL)


def _plain(cell: Any) -> Any:
    """A cell in a form that MLflow can write: an image as bytes, a tuple as a list."""
    if isinstance(cell, Picture):
        return cell.content()
    return [_plain(one) for one in cell] if isinstance(cell, tuple) else cell


def holds(folder: Path, winner: Path) -> bool:
    """Whether a folder holds a winner that `save` wrote, with all that is now known about it."""
    kept = folder / "data" / winner.name
    try:
        same = all(one.read(kept) == one.read(winner) for one in (Card, Evidence))  # a card has the files' digests
        return same and (folder / MLMODEL).is_file()
    except UserInputError:  # another version wrote it, or it is damaged: write it again
        return False


def _requirements(winner: Path, plugin: str) -> list[str]:
    """The requirements, in builds that an index has; with the plugin, if peft cannot load what it made."""
    versions = {name: version(name) for name in REQUIREMENTS}
    if not (winner / PEFT_CONFIG).is_file():
        with suppress(PackageNotFoundError, ValueError):  # a winner made by hand may name none
            distribution = plugin.partition(" ")[0]
            versions[distribution] = version(distribution)
    return [f"{name}=={found.partition('+')[0]}" for name, found in versions.items()]
