"""A tag for each word of a text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar, Self

from autopeft import Baseline, Column, Encoded, Field, Fit, Metric, Task, token_fields
from autopeft_tokens import cells, checks, report
from autopeft_tokens.encoding import align
from autopeft_tokens.metrics import METRICS
from autopeft_tokens.tags import OUTSIDE, entities

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import numpy as np
    import pandas as pd
    import torch

    from autopeft import ReportSection, RowTokenizer, TableProfile

TAGGED = (Column("tokens", "words", read=cells.words), Column("tags", "tags", given=False, read=cells.tags))
SPANNED = (Column("text"), Column("spans", "spans", given=False, read=cells.spans))
"""The two forms of rows: words with a tag each, and a text with spans of characters that have a label."""

IGNORED = -100
"""The label of tokens that are not the first of a word, as in `torch.nn.functional.cross_entropy`."""

TAG, PROBABILITY, START, END = range(4)
"""The numbers of an answer for each word."""


def _written(name: str) -> Metric:
    def score(answers: np.ndarray, truths: np.ndarray) -> float:
        return METRICS[name](answers.tolist(), truths.tolist())

    return Metric(score, METRICS[name], written=True)  # entities are found by the names of tags


class TokenClassification(Task):
    """A tag for each word, for names, slots or parts of speech; entities are read from tags as conlleval does.

    Rows are words and their tags (`tokens`, `tags`), or a `text` and its `spans` if [data] names one of these. The
    first token of a word learns the word's tag and answers for it. Truths are the tags' positions, an array for each
    row; answers are float32 `[rows, words, 4]`: tag, probability, and where the word begins and ends in the text.
    """

    contract = 1
    kind = "token-classification"
    auto_class = "AutoModelForTokenClassification"
    peft_task_type = "TOKEN_CLS"
    pipeline_tag = "token-classification"
    taught: ClassVar[tuple[str, ...]] = ("labels", "words")
    columns = TAGGED
    metrics: ClassVar[Mapping[str, Metric]] = {name: _written(name) for name in METRICS}

    def taking(self, named: Collection[str]) -> Self:
        """This task with the columns of the form that is named."""
        task = super().taking(named)
        task.columns = SPANNED if {"text", "spans"} & {*named} else TAGGED
        return task

    def fits(self, table: TableProfile) -> Fit | None:
        """Words with a tag each, or texts with spans."""
        words, tags = table.among("tokens", "words"), table.among("tags", "ner_tags", "labels", "pos_tags")
        if words and tags and words.holds == tags.holds == "texts":
            why = f"`{words.name}` and `{tags.name}` hold lists: words and a tag for each."
            return Fit({"tokens": words.name, "tags": tags.name}, 0.9, why)
        spans, text = table.among("spans", "entities", "slots"), table.text()
        if spans and text and spans.holds == "objects":
            return Fit({"text": text.name, "spans": spans.name}, 0.9, f"`{spans.name}` holds spans of `{text.name}`.")
        return None

    def check(self, rows: pd.DataFrame, source: str) -> None:
        """Make sure that there are as many tags as words, spans are within their texts, and tags differ."""
        checks.rows(rows, source)
        checks.types(rows, source, self.maximised)

    def check_test(self, test: pd.DataFrame, train: pd.DataFrame, source: str) -> None:
        """The same, and make sure that the training rows teach every type."""
        checks.rows(test, source)
        checks.known(test, train, source)

    def check_folds(self, train: pd.DataFrame, folds: int, source: str) -> list[str]:
        """Say how many spans begin or end inside a word, or touch none."""
        return checks.told(train)

    def strata(self, rows: pd.DataFrame) -> pd.Series | None:
        """The rarest type of each row, of those that enough rows have."""
        return checks.rarest_types(rows)

    def labels(self, train: pd.DataFrame, test: pd.DataFrame) -> tuple[str, ...]:
        """The tags that occur, first that of words in no entity; both "B-" and "I-" of a type with "B-"."""
        return checks.labels(train, test)

    def example(self) -> pd.DataFrame:
        """Sentences about who is where."""
        import pandas as pd

        who, where = ("Ada", "Alan Turing", "Grace Hopper"), ("Paris", "New York", "Bonn")
        rows = []
        for count, (name, place) in enumerate(zip(who * 4, (*where[1:], *where[:1]) * 4, strict=True)):
            entity = [*name.split(), "is", *["now"] * (count % 3), "in", *place.split()]
            tags = [
                *["B-PER", "I-PER"][: len(name.split())],
                *["O"] * (2 + count % 3),
                *["B-LOC", "I-LOC"][: len(place.split())],
            ]
            rows.append({"tokens": entity, "tags": tags})
        return pd.DataFrame(rows)

    def sample(self, cells: Sequence[Any]) -> dict[str, Any]:
        """Two rows of words, or two texts."""
        return {key: [str(cell).split() if key == "tokens" else cell for cell in cells] for key in self.inputs}

    def config(self, labels: Sequence[str]) -> dict[str, Any]:
        """Name the tags."""
        return {"id2label": dict(enumerate(labels)), "label2id": {label: index for index, label in enumerate(labels)}}

    def encode(self, rows: pd.DataFrame, reader: RowTokenizer, labels: Sequence[str]) -> Encoded:
        """Tokenise the texts, and find the first token of each word."""
        import numpy as np

        placed = [cells.placed(row) for row in rows.to_dict("records")]
        tokens = reader.located([text for text, _ in placed])
        words = align(tokens, [places for _, places in placed])
        truths = checks.truths(rows, placed, labels)
        first = words[:, 0] >= 0
        row_of = np.repeat(np.arange(len(rows)), np.diff(tokens.offsets))
        taught = np.full(len(words), IGNORED, np.int64)
        taught[first] = [truths[row][word] for row, word in zip(row_of[first], words[first, 0], strict=True)]
        fields = {
            **token_fields(tokens.columns, tokens.offsets, reader.tokenizer.pad_token_id),
            "labels": Field(taught, tokens.offsets, IGNORED),
            "words": Field(words, tokens.offsets, -1),
        }
        units = np.bincount(row_of[first], minlength=len(rows))
        return Encoded(fields, truths, axis="input_ids", units=units, whole=tokens.whole)

    def loss(self, outputs: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Mean cross-entropy over words of `outputs.logits` `[rows, tokens, tags]`, in float32; 0 without any word."""
        from torch.nn.functional import cross_entropy

        labels = batch["labels"]
        total = cross_entropy(outputs.logits.float().flatten(0, 1), labels.flatten(), reduction="sum")
        return total / (labels != IGNORED).sum().clamp(min=1)

    def answer(self, outputs: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The most probable tag of each word, float32 `[rows, words, 4]`; -1 if a row has no such word."""
        import torch

        words = batch["words"]
        first = words[..., 0] >= 0
        best = outputs.logits.float().softmax(dim=-1).max(dim=-1)
        made = torch.stack([best.indices, best.values, words[..., 1], words[..., 2]], dim=-1).float()
        found = made.new_full((len(words), int(words[..., 0].max().clamp(min=0)) + 1, made.shape[-1]), -1)
        rows = torch.arange(len(words), device=words.device)[:, None].expand_as(first)
        found[rows[first], words[..., 0][first]] = made[first]
        return found

    def one_answer(self, answers: np.ndarray, truths: np.ndarray) -> bool:
        """Whether no entity is found, although there are some; without "O", whether nearly all words get one tag."""
        import numpy as np

        given, true = answers[..., TAG].flatten(), np.concatenate([*truths])
        if OUTSIDE in self.names:
            return bool((given <= 0).all() and true.any())
        return self.one_label(given[given >= 0].astype(int), true)

    def blind_loss(self, truths: np.ndarray) -> float:
        """The entropy of the words' tags."""
        import numpy as np

        return self.entropy(np.concatenate([*truths]))

    def written(self, answers: np.ndarray, labels: Sequence[str]) -> list[str]:
        """The tags of each row's words; those of words that were cut off count as outside of entities."""
        return [" ".join(_tags(answer, labels)) for answer in answers]

    def written_truths(self, truths: np.ndarray, labels: Sequence[str]) -> list[str]:
        """The tags of each row's words."""
        return [" ".join(labels[index] for index in truth) for truth in truths]

    def as_value(self, written: str) -> list[str]:
        """The list of tags."""
        return written.split()

    def table(self, answers: np.ndarray, labels: Sequence[str]) -> pd.DataFrame:
        """The entities of each row as JSON, and the tags of its words."""
        import pandas as pd

        found = [self.as_json(answer, labels) for answer in answers]
        entities = [json.dumps(row["entities"], ensure_ascii=False) for row in found]
        return pd.DataFrame({"entities": entities, "tags": [" ".join(row["tags"]) for row in found]})

    def as_json(self, answer: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
        """Each entity with its type, place and score, and the tag of each word.

        `start` and `end` are characters of the text, or of words joined by one space; `words` are positions of words.
        The score is the lowest probability of the entity's tags.
        """
        tags = _tags(answer, labels)
        found = []
        for start, end, kind in entities(tags):
            places = answer[start:end]
            found.append(
                {
                    "type": kind,
                    "start": int(places[0, START]),
                    "end": int(places[-1, END]),
                    "words": [start, end],
                    "score": float(places[:, PROBABILITY].min()),
                }
            )
        return {"entities": found, "tags": tags}

    def sections(
        self, rows: pd.DataFrame, truths: np.ndarray, answers: np.ndarray, labels: Sequence[str]
    ) -> list[ReportSection]:
        """Scores by type, and confusions with an example of each."""
        return report.sections(rows, self.written(answers, labels), self.written_truths(truths, labels))

    def baseline(self, train: np.ndarray, test: np.ndarray, labels: Sequence[str]) -> Baseline:
        """No entity at all; without "O", the most frequent tag."""
        import numpy as np

        index = 0 if OUTSIDE in labels else int(np.bincount(np.concatenate([*train])).argmax())
        answers = np.full((len(test), max(map(len, test)), 4), -1, np.float32)
        for answer, truth in zip(answers, test, strict=True):
            answer[: len(truth)] = (index, 1, 0, 0)
        return Baseline("no entities" if OUTSIDE in labels else "most frequent tag", answers)


def _tags(answer: np.ndarray, labels: Sequence[str]) -> list[str]:
    """The tags of a row's words, up to the last that has one."""
    ids = answer[:, TAG].astype(int)
    there = (ids >= 0).nonzero()[0]
    words = int(there[-1]) + 1 if len(there) else 0
    none = OUTSIDE if OUTSIDE in labels else labels[0]
    return [labels[index] if index >= 0 else none for index in ids[:words]]
