"""The right one of several choices, such as the answer to a question or the ending of a story."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field as Setting
from pydantic import field_validator

from autopeft import Baseline, Column, DataError, Encoded, Field, Fit, Metric, Section, Task
from autopeft_multiple_choice.choices import as_choices, names_of, texts_of
from autopeft_multiple_choice.right_choice import FORMS, Choice, form_of, places

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import pandas as pd
    import torch

    from autopeft import ParamValue, ReportSection, RowTokenizer, TableProfile

TAKEN = ("question", "context", "label", "group")
"""Names that columns of choices cannot have, as other columns have them."""

FEWEST = 10
"""Fewest rows of a label that keeps its share in every part."""

NO_CHOICE = -1.0
"""The probability of a choice that a row does not have."""


class Options(Section):
    """Settings under [task]."""

    choice_columns: list[str] | None = Setting(None, min_length=2)
    """Columns of the table that hold a choice each. Default: one column `choices` holds them as a list."""
    labels_are: Literal["name", "number", "number_from_1", "letter", "text"] | None = None
    """How labels name the right choice. Default: the first of these that fits the label of every training row."""

    @field_validator("choice_columns")
    @classmethod
    def _each_its_own(cls, names: list[str] | None) -> list[str] | None:
        if names and (len({*names}) < len(names) or {*names} & {*TAKEN, ""}):
            raise ValueError(f"must name columns, each once and none called {', '.join(TAKEN)}, but got {names}")
        return names


def _accuracy(answers: np.ndarray, truths: np.ndarray) -> float:
    return float((answers.argmax(axis=-1) == truths).mean())


def _written_accuracy(answers: Sequence[str], truths: Sequence[str]) -> float:
    return sum(answer == truth for answer, truth in zip(answers, truths, strict=True)) / len(truths)


class MultipleChoice(Task):
    """One of the choices that each row brings; each is read with the question, and scored by itself.

    Truths are the places of the right choices, counted from 0, int64 `[rows]`. Answers are probabilities, float32
    `[rows, choices]`; choices that a row lacks have -1.
    """

    contract = 1
    kind = "multiple-choice"
    auto_class = "AutoModelForMultipleChoice"
    pipeline_tag = "multiple-choice"
    columns: tuple[Column, ...] = (
        Column("question"),
        Column("context", optional=True),
        Column("choices", "list of texts", read=as_choices),
        Column("label", "label", given=False),
    )
    metrics: ClassVar[Mapping[str, Metric]] = {"accuracy": Metric(_accuracy, _written_accuracy, proportion=True)}
    taught = ("labels", "choices")
    averages = True
    arranging = "inputs = {name: values[None] for name, values in inputs.items()}  # one row, whose choices these are"
    Options = Options

    def configured(self, options: Mapping[str, Any]) -> Self:
        """This task with its settings, and with the columns that they name."""
        task = super().configured(options)
        if named := task.options.choice_columns:
            question, context, _, label = type(self).columns
            task.columns = (question, context, *map(Column, named), label)
        return task

    def fits(self, table: TableProfile) -> Fit | None:
        """Questions with a list of choices, and a column that says which is right."""
        question, choices = table.among("question", "query"), table.among("choices", "options", "endings")
        label = table.named.get("label") or next(
            (one.name for one in (table.among("label", "answer", "answerkey", "correct"),) if one), None
        )
        if not question or not choices or not label or choices.holds != "texts":
            return None
        columns = {"question": question.name, "choices": choices.name, "label": label}
        if context := table.among("context", "passage", "article"):
            columns["context"] = context.name
        return Fit(columns, 0.95, f"`{choices.name}` holds choices, and `{label}` says which is right.")

    def knowing(self, facts: Mapping[str, ParamValue], names: Sequence[str] = ()) -> Self:
        """This task with the form of labels, and the largest number of choices of a row.

        Raises:
            DataError: one of them is missing or wrong.
        """
        many = facts.get("choices")
        if facts.get("labels_are") not in FORMS or not isinstance(many, int) or many < 2:
            raise DataError(
                f"{self.kind} must know what labels are (`labels_are`: {', '.join(FORMS)}) and the number of "
                f"`choices`, at least two, but knows {str(dict(facts))[:100]}; train it again, or restore the winner's "
                "files."
            )
        return super().knowing(facts, names)

    @property
    def texts(self) -> int:
        """A pair: the question with its context, and a choice."""
        return 2

    def check(self, rows: pd.DataFrame, source: str) -> None:
        """Make sure that each label means a choice of its row, and not always the one in the same place."""
        choices = self._choices(rows)
        found = places(rows["label"], choices, form_of(rows["label"], choices, self.options.labels_are), source)
        if len({*found}) < 2:
            raise DataError(
                f"{source}: the right choice must be in different places, but in every row it is number {found[0]}, "
                "counted from 0, so no score would mean anything; shuffle the choices of each row."
            )

    def check_test(self, test: pd.DataFrame, train: pd.DataFrame, source: str) -> None:
        """Make sure that each label means a choice of its row, in the training rows' form."""
        places(test["label"], self._choices(test), self._form(train), source)

    def check_folds(self, train: pd.DataFrame, folds: int, source: str) -> list[str]:
        """Say how labels are understood, and how many choices rows have."""
        counts = [len(row.texts) for row in self._choices(train)]
        told = [] if self.options.labels_are else [f"Labels are taken to be {FORMS[self._form(train)].told}."]
        if min(counts) < max(counts):
            told.append(f"Rows have from {min(counts)} to {max(counts)} choices; missing choices are masked.")
        return told

    def strata(self, rows: pd.DataFrame) -> pd.Series | None:
        """Every label keeps its share, rare ones joined with the most frequent; None if most are rare, like texts."""
        counts = rows["label"].value_counts()
        frequent = counts.index[counts >= FEWEST]
        if counts[frequent].sum() * 2 < len(rows):
            return None
        return rows["label"].where(rows["label"].isin(frequent), frequent[0])

    def facts_of(self, train: pd.DataFrame) -> dict[str, ParamValue]:
        """The form of labels, and the largest number of choices of a row."""
        return {"labels_are": self._form(train), "choices": max(len(row.texts) for row in self._choices(train))}

    def example(self) -> pd.DataFrame:
        """Which word a question names, among two to four."""
        import pandas as pd

        words = ["red", "green as grass is", "blue blue", "so very white that it blinds all who look"]
        asked = [(place, many) for many in (2, 3, 4, 4) for place in (0, 1, many - 1)]
        return pd.DataFrame(
            {
                "question": [f"which {words[place]}" for place, _ in asked],
                "context": ["colours " * many for _, many in asked],
                "choices": [words[:many] for _, many in asked],
                "label": [str(place) for place, _ in asked],
            }
        )

    def sample(self, cells: Sequence[Any]) -> dict[str, Any]:
        """Two rows, each with both texts as its choices."""
        several = [[*cells], [*cells][::-1]]
        return {key: several if key == "choices" else [*cells] for key in self.inputs}

    def _choices(self, rows: pd.DataFrame) -> list[Choice]:
        """The choices of each row."""
        if named := self.options.choice_columns:
            return [Choice(texts, named) for texts in zip(*(rows[name] for name in named), strict=True)]
        return [Choice(texts_of(cell), names_of(cell)) for cell in rows["choices"]]

    def _form(self, train: pd.DataFrame) -> str:
        return form_of(train["label"], self._choices(train), self.options.labels_are)

    def _asked(self, rows: pd.DataFrame) -> list[str]:
        """The text before each choice: the context, if there is one, and the question."""
        if "context" not in self.taken:
            return [*rows["question"]]
        return [f"{context} {question}" for context, question in zip(rows["context"], rows["question"], strict=True)]

    def encode(self, rows: pd.DataFrame, reader: RowTokenizer, labels: Sequence[str]) -> Encoded:
        """Tokenise the question with each choice; if a row has fewer, its first is repeated, and masked."""
        import numpy as np

        from autopeft_multiple_choice.sequences import side_by_side

        choices = self._choices(rows)
        counts = np.asarray([len(row.texts) for row in choices])
        many = int(counts.max())
        filled = [text for row in choices for text in (*row.texts, *[row.texts[0]] * (many - len(row.texts)))]
        tokens = reader([asked for asked in self._asked(rows) for _ in range(many)], filled)
        fields = side_by_side(tokens.columns, tokens.offsets, many, reader.tokenizer.pad_token_id)
        truths = np.zeros(len(rows), np.int64)
        if "label" in rows:
            truths[:] = places(rows["label"], choices, str(self.facts["labels_are"]), "the rows")
        there = (np.arange(many) < counts[:, None]).astype(np.int8)
        return Encoded(
            {**fields, "labels": Field(truths), "choices": Field(there)},
            truths,
            axis="input_ids",
            sequences=many,
            whole=tokens.whole.reshape(-1, many).max(axis=1),
        )

    def model_inputs(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Tokens as `[rows, choices, length]`."""
        return {
            name: tensor.transpose(1, 2).contiguous() if tensor.ndim == 3 else tensor
            for name, tensor in super().model_inputs(batch).items()
        }

    def arranged(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """All sequences as the choices of one row."""
        return {name: tensor[None] for name, tensor in inputs.items()}

    def loss(self, outputs: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Mean cross-entropy of `outputs.logits` `[rows, choices]` over the choices that a row has, in float32."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(_masked(outputs, batch), batch["labels"])

    def answer(self, outputs: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Probabilities `[rows, choices]`, float32."""
        return _masked(outputs, batch).softmax(dim=-1).masked_fill(batch["choices"] == 0, NO_CHOICE)

    def _shown(self, place: int) -> int | str:
        """A choice in the form of labels, if that is possible without the row; else its number, counted from 0."""
        form, named = self.facts.get("labels_are"), self.options.choice_columns
        if form == "name" and named:
            return str(named[place])
        if form == "letter" and place < 26:
            return chr(ord("A") + place)
        return place + (form == "number_from_1")

    def written(self, answers: np.ndarray, labels: Sequence[str]) -> list[str]:
        """The most probable choice of each row."""
        return [str(self._shown(int(place))) for place in answers.argmax(axis=-1)]

    def written_truths(self, truths: np.ndarray, labels: Sequence[str]) -> list[str]:
        """The right choice of each row."""
        return [str(self._shown(int(place))) for place in truths]

    def table(self, answers: np.ndarray, labels: Sequence[str]) -> pd.DataFrame:
        """The most probable choice of each row, and how probable it is."""
        import pandas as pd

        chosen = [self._shown(int(place)) for place in answers.argmax(axis=-1)]
        return pd.DataFrame({"choice": chosen, "probability": answers.max(axis=-1).astype(float)})

    def as_json(self, answer: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
        """The choice, and the probability of each."""
        scores = [float(score) for score in answer if score != NO_CHOICE]
        return {"choice": self._shown(int(answer.argmax())), "scores": scores}

    def reading(self, labels: Sequence[str]) -> str:
        """That logits are a score for each choice."""
        return "a score for each choice of a row; their softmax is the probabilities"

    def sections(
        self, rows: pd.DataFrame, truths: np.ndarray, answers: np.ndarray, labels: Sequence[str]
    ) -> list[ReportSection]:
        """How often each place is answered right, and rows that were answered wrong."""
        from autopeft_multiple_choice.sections import by_place, wrong

        names = [str(self._shown(place)) for place in range(answers.shape[-1])]
        texts = [row.texts for row in self._choices(rows)]
        return [by_place(truths, answers, names), *wrong(self._asked(rows), texts, truths, answers)]

    def baseline(self, train: np.ndarray, test: np.ndarray, labels: Sequence[str]) -> Baseline:
        """Always the place where the right choice is most often in the training rows."""
        import numpy as np

        answers = np.zeros((len(test), int(self.facts["choices"])), np.float32)
        answers[:, np.bincount(train).argmax()] = 1
        return Baseline("most frequent place", answers)


def _masked(outputs: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The scores in float32; minus infinity for choices that a row does not have."""
    scores: torch.Tensor = outputs.logits
    return scores.float().masked_fill(batch["choices"] == 0, float("-inf"))
