"""What the winner was chosen by if the score of all trials did not decide, and how each trial compares with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Decided(NamedTuple):
    """A measure that decided among some trials.

    Attributes:
        metric: its name in MLflow.
        by: what it is in words, such as "rouge_l of what its folds wrote".
        whose: which trials have it, in words, such as "whose folds wrote".
        scores: its values, by trial number.
    """

    metric: str
    by: str
    whose: str
    scores: Mapping[int, float]


def place(
    number: int, winner: int, scores: Mapping[int, float], decided: Decided | None, cheaper: str | None = None
) -> str:
    """How a complete trial compares with the winner.

    Args:
        number: of the trial.
        winner: number of the winner.
        scores: of all trials that could win.
        decided: what decided among the best, if the scores of all did not.
        cheaper: what the trial would have saved; None if unknown.
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
