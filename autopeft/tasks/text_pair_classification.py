"""One label for two texts, such as entailment or paraphrase."""

from __future__ import annotations

from autopeft.tasks.text_classification import TextClassification


class TextPairClassification(TextClassification):
    """Single-label classification of a pair of texts, given to the model in one sequence."""

    kind = "text-pair-classification"
    inputs = ("text", "text_pair")


TASK = TextPairClassification()
