"""Whether a fold learns, judged by its answers and its training losses."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from autopeft.tasks.contract import Task

LEARNING, NOT_YET, COLLAPSED = "learning", "not yet", "collapsed"

FLAT = 0.95
"""A loss has not fallen if it is above this share of the loss of the best answer that ignores the input."""

EARLY = 1 / 3
"""Share of the steps after which a fold must have begun to learn."""


def state_of(losses: Sequence[float], blind: float | None, one_answer: bool | None, part: float) -> str | None:
    """`LEARNING`, `NOT_YET`, `COLLAPSED`, or None if neither sign is known.

    A fold is stuck if it gives all rows the same answer, or if its loss is that of a model that ignores its input. It
    has collapsed if it is stuck after a third of its steps, or if its loss was lower before.

    Args:
        losses: mean training losses so far, in their order; the last is the latest.
        blind: loss of the best answer that ignores the input (`Task.blind_loss`); None: unknown.
        one_answer: whether nearly all rows got the same answer (`Task.one_answer`); None: unknown.
        part: share of the steps that are done.
    """
    if blind is None and one_answer is None:
        return None
    flat = bool(blind) and losses[-1] >= FLAT * (blind or 0.0)
    if not (flat or one_answer):
        return LEARNING
    fell = blind is not None and min(losses) < FLAT * blind <= losses[-1]
    return COLLAPSED if fell or part > EARLY else NOT_YET


def state_of_fold(
    task: Task,
    losses: Sequence[float],
    part: float,
    trained: np.ndarray,
    answers: np.ndarray,
    truths: np.ndarray,
) -> str | None:
    """The `state_of` a fold.

    Args:
        task: gives both signs.
        losses: mean training losses so far, in their order.
        part: share of the steps that are done.
        trained: true answers of its training rows, `[rows]`.
        answers: its answers to its validation rows, `[rows, …]`.
        truths: true answers of these.
    """
    return state_of(losses, task.blind_loss(trained), task.one_answer(answers, truths), part)
