"""How many candidates of a study train in one pass."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from autopeft.common.exceptions import SpecError
from autopeft.models.device import ADAMW
from autopeft.models.quantization import EIGHT_BITS
from autopeft.study.sections import LOCAL_BACKEND

if TYPE_CHECKING:
    from autopeft.budget.memory.peak import MemoryEstimate
    from autopeft.budget.usage import Usage
    from autopeft.execution.problem import Problem
    from autopeft.methods.candidate import Candidate
    from autopeft.training.batch_plan import Execution

CARD_SHARE = 0.95
"""Share of a GPU's memory that a pass may take, by its prediction, where the study sets no limit."""

MOST, SHARE = 8, 8
""""auto" is one in `SHARE` of the trials, since candidates in one pass have most choices in common; at most `MOST`."""


def together(problem: Problem) -> int:
    """The most candidates of the study in one pass; 1 if each trains alone."""
    wanted = problem.spec.search.cohort
    if isinstance(wanted, int):
        return wanted
    possible = problem.device.type != "cpu" and problem.workers == 1 and not _obstacle(problem)
    return max(1, min(MOST, problem.spec.search.trials // SHARE)) if possible else 1


def require(problem: Problem) -> None:
    """Check that the number of candidates that the study file asks for can train in one pass.

    Raises:
        SpecError: another setting excludes it.
    """
    wanted = problem.spec.search.cohort
    if not isinstance(wanted, int) or wanted == 1:
        return
    obstacle = "`workers` in [search] is more than 1" if problem.workers > 1 else _obstacle(problem)
    if obstacle:
        raise SpecError(f"`cohort` in [search] must be 1 if {obstacle}, but is {wanted}; change one of the two.")


def _obstacle(problem: Problem) -> str:
    """What in the study file excludes passes of several candidates; empty if nothing does."""
    model, backend = problem.spec.model, problem.spec.search.backend
    if backend != LOCAL_BACKEND:
        return f'`backend` in [search] is "{backend}"'
    if problem.parts:
        return "the study has `[[tasks]]`"
    if problem.spec.validation.packing == "off":
        return '`packing` in [validation] is "off"'
    if model.optimizer != ADAMW:
        return f'`optimizer` in [model] is "{model.optimizer}"'
    if model.quantization == EIGHT_BITS:
        return f'`quantization` in [model] is "{EIGHT_BITS}"'
    return "the loss is scaled, as with float16" if problem.device.scaled else ""


def fitting(
    problem: Problem, candidate: Candidate, usage: Usage, wanted: int
) -> tuple[Execution, MemoryEstimate] | None:
    """The pass of most candidates as large as this one that fits the memory limit, at most `wanted`, and its memory.

    None if its folds are not packed, or no two of it fit.
    """
    single = usage.execution
    if single.folds != len(problem.folds) or single.folds == 1:
        return None
    limit = problem.budget.max_gpu_memory
    if limit is None and problem.device.type == "cuda" and torch.cuda.is_available():
        limit = int(CARD_SHARE * torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
    while wanted > 1:
        execution = replace(single, candidates=wanted)
        estimate = problem.cost_estimator.predict(candidate, execution)
        if limit is None or estimate.peak <= limit:
            return execution, estimate
        wanted = min(wanted - 1, int(wanted * limit / estimate.peak))
    return None
