"""Whether anything in a search space fits the budget, and what comes closest to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autopeft.common.containment import guarded, unguarded
from autopeft.common.exceptions import BudgetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from autopeft.budget.cost_estimator import CostEstimator
    from autopeft.budget.limits import Budget
    from autopeft.methods.candidate import Candidate, CandidateSpace, MethodSpace


CORNERS_TRIED = 6
"""Corners tried per method before a search says that nothing fits: counting is cheap, predicting memory is not."""


@unguarded()
def require_room(space: CandidateSpace, estimator: CostEstimator, budget: Budget, seconds: float) -> None:
    """Make sure that the budget admits something, at the cheapest batch size, before anything trains.

    If a method cannot say what it needs, or hangs for `seconds`, this stays open, and its trials will show it.

    Raises:
        BudgetError: no default and no corner of the space fits; the message names the closest one and what it needs.
    """
    found = []
    for part in space.values():
        try:
            with guarded(seconds):
                found.append(closest(cheapest(part, estimator), estimator, budget))
                if budget.admits(estimator(found[-1])):
                    return
        except Exception:  # a method may do anything; its trials will report it
            return
    candidate = closest(found, estimator, budget)
    usage = estimator(candidate)
    try:
        with guarded(seconds):
            budget.violations(usage, every=True)  # so that the sentence gives the need and not its lower bound
    except Exception:
        return
    raise BudgetError(
        f"nothing in the search space fits the budget. The closest candidate is {candidate}, but it "
        f"{budget.reason(usage)}. Raise this limit in [budget], or widen the space in [search]; `autopeft plan` shows "
        "what each method needs."
    )


def closest(candidates: Iterable[Candidate], estimator: CostEstimator, budget: Budget) -> Candidate:
    """The first candidate that fits, or the one whose worst violation is smallest."""
    best: tuple[float, Candidate] | None = None
    for candidate in candidates:
        worst = max(budget.violations(estimator(candidate), cheap=True).values(), default=0.0)
        if worst <= 0:
            return candidate
        if best is None or worst < best[0]:
            best = worst, candidate
    assert best is not None  # every method has a default
    return best[1]


def cheapest(part: MethodSpace, estimator: CostEstimator) -> Iterator[Candidate]:
    """A method's default and the few corners that train least, all at the smallest batch the space allows.

    They are generated lazily: the corners are counted only if the default does not settle the question.
    """
    training = smallest_batch(part)
    yield part.candidate(part.own.defaults(), training)
    corners = [part.candidate(params, training) for params in part.own.corners()]
    corners.sort(key=lambda candidate: estimator(candidate).trainable_params)
    yield from corners[:CORNERS_TRIED]


def smallest_batch(part: MethodSpace) -> dict[str, Any]:
    """The default training dimensions, but the smallest batch."""
    return {**part.training.defaults(), "batch_size": min(part.training["batch_size"].extremes())}
