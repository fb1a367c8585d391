"""The base class of all kinds of task that give each row any number of labels."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar, Self

from autopeft.common.exceptions import DataError, brief, shorten
from autopeft.tasks.contract import Baseline
from autopeft.tasks.label_metrics import OF_NUMBERS, OF_SCORES, metrics
from autopeft.tasks.label_rows import PER_LABEL, SHARED, LabelRows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import pandas as pd
    import torch

    from autopeft.common.params import ParamValue
    from autopeft.study.report_section import ReportSection
    from autopeft.tasks.metric import Metric

HALF = 0.5
"""The threshold if none was chosen."""

MOST_SHOWN = 200
"""Most labels in the table of the report."""


class MultiLabel(LabelRows):
    """Any number of labels for each row; a subclass says what a row is, with `labels_column`.

    Truths say whether a row has each label, bool `[rows, labels]`; answers are probabilities, float32 of that shape.
    The column `label` holds a row's labels as a sorted tuple. A label is given from its threshold on. The threshold
    with the best F1 is half of that F1, for each label with the macro average, and for all together with the micro
    average (Lipton, Elkan & Narayanaswamy 2014, arXiv:1402.1892).
    """

    metrics: ClassVar[Mapping[str, Metric]] = metrics()
    averages: ClassVar[bool] = True

    def knowing(self, facts: Mapping[str, ParamValue], names: Sequence[str] = ()) -> Self:
        """This task with its thresholds, if they are known.

        Raises:
            DataError: one of them is not a probability.
        """
        for name, value in facts.items():
            if name.startswith("threshold") and not (isinstance(value, int | float) and 0 <= value <= 1):
                raise DataError(
                    f"{self.kind} must know thresholds from 0 to 1, but `{brief(name)}` is {shorten(value)}; train it "
                    "again, or restore the winner's files."
                )
        return super().knowing(facts, names)

    def loss(self, outputs: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Mean binary cross-entropy of `outputs.logits` `[rows, labels]` over rows and labels, in float32."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        return binary_cross_entropy_with_logits(outputs.logits.float(), batch["labels"])

    def answer(self, outputs: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The probability of each label on its own, `[rows, labels]`, float32."""
        logits: torch.Tensor = outputs.logits
        return logits.float().sigmoid()

    @property
    def threshold(self) -> float | str:
        """How thresholds are chosen, or the given threshold."""
        asked: float | str | None = self.options.threshold if self.options else None
        return asked or (PER_LABEL if self.maximised == "f1_macro" else SHARED)

    def thresholds(self, count: int) -> np.ndarray:
        """The thresholds of `count` labels, `[labels]`."""
        import numpy as np

        common = self.threshold if isinstance(self.threshold, float) else self.facts.get("threshold", HALF)
        return np.array([float(self.facts.get(f"threshold.{place}", common)) for place in range(count)])

    def given(self, answers: np.ndarray) -> np.ndarray:
        """Which labels are given, bool `[rows, labels]`."""
        found: np.ndarray = answers >= self.thresholds(answers.shape[-1])
        return found

    def score(self, metric: str, truths: np.ndarray, answers: np.ndarray) -> float:
        """The metric of the labels that are given, with the known thresholds, else with a half."""
        if metric == OF_SCORES:
            return self.metrics[metric].score(answers, truths)
        return self._score_of_given(metric, truths, self.given(answers))

    def _score_of_given(self, metric: str, truths: np.ndarray, given: np.ndarray) -> float:
        """The metric of the labels that are given, bool `[rows, labels]`."""
        found = self.metrics[metric]
        if found.written:
            return found.of_written(*(self.written_truths(rows, self.names) for rows in (given, truths)))
        return found.score(given, truths)

    def score_of_fold(self, metric: str, truths: np.ndarray, answers: np.ndarray) -> float:
        """The metric with the one threshold for all labels that suits the fold best, unless a number was given.

        The probabilities of a barely trained model are all below a half. One number, chosen on all labels of all rows
        of a fold, raises the score a little and alike for every candidate; one per label would raise it a lot.
        """
        return self.knowing({**self.facts, **self._shared(metric, truths, answers)}, self.names).score(
            metric, truths, answers
        )

    def _shared(self, metric: str, truths: np.ndarray, answers: np.ndarray) -> dict[str, ParamValue]:
        from autopeft.tasks.thresholds import shared

        if isinstance(self.threshold, float):
            return {}
        wanted = "f1_micro" if metric == OF_SCORES else metric
        return {"threshold": shared(answers, lambda given: self._score_of_given(wanted, truths, given))}

    def calibrated(self, answers: np.ndarray, truths: np.ndarray) -> dict[str, ParamValue]:
        """`threshold` for all labels and, if each may have its own, `threshold.0`, … for those with enough rows."""
        import numpy as np

        from autopeft.tasks.thresholds import own

        found = self._shared(self.maximised or next(iter(self.metrics)), truths, answers)
        if self.threshold == PER_LABEL:
            chosen = enumerate(own(answers, truths))
            found |= {f"threshold.{place}": float(value) for place, value in chosen if not np.isnan(value)}
        return found

    def blind_loss(self, truths: np.ndarray) -> float:
        """The mean over labels of the entropy of whether a row has the label."""
        import numpy as np

        shares = np.stack([truths.mean(axis=0), 1 - truths.mean(axis=0)]).clip(min=1e-12)
        return float(-(shares * np.log(shares)).sum(axis=0).mean())

    def written(self, answers: np.ndarray, labels: Sequence[str]) -> list[str]:
        """The labels that each row is given, as a list in JSON; numbers of all labels if the metric needs them."""
        if self.maximised == OF_SCORES:
            return [json.dumps(row) for row in answers.astype(float).tolist()]
        return self.written_truths(self.given(answers), labels)

    def written_truths(self, truths: np.ndarray, labels: Sequence[str]) -> list[str]:
        """The labels of each row, in the same form."""
        if self.maximised in OF_NUMBERS:
            return [json.dumps(row) for row in truths.astype(int).tolist()]
        return [json.dumps(named(row, labels), ensure_ascii=False) for row in truths]

    def as_value(self, written: str) -> Any:
        """The list of labels."""
        return json.loads(written)

    def values(self, answers: np.ndarray, labels: Sequence[str]) -> list[Any]:
        """The list of labels of each row."""
        return [named(row, labels) for row in self.given(answers)]

    def table(self, answers: np.ndarray, labels: Sequence[str]) -> pd.DataFrame:
        """The labels of each row, and the probability of each of them, both with the delimiter between.

        If a label has the delimiter in it, the labels of a row are a list in JSON.
        """
        import pandas as pd

        delimiter = self.options.delimiter if self.options else ","
        inside = any(delimiter in label for label in labels)
        given = self.given(answers)
        shares = [delimiter.join(f"{share:.6g}" for share in row[own]) for row, own in zip(answers, given, strict=True)]
        names = (named(own, labels) for own in given)
        written = [json.dumps(one, ensure_ascii=False) if inside else delimiter.join(one) for one in names]
        return pd.DataFrame({"labels": written, "probabilities": shares})

    def as_json(self, answer: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
        """The labels that are given, and the probability of every label."""
        (found,) = self.values(answer[None], labels)
        return {"labels": found, "scores": dict(zip(labels, answer.tolist(), strict=True))}

    def reading(self, labels: Sequence[str]) -> str:
        """The columns of the logits, and the probability from which on each label is given."""
        cuts = [float(f"{cut:.4g}") for cut in self.thresholds(len(labels))]
        told = f"{cuts[0]:g}" if len({*cuts}) == 1 else f"these values, by column: {json.dumps(cuts)}"
        return f"{super().reading(labels)}; a label is given if the sigmoid of its logit is at least {told}"

    def sections(
        self, rows: pd.DataFrame, truths: np.ndarray, answers: np.ndarray, labels: Sequence[str]
    ) -> list[ReportSection]:
        """How well each label is predicted, the most frequent first."""
        from sklearn.metrics import precision_recall_fscore_support

        from autopeft.study.report_section import ReportSection, ReportTable

        columns = precision_recall_fscore_support(truths, self.given(answers), average=None, zero_division=0)
        found = sorted(zip(columns[3], labels, *columns[:3], self.thresholds(len(labels)), strict=True), reverse=True)
        shown = [
            (label, f"{support:,}", *(f"{number:.4f}" for number in (*numbers, cut)))
            for support, label, *numbers, cut in found[:MOST_SHOWN]
        ]
        heads = ("label", "rows", "precision", "recall", "F1", "threshold")
        left = f" The table shows the {MOST_SHOWN} most frequent of {len(labels)} labels." * (len(labels) > MOST_SHOWN)
        text = f"The winner on the held-out rows. It gives a label where its probability reaches the threshold.{left}"
        return [ReportSection("By label", text, table=ReportTable(heads, tuple(shown), (1, 2, 3, 4, 5)))]

    def baseline(self, train: np.ndarray, test: np.ndarray, labels: Sequence[str]) -> Baseline:
        """Always the labels that at least half of the training rows have, else the most frequent one."""
        import numpy as np

        shares = train.mean(0)
        given = shares >= HALF if (shares >= HALF).any() else np.arange(len(shares)) == shares.argmax()
        return Baseline("most frequent labels", np.tile(given.astype(np.float32), (len(test), 1)))


def named(row: np.ndarray, labels: Sequence[str]) -> list[str]:
    """The labels that a row has, from bool `[labels]`."""
    return [label for label, has in zip(labels, row, strict=True) if has]
