"""How many trials of a study run side by side, on which GPUs, and what each may use."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autopeft.budget.limits import LIMITS, MEMORY, Budget
from autopeft.budget.memory import gpu
from autopeft.common.units import format_bytes
from autopeft.models.cards import Card, chosen
from autopeft.study.sections import LOCAL_BACKEND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autopeft.execution.problem import Problem
    from autopeft.models.base import BaseModel
    from autopeft.models.device import Device
    from autopeft.study.file import StudySpec

CORES_PER_WORKER = 2


@dataclass(frozen=True)
class Share:
    """What one worker may use.

    Attributes:
        budget: the limits of its trials; for memory, its part of the GPU or of the study's limit.
        card: its GPU; None on a CPU, and where PyTorch chooses.
    """

    budget: Budget
    card: Card | None = None

    @property
    def memory(self) -> float:
        """Bytes that a step of its trials may take; infinite where there is no limit."""
        limit = self.budget.max_gpu_memory
        return math.inf if limit is None else limit


def shares_of(spec: StudySpec, base: BaseModel, device: Device, planned: int | None) -> tuple[Share, ...]:
    """What each worker of the study may use; the first is on the GPU that the study's own process uses.

    Args:
        spec: the study file.
        base: the base model.
        device: where it trains.
        planned: bytes of GPUs to plan for, which need not be here; they replace `max_gpu_memory`.

    Raises:
        SpecError: the study names GPUs that are not here.
    """
    given = {name: value for name, value in spec.budget.model_dump().items() if value is not None}
    limits = {name: LIMITS[name].amount(value, base.spec.num_parameters) for name, value in given.items()}
    limit = planned or spec.budget.max_gpu_memory
    if spec.search.backend != LOCAL_BACKEND:  # each worker has a machine, or a GPU of one, to itself
        own = limits if limit is None else {**limits, MEMORY.name: limit}
        return (Share(Budget(1, limit, **own)),) * workers_of(spec, device, 1)
    groups: list[Card | None] = [*(_planned(spec, planned) if planned else chosen(spec))] or [None]
    count = workers_of(spec, device, len(groups))
    groups = groups[:count]
    shares = []
    for worker in range(count):
        place = worker % len(groups)
        card, together = groups[place], len(range(place, count, len(groups)))  # workers on this GPU
        memory = whole = _whole(limit, card if count > 1 else None)
        if memory and count > 1 and device.type == "cuda" and place == 0:
            memory -= gpu.context()  # the study's process uses this GPU too; measured before the workers start
        own = limits if memory is None else {**limits, MEMORY.name: max(1, memory // together)}
        shares.append(Share(Budget(together, whole, **own), card))
    return tuple(shares)


def _planned(spec: StudySpec, memory: int) -> tuple[Card, ...]:
    """GPUs of this size in place of those that the study asks for; none where it leaves that to PyTorch."""
    return tuple(Card(place, "", "planned", memory) for place in spec.search.devices or ())


def _whole(limit: int | None, card: Card | None) -> int | None:
    """Bytes that the workers on one GPU share; None where nothing limits them."""
    return min((size for size in (limit, card.memory if card else None) if size is not None), default=None)


def side_by_side(spec: StudySpec, workers: int) -> bool:
    """Whether several trials may run at the same time, so that one is drawn while others have not ended.

    Args:
        spec: the study.
        workers: `workers_of` it.
    """
    return workers > 1 or (spec.search.backend != LOCAL_BACKEND and spec.search.workers == "auto")


def workers_of(spec: StudySpec, device: Device, cards: int) -> int:
    """How many trials run side by side: at most as many as there are in all; one with several base models or tasks.

    Args:
        spec: the study file.
        device: where it trains.
        cards: how many GPUs there are for them, if it is on GPUs.
    """
    wanted = spec.search.workers
    if spec.model.candidates or spec.tasks:
        return 1
    if not isinstance(wanted, int):  # "auto"
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        wanted = max(1, cores // CORES_PER_WORKER) if device.type == "cpu" else cards
        if spec.search.backend != LOCAL_BACKEND:  # it decides, when it has connected to its machines
            wanted = 1
    return min(wanted, spec.search.trials)


def where(problem: Problem) -> str:
    """Where a study's trials train, as a sentence; empty where its backend says so itself."""
    return told(problem.shares, problem.device.type) if problem.spec.search.backend == LOCAL_BACKEND else ""


def told(shares: Sequence[Share], device: str) -> str:
    """Where trials train, as a sentence; empty where one worker trains and PyTorch chooses its device.

    Args:
        shares: of the workers.
        device: its type, where a share has no GPU of its own.
    """
    if len(shares) == 1:
        return f"Trials train on {shares[0].card}." if shares[0].card else ""
    places: dict[str, list[Share]] = {}
    for share in shares:
        places.setdefault(str(share.card or f"the {'CPU' if device == 'cpu' else 'GPU'}"), []).append(share)
    parts = [f"{len(those)} on {place}{_each(those)}" for place, those in places.items()]
    return f"Trials train in {len(shares)} worker processes: {'; '.join(parts)}."


def _each(shares: Sequence[Share]) -> str:
    """The memory of each of the workers on one device."""
    limit = shares[0].budget.max_gpu_memory
    return "" if limit is None else f", with {format_bytes(limit)}" + " each" * (len(shares) > 1)
