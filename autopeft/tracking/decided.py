"""By what the winner was chosen where the score of all trials did not decide, and how each of them did beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Decided(NamedTuple):
    """What decided among some trials.

    Attributes:
        metric: what MLflow calls it.
        by: what it is in words, such as "rouge_l of what its folds wrote".
        whose: what those did of which it is known, such as "whose folds wrote".
        scores: it, by trial number.
    """

    metric: str
    by: str
    whose: str
    scores: Mapping[int, float]


def place(
    number: int, winner: int, scores: Mapping[int, float], decided: Decided | None, cheaper: str | None = None
) -> str:
    """How a complete trial did beside the winner.

    Args:
        number: of the trial.
        winner: number of the winner.
        scores: of all trials that could win.
        decided: what decided among the best, where the scores of all did not.
        cheaper: what the trial would have saved; None where that is not known.
    """
    if number == winner:
        return f"won by {decided.by}" if decided else "won"
    deciding = {n: score for n, score in decided.scores.items() if n in scores} if decided else scores
    if number not in deciding:
        return f"not among the {len(decided.scores) if decided else 0} trials {decided.whose if decided else ''}"
    gap = deciding[winner] - deciding[number]
    if gap <= 0:
        lost = "tied with the winner, which is a default, trains less or came first"
    else:
        lost = f"lost by {gap:.4f}" + (f" in {decided.by}" if decided else "")
    return f"{lost}; {cheaper}" if cheaper else lost
