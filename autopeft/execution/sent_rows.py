"""The training rows of a study as another machine gets them: encoded, and without their texts."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

import pandas as pd

from autopeft.data.load import StudyData

if TYPE_CHECKING:
    from autopeft.data.encoded import Encoded
    from autopeft.data.split import Fold
    from autopeft.execution.problem import Problem


@dataclass(frozen=True)
class SentRows(StudyData):
    """Rows that are encoded and split already. The tables have no columns, and the held-out rows are left out.

    Nearly all of it is NumPy arrays, which machines can share.

    Attributes:
        encoded: the training rows.
        folds: the samples of each fold.
    """

    encoded: Encoded = field(kw_only=True)
    folds: tuple[Fold, ...] = field(kw_only=True)

    @property
    def prepared(self) -> tuple[Encoded, Encoded, tuple[Fold, ...]]:
        """As `Problem` has them; no trial reads the held-out rows, so the training rows stand in their place."""
        return self.encoded, self.encoded, self.folds


def sent(problem: Problem) -> SentRows:
    """The rows of a problem in this form, with all facts that its task knows."""
    rows = problem.rows
    kept = {one.name: getattr(rows, one.name) for one in fields(StudyData)}
    tables = {"train": pd.DataFrame(index=rows.train.index), "test": pd.DataFrame()}
    facts = dict(problem.task.facts)
    return SentRows(**{**kept, **tables, "facts": facts, "notes": ()}, encoded=problem.train, folds=problem.folds)
