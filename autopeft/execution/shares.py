"""How many trials of a study run side by side, and what each may use."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from autopeft.budget.limits import LIMITS, MEMORY, Budget
from autopeft.budget.memory import gpu
from autopeft.study.sections import LOCAL_BACKEND

if TYPE_CHECKING:
    from autopeft.models.base import BaseModel
    from autopeft.models.device import Device
    from autopeft.study.file import StudySpec

CORES_PER_WORKER = 2


def budget_of(spec: StudySpec, base: BaseModel, device: Device, workers: int, card: int | None) -> Budget:
    """The study's limits; for memory, the share of one worker, which on other machines is all of it."""
    workers = workers if spec.search.backend == LOCAL_BACKEND else 1
    memory = limit = card or spec.budget.max_gpu_memory
    if workers > 1 and device.type == "cuda":
        own = gpu.context()  # the study's process uses the GPU too; measured before the workers start
        memory = max(1, memory - own) if memory else None
    given = {name: value for name, value in spec.budget.model_dump().items() if value is not None}
    limits = {name: LIMITS[name].amount(value, base.spec.num_parameters) for name, value in given.items()}
    if memory:
        limits[MEMORY.name] = max(1, memory // workers)
    return Budget(workers, limit, **limits)


def side_by_side(spec: StudySpec, workers: int) -> bool:
    """Whether several trials may run at the same time, so that one is drawn while others have not ended.

    Args:
        spec: the study.
        workers: `workers_of` it.
    """
    return workers > 1 or (spec.search.backend != LOCAL_BACKEND and spec.search.workers == "auto")


def workers_of(spec: StudySpec, device: Device) -> int:
    """How many trials run side by side: at most as many as there are in all, and one with several base models."""
    wanted = spec.search.workers
    if spec.model.candidates:
        return 1
    if not isinstance(wanted, int):  # "auto"
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        wanted = max(1, cores // CORES_PER_WORKER) if device.type == "cpu" else 1
        if spec.search.backend != LOCAL_BACKEND:  # it decides, when it has connected to its machines
            wanted = 1
    return min(wanted, spec.search.trials)
