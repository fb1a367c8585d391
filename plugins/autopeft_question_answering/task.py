"""Extractive question answering: the answer to a question is a part of a text, or there is none."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field as Setting

from autopeft import Baseline, Column, DataError, Fit, Section, SpecError, Task, written_texts
from autopeft_question_answering import row_checks
from autopeft_question_answering.answer_cells import read_answer, read_answers, read_context, read_start, together
from autopeft_question_answering.encoding import encoded
from autopeft_question_answering.spans import NONE_PROBABILITY, WIDTH, best_spans, best_windows
from autopeft_question_answering.squad_score import METRICS
from autopeft_question_answering.wording import Worded, Wording

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import numpy as np
    import pandas as pd
    import torch

    from autopeft import Encoded, Metric, ParamValue, ReportSection, RowTokenizer, TableProfile

FEWEST = 20
"""Fewest rows with an answer, and without, for each part of the data to get its share of both."""


class Options(Section):
    """Settings under [task]."""

    stride: int = Setting(128, ge=0, le=2**20)
    """Tokens of a long context that a window shares with the next; at most half of the window's."""
    max_answer_tokens: int = Setting(30, ge=1, le=2**10)
    """Most tokens of an answer that the model gives."""
    unanswerable: bool = False
    """Whether an empty cell of the column `answer` is a question without an answer; else it is refused."""
    no_answer_threshold: float = Setting(0.0, allow_inf_nan=False)
    """A question gets no answer if the score of none is above the best answer's by more than this (sums of two logits).
    """


class QuestionAnswering(Task):
    """A part of the context for each question, or nothing if some training questions have no answer.

    Truths are `Truth`s, an object array `[rows]`. Answers are the numbers of `spans`, float32 `[rows, WIDTH]`; in words
    (`worded`) they are the fields of `Worded`. A context that is too long is read in several windows.
    """

    contract = 1
    kind = "question-answering"
    auto_class = "AutoModelForQuestionAnswering"
    peft_task_type = None  # peft's model for QUESTION_ANS drops `token_type_ids`, so BERT would read one text
    pipeline_tag = "question-answering"
    group = "context"
    outputs = ("start_logits", "end_logits")
    taught = ("start_positions", "end_positions", "spans", "none_at")
    columns: tuple[Column, ...] = (
        Column("question"),
        Column("context", read=read_context),
        Column("answers", "answers", given=False, read=read_answers),
        Column("answer", given=False, optional=True, blank=True, read=read_answer),
        Column("answer_start", "number", given=False, optional=True, blank=True, read=read_start),
    )
    metrics: ClassVar[Mapping[str, Metric]] = METRICS
    Options = Options

    def taking(self, named: Collection[str]) -> Self:
        """This task with answers in SQuAD's form, or as plain texts if [data] names the column `answer`.

        Raises:
            SpecError: both are named, or starts of answers without the answers.
        """
        task = super().taking(named)
        if "answer" not in named and "answer_start" not in named:
            return task
        if "answers" in named or "answer" not in named:
            raise SpecError(
                "[data] must name either the column `answers`, or `answer` with or without `answer_start`; "
                f"{'remove one of the two' if 'answer' in named else 'name `answer` too'}."
            )
        read = partial(read_answer, unanswerable=self.options.unanswerable)
        plain = Column("answer", given=False, optional=True, blank=True, read=read)
        columns = [plain if column.key == "answer" else column for column in self.columns]
        task.columns = tuple(column for column in columns if column.key != "answers")
        return task

    def fits(self, table: TableProfile) -> Fit | None:
        """Questions about contexts, with answers."""
        question, context = table.among("question", "query"), table.among("context", "passage", "paragraph")
        answer = table.among("answers", "answer")
        if not question or not context or not answer:
            return None
        key = "answers" if answer.holds == "mapping" else "answer"
        columns = {"question": question.name, "context": context.name, key: answer.name}
        return Fit(columns, 0.95, f"`{question.name}` is answered from `{context.name}`, by `{answer.name}`.")

    def knowing(self, facts: Mapping[str, ParamValue], names: Sequence[str] = ()) -> Self:
        """This task with the fact whether a question may have no answer.

        Raises:
            DataError: that fact is missing.
        """
        if not isinstance(facts.get("unanswerable"), bool):
            raise DataError(
                f"{self.kind} must know whether a question may have no answer (`unanswerable`), but does not; train it "
                "again, or restore the winner's files."
            )
        return super().knowing(facts, names)

    # Rows.

    def gathered(self, rows: pd.DataFrame, source: str) -> pd.DataFrame:
        """The rows with answers in one form."""
        import pandas as pd

        if "answer" not in rows:
            return rows
        starts = rows["answer_start"] if "answer_start" in rows else [""] * len(rows)
        answers = pd.Series(together(list(rows["answer"]), list(starts)), index=rows.index, dtype=object)
        return rows.assign(answers=answers).drop(columns=["answer", "answer_start"], errors="ignore")

    def check(self, rows: pd.DataFrame, source: str) -> None:
        """Make sure that answers are in their contexts, and that at least one row has one."""
        row_checks.check_places(rows, source)
        row_checks.check_train(rows, source)

    def check_test(self, test: pd.DataFrame, train: pd.DataFrame, source: str) -> None:
        """Make sure that answers are in their contexts, and that none is missing if all training rows have one."""
        row_checks.check_places(test, source)
        row_checks.check_test(test, train, source)

    def check_folds(self, train: pd.DataFrame, folds: int, source: str) -> list[str]:
        """Make sure that a training row has an answer; say how many have none, and how many places were guessed."""
        row_checks.check_train(train, source)
        return row_checks.notes_on(train)

    def strata(self, rows: pd.DataFrame) -> pd.Series | None:
        """Whether there is an answer, if both cases are frequent enough."""
        found = rows["answers"].map(lambda answers: "answer" if answers else "none")
        counts = found.value_counts()
        return found if len(counts) > 1 and counts.min() >= FEWEST else None

    def facts_of(self, train: pd.DataFrame) -> dict[str, ParamValue]:
        """`unanswerable`: whether some question has no answer."""
        return {"unanswerable": bool((~row_checks.has_answer(train)).any())}

    def example(self) -> pd.DataFrame:
        """Things of a colour; a context that takes several windows, a question without an answer, and one with two."""
        import pandas as pd

        colours, things = ("red", "dark green", "blue", "pale grey"), ("door", "old bus", "hat")
        rows = []
        for place, (thing, colour) in enumerate((thing, colour) for thing in things for colour in colours):
            long = "and it stood in the rain for many days " * (12 if place % 5 == 4 else place % 3)
            context = f"in the morning {long}the {thing} was {colour} all over"
            answers = [colour, f"{colour} all over"] if place % 6 == 1 else [colour] * (place % 4 != 3)
            asked = f"what colour was the {thing if answers else 'moon'} ?"
            starts = [context.index(answer) for answer in answers]
            rows.append((asked, context, {"text": answers, "answer_start": starts}))
        return pd.DataFrame(rows, columns=["question", "context", "answers"])

    def sample(self, cells: Sequence[Any]) -> dict[str, Any]:
        """Two questions with their contexts."""
        return {
            "question": ["Where do they live?", "Who wrote it?"],
            "context": ["They moved to Porto and live there now.", "It is a novel by Mary Shelley."],
        }

    # The model.

    def config(self, labels: Sequence[str]) -> dict[str, Any]:
        """Two outputs for each token: whether an answer starts there, and whether one ends there."""
        return {"num_labels": 2}

    def encode(self, rows: pd.DataFrame, reader: RowTokenizer, labels: Sequence[str]) -> Encoded:
        """Windows of a question and a part of its context."""
        return encoded(rows, reader, self.options.stride)

    def loss(self, outputs: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Mean of the cross-entropies of the first and the last token, over tokens that are not padding, in float32."""
        import torch
        from torch.nn.functional import cross_entropy

        padding, least = batch["attention_mask"] == 0, torch.finfo(torch.float32).min
        first, last = (
            cross_entropy(getattr(outputs, name).float().masked_fill(padding, least), batch[truth])
            for name, truth in zip(self.outputs, self.taught[:2], strict=True)
        )
        return (first + last) / 2

    # Answers.

    def answer(self, outputs: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The best span of each window, `[windows, WIDTH]`."""
        return best_spans(
            outputs.start_logits,
            outputs.end_logits,
            batch["spans"],
            batch["none_at"],
            batch["attention_mask"],
            self.options.max_answer_tokens,
        )

    def combine(self, answers: np.ndarray, row_of: np.ndarray) -> np.ndarray:
        """The best window's answer to each row."""
        return best_windows(answers, row_of)

    def score(self, metric: str, truths: np.ndarray, answers: np.ndarray) -> float:
        """The metric of the texts that are answered."""
        import numpy as np

        found = self._wording.of([truth.context for truth in truths], answers)
        texts = np.asarray([answer.text for answer in found], object)
        return super().score(metric, truths, texts[:, None] if self.metrics[metric].written else texts)

    @property
    def _wording(self) -> Wording:
        return Wording(self.options.no_answer_threshold, unanswerable=bool(self.facts["unanswerable"]))

    def worded(self, answers: np.ndarray, rows: pd.DataFrame) -> np.ndarray:
        """The fields of each `Worded`, an object array `[rows, 6]`."""
        import numpy as np

        found = np.empty((len(answers), len(Worded._fields)), object)
        found[:] = self._wording.of(rows["context"].tolist(), answers)
        return found

    def written(self, answers: np.ndarray, labels: Sequence[str]) -> list[str]:
        """A JSON list of the answer's text, `[]` for none."""
        return [written_texts([text] if text else []) for text in answers[:, 0]]

    def written_truths(self, truths: np.ndarray, labels: Sequence[str]) -> list[str]:
        """A JSON list of the accepted answers."""
        return [written_texts(truth.texts) for truth in truths]

    def as_value(self, written: str) -> Any:
        """The list of answers; a model's has one answer, or none."""
        return json.loads(written)

    def table(self, answers: np.ndarray, labels: Sequence[str]) -> pd.DataFrame:
        """The answer, its probability, and its place in the context; no answer is "" from -1 to -1."""
        import pandas as pd

        rows = [(found.text, found.score, found.start, found.end) for found in map(Worded._make, answers)]
        return pd.DataFrame(rows, columns=["answer", "score", "start", "end"])

    def as_json(self, answer: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
        """The same, null for no answer, with the probability of no answer, and the margin between the two."""
        found = Worded._make(answer)
        place = (found.text, found.start, found.end) if found.text else (None, None, None)
        told = dict(zip(("answer", "start", "end"), place, strict=True))
        return {**told, "score": found.score, "no_answer": found.no_answer, "margin": found.margin}

    def reading(self, labels: Sequence[str]) -> str:
        """Where the answer starts and ends."""
        return "the answer goes from the largest start logit in the context to the largest end logit at or behind it"

    def sections(
        self, rows: pd.DataFrame, truths: np.ndarray, answers: np.ndarray, labels: Sequence[str]
    ) -> list[ReportSection]:
        """Scores by the question's first word and by the answer's length, and the worst answers."""
        from autopeft_question_answering.report import sections

        return sections(rows["question"].tolist(), truths.tolist(), self._wording.of(rows["context"].tolist(), answers))

    def baseline(self, train: np.ndarray, test: np.ndarray, labels: Sequence[str]) -> Baseline:
        """No answer at all: any other would have to be found in the context."""
        import numpy as np

        answers = np.zeros((len(test), WIDTH), np.float32)
        answers[:, NONE_PROBABILITY] = 1
        return Baseline("empty answer", answers)
