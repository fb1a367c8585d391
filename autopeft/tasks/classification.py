"""The base class of all kinds of task that give each row one of several labels."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from autopeft.common.exceptions import DataError, SpecError, nearest, quoted
from autopeft.tasks import class_loss, score_metrics
from autopeft.tasks.contract import Baseline, Task
from autopeft.tasks.metric import Metric
from autopeft.tasks.metrics import from_counts, names, scorer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import pandas as pd
    import torch

    from autopeft.common.params import ParamValue
    from autopeft.methods.search_space import SearchSpace
    from autopeft.study.report_section import ReportSection
    from autopeft.study.sections import Section


HALF, THRESHOLD = 0.5, "threshold"
"""The threshold if none was chosen, and the fact that holds a chosen one."""

UNMOVED = ("accuracy", *score_metrics.OF_SCORES)
"""Metrics that need no chosen threshold: those of probabilities, and accuracy, for which a half is best if these are
right."""


def _score(name: str, answers: np.ndarray, truths: np.ndarray) -> float:
    """A metric of the most probable label of each row."""
    return scorer(name)(truths, answers.argmax(axis=-1))


def _written(name: str, answers: Sequence[str], truths: Sequence[str]) -> float:
    import numpy as np

    return scorer(name)(np.asarray(truths), np.asarray(answers))


def _metric(name: str) -> Metric:
    return Metric(partial(_score, name), partial(_written, name), name == "accuracy", partial(from_counts, name))


class Classification(Task):
    """One of several labels for each row; a subclass says what a row is.

    Truths are the labels' positions, int64 `[rows]`; answers are probabilities, float32 `[rows, labels]`. The column
    `label` holds a row's label.
    """

    metrics: ClassVar[Mapping[str, Metric]] = {**{name: _metric(name) for name in names()}, **score_metrics.metrics()}
    averages: ClassVar[bool] = True
    Options: ClassVar[type[Section]] = class_loss.ClassOptions

    def search_space(self) -> SearchSpace:
        """The settings of the loss; none for a kind whose own settings lack them."""
        own = isinstance(self.options, class_loss.ClassOptions)
        return class_loss.search_space(self.options) if own else super().search_space()

    def score(self, metric: str, truths: np.ndarray, answers: np.ndarray) -> float:
        """The metric over rows, of the probabilities or of the labels that are given."""
        if metric in score_metrics.OF_SCORES or self.metrics[metric].written:
            return super().score(metric, truths, answers)
        return self.metrics[metric].score(self._sure(answers), truths)

    @property
    def threshold(self) -> float:
        """With two labels, the probability from which on the last one is given."""
        given = getattr(self.options, "threshold", "half")
        return given if isinstance(given, float) else float(self.facts.get(THRESHOLD, HALF))

    def given(self, answers: np.ndarray) -> np.ndarray:
        """The position of the label that each row is given, `[rows]`: the most probable one, or by the threshold."""
        if answers.shape[-1] != 2 or self.threshold == HALF:
            found: np.ndarray = answers.argmax(axis=-1)
            return found
        last: np.ndarray = answers[:, -1] >= self.threshold
        return last.astype(int)

    def _sure(self, answers: np.ndarray) -> np.ndarray:
        """Answers in which the label that is given is the most probable one."""
        import numpy as np

        if answers.shape[-1] != 2 or self.threshold == HALF:
            return answers
        found: np.ndarray = np.eye(2, dtype=np.float32)[self.given(answers)]
        return found

    @property
    def calibrates(self) -> bool:
        """Whether there is a threshold to choose: only with two labels, and if the metric needs one."""
        asked = getattr(self.options, "threshold", "half") == "auto" and self.maximised not in UNMOVED
        return bool(asked and len(self.names) == 2 and self.maximised)

    def calibrated(self, answers: np.ndarray, truths: np.ndarray) -> dict[str, ParamValue]:
        """The threshold between two labels that is best by the metric on the rows that folds validate."""
        import numpy as np

        from autopeft.tasks.thresholds import shared

        plain, metric = self.knowing({**self.facts, THRESHOLD: HALF}, self.names), self.maximised
        made = np.eye(2, dtype=np.float32)
        chosen = shared(answers[:, 1:], lambda given: plain.score(metric, truths, made[given[:, 0].astype(int)]))
        return {THRESHOLD: chosen}

    def check(self, rows: pd.DataFrame, source: str) -> None:
        """Make sure that there are at least two labels, each with at least two rows."""
        class_loss.check(self.options, rows)
        counts = rows["label"].value_counts()
        if self.maximised in score_metrics.OF_LAST and len(counts) > 2:
            raise SpecError(
                f'`metric` in [validation] is "{self.maximised}", which is for two labels, but the rows have '
                f'{len(counts)}; use "{self.maximised}_macro".'
            )
        if len(counts) < 2:
            raise DataError(
                f"{source}: there must be at least two labels, but every row has {quoted(counts.index[0])}."
            )
        if counts.iloc[-1] < 2:
            label = counts.index[-1]
            row = rows.index[rows["label"] == label][0]
            raise DataError(
                f"{source}, row {row}: every label must occur at least twice, but {quoted(label)} occurs once; "
                "add rows of that label or remove it."
            )

    def check_test(self, test: pd.DataFrame, train: pd.DataFrame, source: str) -> None:
        """Make sure that every label occurs in the training rows."""
        known = set(train["label"])
        unknown = test[~test["label"].isin(known)]
        if len(unknown):
            label = unknown["label"].iloc[0]
            raise DataError(
                f"{source}, row {unknown.index[0]}: the label {quoted(label)} does not occur in the training rows; "
                f"{nearest(label, known)} Add training rows of that label, or remove the {len(unknown)} test rows like "
                "it."
            )

    def check_folds(self, train: pd.DataFrame, folds: int, source: str) -> list[str]:
        """Make sure that at least two labels are left, and that one has a row for each fold; name the rarer ones."""
        counts = train["label"].value_counts()
        if len(counts) < 2:
            left = ", ".join(map(quoted, counts.index)) or "none"
            raise DataError(f"{source}: the rows to train on must have at least two labels, but they have {left}.")
        if counts.max() < folds:
            raise DataError(
                f"{source}: at least one label must have a training row for each of the {folds} folds, but the most "
                f"frequent one has {counts.max()}; lower `folds` in [validation], or give more rows."
            )
        spaced = [label for label in counts.index if label != label.strip()]
        told = list[str]()
        if spaced:
            told.append(
                f"{len(spaced)} label{'s' * (len(spaced) > 1)} with a space at the start or end, such as "
                f"{quoted(min(spaced))}, count{'s' * (len(spaced) == 1)} as different from the same without."
            )
        rare = counts[counts < folds]
        if rare.empty:
            return told
        shown = f"{', '.join(map(quoted, rare.index[:5]))}{', …' * (len(rare) > 5)}"
        return [
            *told,
            f"{len(rare)} labels have fewer training rows than there are folds ({folds}), so some folds validate "
            f"without them: {shown}.",
        ]

    def strata(self, rows: pd.DataFrame) -> pd.Series:
        """Every label keeps its share."""
        return rows["label"]

    def labels(self, train: pd.DataFrame, test: pd.DataFrame) -> tuple[str, ...]:
        """All labels, sorted, but with the positive one last."""
        positive = getattr(self.options, "positive_label", None)
        return tuple(sorted(set(train["label"]) | set(test["label"]), key=lambda label: (label == positive, label)))

    def facts_of(self, train: pd.DataFrame) -> dict[str, ParamValue]:
        """How many training rows each label has, if the loss needs it."""
        asked = getattr(self.options, "class_weights", "none") == "balanced" or "class_weights" in self.searched
        return class_loss.counts(train) if asked else {}

    def config(self, labels: Sequence[str]) -> dict[str, Any]:
        """Name the labels and state that each row has one."""
        return {
            "id2label": dict(enumerate(labels)),
            "label2id": {label: index for index, label in enumerate(labels)},
            "problem_type": "single_label_classification",
        }

    def truths(self, rows: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
        """Each row's label as its position among all, int64 `[rows]`; zeros where the rows have none."""
        import numpy as np

        index = {label: position for position, label in enumerate(labels)}
        found = [index[label] for label in rows["label"]] if "label" in rows else [0] * len(rows)
        return np.asarray(found, np.int64)

    def loss(self, outputs: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Mean cross-entropy of `outputs.logits` `[rows, labels]`, in float32; see `ClassOptions`."""
        by_label = class_loss.weights(self.options, self.facts, self.names)
        return class_loss.loss(outputs.logits.float(), batch["labels"], self.options, by_label)

    def answer(self, outputs: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Probabilities `[rows, labels]`, float32."""
        logits: torch.Tensor = outputs.logits
        return logits.float().softmax(dim=-1)

    def one_answer(self, answers: np.ndarray, truths: np.ndarray) -> bool | None:
        """Whether nearly all rows are given one label; None if a threshold is chosen later."""
        return None if self.calibrates else self.one_label(self.given(answers), truths)

    def blind_loss(self, truths: np.ndarray) -> float | None:
        """The entropy of the labels; None if the loss is not the plain cross-entropy."""
        other = any(getattr(self.options, name, 0.0) for name in ("focal_gamma", "label_smoothing"))
        weighted = class_loss.weights(self.options, self.facts, self.names) is not None
        return None if other or weighted else self.entropy(truths)

    def written(self, answers: np.ndarray, labels: Sequence[str]) -> list[str]:
        """The most probable label of each row; the probability of each label, as JSON, where the metric needs it."""
        if self.maximised in score_metrics.OF_SCORES:
            return score_metrics.written(answers, labels)
        if self.maximised in score_metrics.OF_LAST:  # if no row has the last label, only this shows which one it is
            return score_metrics.written(self._sure(answers), labels)
        return self.values(answers, labels)

    def values(self, answers: np.ndarray, labels: Sequence[str]) -> list[str]:
        """The most probable label of each row."""
        return [labels[index] for index in self.given(answers)]

    def written_truths(self, truths: np.ndarray, labels: Sequence[str]) -> list[str]:
        """Each row's label."""
        return [labels[index] for index in truths]

    def table(self, answers: np.ndarray, labels: Sequence[str]) -> pd.DataFrame:
        """The label of each row, and how probable it is."""
        import numpy as np
        import pandas as pd

        sure = np.take_along_axis(answers, self.given(answers)[:, None], 1)[:, 0].astype(float)
        return pd.DataFrame({"label": self.values(answers, labels), "probability": sure})

    def reading(self, labels: Sequence[str]) -> str:
        """The columns of the logits, and the threshold if it is not a half."""
        usual = super().reading(labels)
        if len(labels) != 2 or self.threshold == HALF:
            return usual
        return f"{usual}; the last is given if its softmax is at least {self.threshold:.4g}"

    def as_json(self, answer: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
        """The label, and the probability of each."""
        (label,) = self.values(answer[None], labels)
        return {"label": label, "scores": dict(zip(labels, answer.tolist(), strict=True))}

    def sections(
        self, rows: pd.DataFrame, truths: np.ndarray, answers: np.ndarray, labels: Sequence[str]
    ) -> list[ReportSection]:
        """Whether probabilities are reliable."""
        from autopeft.tasks import calibration

        return [calibration.section(answers, truths)]

    def baseline(self, train: np.ndarray, test: np.ndarray, labels: Sequence[str]) -> Baseline:
        """The training labels' shares, of which the most frequent label is the most probable."""
        import numpy as np

        counts = np.bincount(train, minlength=max(len(labels), 1))
        answers = np.tile((counts / counts.sum()).astype(np.float32), (len(test), 1))
        if self.maximised not in score_metrics.OF_SCORES and (self.given(answers) != counts.argmax()).any():
            answers[:] = np.arange(len(counts)) == counts.argmax()  # a threshold would give the rarer label
        return Baseline("majority class", answers)
