"""A saved winner as an MLflow model: loaded by `mlflow.pyfunc`, served by `mlflow models serve`; no pickle in it."""

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
from autopeft.study.card import Evidence
from autopeft.winner import winner as artifact

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

REQUIREMENTS = ("autopeft", "peft", "torch", "transformers")
EXAMPLE_ROWS = 2

MLMODEL = "MLmodel"
"""The file by which MLflow knows a model."""


class Model:
    """What MLflow calls: a frame with the task's input columns in, a frame of answers out."""

    def __init__(self, winner: artifact.Winner) -> None:
        self.winner = winner

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """The answers as a table, such as the most probable label of each row and how probable it is."""
        return self.winner.table(model_input)


def _load_pyfunc(data_path: str) -> Model:
    """The hook by which `mlflow.pyfunc` loads a model that names this module as its loader."""
    return Model(artifact.load(data_path))


def save(winner: Path, folder: Path, rows: pd.DataFrame) -> None:
    """Write a winner as an MLflow model, with its signature, an input example and what it needs installed.

    Args:
        winner: the folder `artifact.save` wrote.
        folder: to write; a model that is there is replaced, and other files stay.
        rows: some of the study's rows, for the example.
    """
    import mlflow.pyfunc
    import pandas as pd
    from mlflow.models import infer_signature

    model = Model(artifact.load(winner, trust_remote_code=True))  # this study's own, or one that is loaded already
    example = rows[list(model.winner.inputs)].head(EXAMPLE_ROWS).reset_index(drop=True).map(_plain)
    if model.winner.writes:  # rows were read, and conversations are told in a form of their own
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
    """A cell as MLflow can write it: of an image its bytes, and lists for what cannot change."""
    if isinstance(cell, Picture):
        return cell.content()
    return [_plain(one) for one in cell] if isinstance(cell, tuple) else cell


def holds(folder: Path, winner: Path) -> bool:
    """Whether a folder holds a winner as `save` wrote it, with all that is known of it by now."""
    kept = folder / "data" / winner.name
    try:
        return (folder / MLMODEL).is_file() and Evidence.read(kept) == Evidence.read(winner)
    except UserInputError:  # another version wrote it, or it is damaged: it is written anew
        return False


def _requirements(winner: Path, plugin: str) -> list[str]:
    """What must be installed, of builds that an index has; the plugin too, where peft cannot load what it made."""
    versions = {name: version(name) for name in REQUIREMENTS}
    if not (winner / PEFT_CONFIG).is_file():
        with suppress(PackageNotFoundError, ValueError):  # a winner made by hand may name none
            distribution = plugin.partition(" ")[0]
            versions[distribution] = version(distribution)
    return [f"{name}=={found.partition('+')[0]}" for name, found in versions.items()]
