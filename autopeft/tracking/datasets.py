"""The rows of a study as MLflow data sets: name, digest, schema, and where they came from; not the rows themselves."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def dataset(
    rows: pd.DataFrame, name: str, context: str, source: Path | str, target: str | None = "label"
) -> dict[str, str]:
    """What MLflow keeps of the rows.

    Args:
        rows: with the task's inputs and targets.
        name: of the data set.
        context: what the rows are for, such as "train".
        source: the file, or the id of a data set on the hub.
        target: the target column.
    """
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.pandas_dataset import PandasDataset, from_pandas

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a local path "can be interpreted in multiple ways", all of them the same
        if isinstance(source, Path):
            found = from_pandas(rows, source=str(source), targets=target, name=name)
        else:
            found = PandasDataset(rows, CodeDatasetSource({"hub": source}), targets=target, name=name)
        return {"context": context, **{key: str(value) for key, value in found.to_dict().items()}}
