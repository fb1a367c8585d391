"""The report's sections on the held-out questions: where answers are good, and the worst answers."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import TYPE_CHECKING

from autopeft import ReportSection, ReportTable
from autopeft_question_answering.squad_score import exact_match, f1

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autopeft_question_answering.squad_score import Truth
    from autopeft_question_answering.wording import Worded

WORDS, SHOWN, LONGEST = 8, 12, 160
"""Most first words of questions and most rows that are shown, and most characters of a text."""

LENGTHS = (
    (0, "none"), (1, "1 word"), (2, "2 words"), (5, "3 to 5 words"), (10, "6 to 10 words"), (math.inf, "more words"),
)  # fmt: skip
"""The most words of an answer, and the name of such answers."""

OTHERS, NOTHING = "others", "–"


def sections(questions: Sequence[str], truths: Sequence[Truth], answers: Sequence[Worded]) -> list[ReportSection]:
    """The sections by first word and by length, and the worst answers.

    Args:
        questions: of the rows.
        truths: of the rows.
        answers: in words.
    """
    texts = [answer.text for answer in answers]
    scores = [
        (f1(text, truth.texts), exact_match(text, truth.texts)) for text, truth in zip(texts, truths, strict=True)
    ]
    first = [_first_word(question) for question in questions]
    frequent = [word for word, _ in Counter(first).most_common(WORDS)]
    by_word = [word if word in frequent else OTHERS for word in first]
    by_length = [_length(truth.texts) for truth in truths]
    found = [
        ReportSection(
            "By the question's first word",
            "The most frequent first words. Each score is the mean over that number of rows.",
            table=_table("first word", [*frequent, OTHERS], by_word, scores),
        ),
        ReportSection(
            "By the answer's length",
            "The length of the first accepted answer.",
            table=_table("answer", [name for _, name in LENGTHS], by_length, scores),
        ),
    ]
    wrong = sorted(
        (row for row, (score, _) in enumerate(scores) if score < 1),
        key=lambda row: (scores[row][0], -answers[row].score),
    )
    if wrong:
        told = (
            f"With an F1 below 1: {len(wrong)} of {len(texts)} held-out questions. The worst come first; of equally "
            "bad ones, the most confident."
        )
        table = ReportTable(
            ("question", "answer", "answered", "F1", "score"),
            tuple(
                (
                    _short(questions[row]),
                    _short(" | ".join(truths[row].texts)) or NOTHING,
                    _short(texts[row]) or NOTHING,
                    f"{scores[row][0]:.2f}",
                    f"{answers[row].score:.0%}",
                )
                for row in wrong[:SHOWN]
            ),
            (3, 4),
        )
        found.append(ReportSection("The worst answers", told, table=table))
    return found


def _table(
    called: str, names: Sequence[str], group_of: Sequence[str], scores: Sequence[tuple[float, float]]
) -> ReportTable:
    """The mean scores of each group of rows, in the order of `names`."""
    rows = []
    for name in names:
        own = [both for both, group in zip(scores, group_of, strict=True) if group == name]
        if own:
            means = (sum(values) / len(own) for values in zip(*own, strict=True))
            rows.append((name, f"{len(own):,}", *(f"{mean:.4f}" for mean in means)))
    return ReportTable((called, "rows", "F1", "exact match"), tuple(rows), (1, 2, 3))


def _first_word(question: str) -> str:
    found = re.search(r"\w+", question.lower())
    return found[0][:LONGEST] if found else OTHERS


def _length(texts: Sequence[str]) -> str:
    words = len(texts[0].split()) if texts else 0
    return next(name for most, name in LENGTHS if words <= most)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}…"
