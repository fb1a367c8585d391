"""The report's sections on the held-out rows: the places of right choices, and the wrong answers."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from autopeft import ReportSection, ReportTable

if TYPE_CHECKING:
    from collections.abc import Sequence

SHOWN, WIDTH = 20, 160
"""Most rows in the report, and most characters of a text in it."""


def by_place(truths: np.ndarray, answers: np.ndarray, names: Sequence[str]) -> ReportSection:
    """How often the answer is right, and how often it is given, by the place of the choice.

    Args:
        truths: places of the right choices, int64 `[rows]`.
        answers: probabilities of the choices, `[rows, choices]`.
        names: of the places.
    """
    given, rows = answers.argmax(axis=-1), []
    for place, name in enumerate(names):
        there = truths == place
        share = f"{(given[there] == place).mean():.4f}" if there.any() else "–"
        rows.append((name, str(int(there.sum())), share, str(int((given == place).sum()))))
    table = ReportTable(
        ("choice", "rows where it is right", "answered right", "times answered"), tuple(rows), (1, 2, 3)
    )
    told = (
        "The position of a choice has no meaning, because each choice is scored by itself. Differences here come from "
        "chance or from the rows."
    )
    return ReportSection("Right answers by the place of the right choice", told, table=table)


def wrong(
    questions: Sequence[str], choices: Sequence[Sequence[str]], truths: np.ndarray, answers: np.ndarray
) -> list[ReportSection]:
    """The rows that were answered wrong, the surest first; empty if there are none.

    Args:
        questions: of the rows.
        choices: their texts.
        truths: places of the right choices, int64 `[rows]`.
        answers: probabilities of the choices, `[rows, choices]`.
    """
    given, sure = answers.argmax(axis=-1), answers.max(axis=-1)
    places = sorted(map(int, np.flatnonzero(given != truths)), key=lambda row: -sure[row])
    if not places:
        return []
    rows = tuple(
        (
            _short(questions[row]),
            _short(choices[row][truths[row]]),
            _short(choices[row][given[row]]),
            f"{sure[row]:.0%}",
        )
        for row in places[:SHOWN]
    )
    told = f"Answered wrong: {len(places)} of {len(truths)} held-out rows. The most confident answers come first."
    table = ReportTable(("question", "right choice", "given choice", "probability"), rows, (3,))
    return [ReportSection("Rows that were answered wrong", told, table=table)]


def _short(text: str) -> str:
    return textwrap.shorten(text, WIDTH, placeholder=" …")
