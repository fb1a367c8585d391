"""The rows of kinds of task that give each row any number of labels."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, Field

from autopeft.common.exceptions import DataError, SpecError, brief, nearest, quoted, shorten
from autopeft.study.sections import Section
from autopeft.tasks.column import Column
from autopeft.tasks.contract import Task
from autopeft.tasks.label_cells import YES, read_flag, read_labels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import pandas as pd

PER_LABEL, SHARED = "per_label", "shared"

FEWEST = 10
"""Fewest rows of a stratum: rarer labels form one together."""

MOST_FOLDS = 20
"""A stratum must have a row for each of this many folds."""


def _threshold(given: float | str) -> float | str:
    if given not in (PER_LABEL, SHARED) and not (isinstance(given, float) and 0 < given < 1):
        raise ValueError(f'must be "{PER_LABEL}", "{SHARED}" or a number between 0 and 1, but got {shorten(given)}')
    return given


def _distinct(names: list[str]) -> list[str]:
    if twice := [name for name, count in Counter(names).items() if count > 1 or not name]:
        raise ValueError(f"must name columns, each once, but got {shorten(twice[0])}")
    return names


class MultiLabelOptions(Section):
    """Settings under [task]."""

    delimiter: str = Field(",", min_length=1, max_length=20)
    """Stands between the labels of a row where they are one text."""
    label_columns: Annotated[list[str], Field(min_length=2), AfterValidator(_distinct)] | None = None
    """Instead of `label`: a column for each label, named like it, with 1 where a row has the label and 0 where not."""
    threshold: Annotated[float | str, AfterValidator(_threshold)] | None = None
    """The probability from which on a label is given: "per_label" or "shared", chosen on the validation folds, or a
    number. Default: "per_label" for f1_macro, else "shared"."""


class LabelRows(Task):
    """The rows of a task with any number of labels per row; `MultiLabel` brings the loss and the answers."""

    Options: ClassVar[type[Section]] = MultiLabelOptions
    labels_column: ClassVar[Column] = Column("label", "labels", given=False, read=partial(read_labels, delimiter=","))

    def configured(self, options: Mapping[str, Any]) -> Self:
        """This task with its settings, which say where the labels are.

        Raises:
            SpecError: a setting is unknown or wrong.
        """
        task = super().configured(options)
        given = tuple(column for column in self.columns if column.given)
        flags = task.options.label_columns or []
        if taken := [name for name in flags if name in {"group", *(column.key for column in given)}]:
            raise SpecError(
                f'`label_columns` in [task] names "{brief(taken[0])}", but another column of the study has that name; '
                "rename that label's column."
            )
        read = partial(read_labels, delimiter=task.options.delimiter)
        taught = tuple(Column(name, "0 or 1", given=False, read=read_flag) for name in flags)
        task.columns = (*given, *(taught or (replace(self.labels_column, read=read),)))
        return task

    def gathered(self, rows: pd.DataFrame, source: str) -> pd.DataFrame:
        """One column of labels, if each label has a column of its own."""
        import pandas as pd

        flags = self.options.label_columns if self.options else None
        if not flags:
            return rows
        cells = rows[flags].to_numpy()
        found = [tuple(sorted(name for name, cell in zip(flags, row, strict=True) if cell == YES)) for row in cells]
        gathered: pd.DataFrame = rows.drop(columns=flags).assign(label=pd.Series(found, index=rows.index, dtype=object))
        return gathered

    def check(self, rows: pd.DataFrame, source: str) -> None:
        """Make sure that there are at least two labels."""
        self._two(rows, source, "must have at least two labels")

    def _two(self, rows: pd.DataFrame, source: str, rule: str) -> Counter[str]:
        counts = counted(rows)
        if len(counts) < 2:
            there = ", ".join(map(quoted, counts)) or "none"
            advice = "name the right column or `delimiter`, or add rows with other labels"
            raise DataError(f"{source}: the rows {rule}, but they have {there}; {advice}.")
        return counts

    def check_test(self, test: pd.DataFrame, train: pd.DataFrame, source: str) -> None:
        """Make sure that every label occurs in the training rows."""
        known = {*counted(train)}
        unknown = [(row, label) for row, labels in test["label"].items() for label in labels if label not in known]
        if unknown:
            row, label = unknown[0]
            raise DataError(
                f"{source}, row {row}: the label {quoted(label)} does not occur in the training rows; "
                f"{nearest(label, known)} Add training rows of that label, or remove it from the test rows (it is "
                f"one of {len(unknown)} such cases)."
            )

    def check_folds(self, train: pd.DataFrame, folds: int, source: str) -> list[str]:
        """Make sure that at least two labels are left; name rare ones, and rows and columns without any."""
        counts = self._two(train, source, "to train on must have at least two labels")
        notes = []
        if bare := sum(not labels for labels in train["label"]):
            notes.append(f"{bare} of {len(train)} training rows have no label.")
        flags = (self.options.label_columns if self.options else None) or []
        for what, names in (
            (f"fewer training rows than there are folds ({folds}), so some folds validate without them",
             [label for label, count in counts.items() if count < folds]),
            ("no training row, so they are left out or never given", [name for name in flags if name not in counts]),
        ):  # fmt: skip
            if names:
                shown = f"{', '.join(map(quoted, names[:5]))}{', …' * (len(names) > 5)}"
                notes.append(f"{len(names)} labels have {what}: {shown}.")
        return notes

    def strata(self, rows: pd.DataFrame) -> pd.Series | None:
        """The rarest label of each row; labels with fewer than ten rows form one stratum. None if rows are few."""
        import pandas as pd

        counts = counted(rows)
        rarest = [
            f"label {min(labels, key=lambda label: (counts[label], label))}" if labels else "no label"
            for labels in rows["label"]
        ]
        sizes = Counter(rarest)
        pooled = {name for name, size in sizes.items() if size < FEWEST}
        if 0 < sum(sizes[name] for name in pooled) < FEWEST and (others := sizes.keys() - pooled):
            pooled.add(min(others, key=lambda name: (sizes[name], name)))
        found = pd.Series(["rare labels" if name in pooled else name for name in rarest], index=rows.index)
        shares = found.value_counts()
        return found if len(shares) > 1 and shares.max() >= MOST_FOLDS else None

    def labels(self, train: pd.DataFrame, test: pd.DataFrame) -> tuple[str, ...]:
        """All labels, sorted."""
        return tuple(sorted({*counted(train), *counted(test)}))

    def config(self, labels: Sequence[str]) -> dict[str, Any]:
        """Name the labels and state that each row may have several."""
        return {
            "id2label": dict(enumerate(labels)),
            "label2id": {label: index for index, label in enumerate(labels)},
            "problem_type": "multi_label_classification",
        }

    def truths(self, rows: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
        """Which labels each row has, bool `[rows, labels]`; none where the rows have none."""
        import numpy as np

        index = {label: position for position, label in enumerate(labels)}
        found = np.zeros((len(rows), len(labels)), bool)
        for row, own in enumerate(rows.get("label", ())):
            found[row, [index[label] for label in own]] = True
        return found


def counted(rows: pd.DataFrame) -> Counter[str]:
    """How many rows have each label."""
    return Counter(label for labels in rows["label"] for label in labels)
