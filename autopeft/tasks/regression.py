"""The base class of all kinds of task that give each row a number."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

from autopeft.common.exceptions import DataError, quoted, shorten
from autopeft.tasks.contract import Baseline, Task
from autopeft.tasks.metric import Metric

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import pandas as pd
    import torch

    from autopeft.common.params import ParamValue

BINS = 10
"""Into how many bins of equal size the numbers are cut, so that each part of the data has large and small ones."""

FEWEST = 10
"""Fewest rows of a bin."""

NARROW = 0.05
"""Answers count as all the same if they spread less than this share of the truths' spread."""

FAR = 1000
"""How many times the spread a mean is, at most, to which float32 adds an answer: it has seven digits."""

METRICS = ("r2", "pearson", "spearman", "neg_mean_squared_error", "neg_root_mean_squared_error",
           "neg_mean_absolute_error")  # fmt: skip


def score(name: str, answers: np.ndarray, truths: np.ndarray) -> float:
    """A metric of numbers: scikit-learn's of that name, or a correlation, which is 0 if either side is constant."""
    import numpy as np

    if name in ("pearson", "spearman"):
        from scipy.stats import rankdata

        if name == "spearman":
            answers, truths = rankdata(answers), rankdata(truths)
        if np.ptp(answers) == 0 or np.ptp(truths) == 0:
            return 0.0
        return float(np.corrcoef(answers, truths)[0, 1])
    from sklearn import metrics

    stem = name.removeprefix("neg_")
    function = metrics.r2_score if name == "r2" else getattr(metrics, stem)
    found = float(function(truths, answers))
    return -found if stem != name else found


def _written(name: str, answers: Sequence[str], truths: Sequence[str]) -> float:
    import numpy as np

    return score(name, np.asarray(answers, np.float64), np.asarray(truths, np.float64))


class Regression(Task):
    """A number for each row; a subclass says what a row is.

    Truths and answers are the user's numbers, float64 and float32 `[rows]`. The model learns them minus the training
    rows' mean and divided by their spread, so that numbers of any scale are learnt alike. The column `label` holds a
    row's number.
    """

    metrics: ClassVar[Mapping[str, Metric]] = {
        name: Metric(partial(score, name), partial(_written, name)) for name in METRICS
    }
    averages: ClassVar[bool] = True

    def knowing(self, facts: Mapping[str, ParamValue], names: Sequence[str] = ()) -> Self:
        """This task with the mean and the scale of its numbers.

        Raises:
            DataError: one of them is missing, or is not a number to scale with.
        """
        numbers = [value for name in ("mean", "scale") if isinstance(value := facts.get(name), int | float)]
        if len(numbers) < 2 or not all(map(math.isfinite, numbers)) or numbers[1] <= 0:
            raise DataError(
                f"{self.kind} must know a finite `mean` of its numbers and a finite `scale` above zero, but knows "
                f"{shorten(dict(facts))}; train it again, or restore the winner's files."
            )
        return super().knowing(facts, names)

    def check(self, rows: pd.DataFrame, source: str) -> None:
        """Make sure that each label is a finite number, and that they are not all the same."""
        import numpy as np

        values = self._numbers(rows, source)
        if values.min() == values.max():
            raise DataError(f"{source}: the rows must have different numbers to learn, but all have {values[0]:g}.")
        with np.errstate(over="ignore", invalid="ignore"):
            finite = math.isfinite(values.mean()) and math.isfinite(values.std())
        if not finite:
            raise DataError(
                f"{source}: the numbers must have a finite mean and spread, but they go from {values.min():g} to "
                f"{values.max():g}; give them in a larger unit."
            )

    def check_test(self, test: pd.DataFrame, train: pd.DataFrame, source: str) -> None:
        """Make sure that each label is a finite number."""
        self._numbers(test, source)

    def _numbers(self, rows: pd.DataFrame, source: str) -> np.ndarray:
        import numpy as np

        found = np.empty(len(rows))
        for place, (row, text) in enumerate(rows["label"].items()):
            try:
                found[place] = float(text)
            except ValueError:
                found[place] = math.nan
            if not math.isfinite(found[place]):
                raise DataError(f"{source}, row {row}: the label must be a finite number, but is {quoted(text)}.")
        return found

    def strata(self, rows: pd.DataFrame) -> pd.Series | None:
        """Bins of equally many rows, from the smallest numbers to the largest; None if there are few rows."""
        import pandas as pd

        bins = min(BINS, len(rows) // FEWEST)
        if bins < 2:
            return None
        values = pd.to_numeric(rows["label"], errors="coerce")  # rows are thinned out before they are checked
        found = pd.qcut(values.rank(method="first", na_option="bottom"), bins, labels=False)
        return found.astype(str)

    def facts_of(self, train: pd.DataFrame) -> dict[str, ParamValue]:
        """The numbers' mean, and their standard deviation as `scale`."""
        values = train["label"].astype(float)
        return {"mean": float(values.mean()), "scale": float(values.std(ddof=0)) or 1.0}

    def config(self, labels: Sequence[str]) -> dict[str, Any]:
        """One output."""
        return {"num_labels": 1, "problem_type": "regression"}

    def truths(self, rows: pd.DataFrame) -> np.ndarray:
        """Each row's number, float64 `[rows]`; zeros if the rows have none."""
        import numpy as np

        return rows["label"].astype(float).to_numpy() if "label" in rows else np.zeros(len(rows))

    def scaled(self, truths: np.ndarray) -> np.ndarray:
        """The numbers as the model learns them, float32 `[rows]`."""
        import numpy as np

        mean, scale = self._mean_and_scale
        return ((truths - mean) / scale).astype(np.float32)

    @property
    def _mean_and_scale(self) -> tuple[float, float]:
        return float(self.facts["mean"]), float(self.facts["scale"])

    def loss(self, outputs: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Mean squared error of `outputs.logits` `[rows, 1]`, in float32."""
        from torch.nn.functional import mse_loss

        return mse_loss(outputs.logits.float().squeeze(-1), batch["labels"])

    def answer(self, outputs: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Numbers on the user's scale `[rows]`, float32; float64 if their mean is `FAR` from zero."""
        logits: torch.Tensor = outputs.logits
        mean, scale = self._mean_and_scale
        numbers = logits.float().squeeze(-1)
        return (numbers.double() if abs(mean) > FAR * scale else numbers) * scale + mean

    def one_answer(self, answers: np.ndarray, truths: np.ndarray) -> bool:
        """Whether the answers' standard deviation is less than 5% of the truths'."""
        return bool(answers.std() < NARROW * truths.std())

    def blind_loss(self, truths: np.ndarray) -> float:
        """The mean squared error of always answering the mean."""
        return float(self.scaled(truths).var())

    def written(self, answers: np.ndarray, labels: Sequence[str]) -> list[str]:
        """Each number in full."""
        return [repr(float(answer)) for answer in answers]

    def written_truths(self, truths: np.ndarray, labels: Sequence[str]) -> list[str]:
        """Each number in full."""
        return [repr(float(truth)) for truth in truths]

    def as_value(self, written: str) -> float:
        """The number."""
        return float(written)

    def table(self, answers: np.ndarray, labels: Sequence[str]) -> pd.DataFrame:
        """A column `value`."""
        import pandas as pd

        return pd.DataFrame({"value": answers.astype(float)})

    def as_json(self, answer: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
        """The number."""
        return {"value": float(answer)}

    def reading(self, labels: Sequence[str]) -> str:
        """How to undo the scaling."""
        return f"value = logits * {self.facts['scale']!r} + {self.facts['mean']!r}"

    def baseline(self, train: np.ndarray, test: np.ndarray, labels: Sequence[str]) -> Baseline:
        """Always the training rows' mean."""
        import numpy as np

        return Baseline("mean of the training rows", np.full(len(test), train.mean(), np.float64))
