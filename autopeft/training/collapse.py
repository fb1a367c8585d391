"""Whether a fold learns: told from its answers and its training losses."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from autopeft.tasks.contract import Task

LEARNING, NOT_YET, COLLAPSED = "learning", "not yet", "collapsed"

FLAT = 0.95
"""A loss above so large a share of that of the best answer that looks at no input has not fallen."""

EARLY = 1 / 3
"""Share of the steps after which a fold must have begun to learn."""


def state_of(losses: Sequence[float], blind: float | None, one_answer: bool | None, part: float) -> str | None:
    """`LEARNING`, `NOT_YET`, `COLLAPSED`, or None where neither sign can be told.

    A fold is stuck if it gives all rows one answer, or if its loss is that of one that looks at no input. It has
    collapsed if it is stuck after a third of its steps, or its loss was lower before.

    Args:
        losses: mean training losses so far, in their order; the last is the latest.
        blind: of the best answer that looks at no input (`Task.blind_loss`); None: not known.
        one_answer: whether nearly all rows got the same answer (`Task.one_answer`); None: it cannot be told.
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
    """The same, of a fold.

    Args:
        task: tells the signs.
        losses: mean training losses so far, in their order.
        part: share of the steps that are done.
        trained: what is true of the rows it trains on, `[rows]`.
        answers: to the rows it validates, `[rows, …]`.
        truths: what is true of these.
    """
    return state_of(losses, task.blind_loss(trained), task.one_answer(answers, truths), part)
