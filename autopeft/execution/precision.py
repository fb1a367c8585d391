"""Decides `dtype = "auto"`, by a measured step if the device natively computes in a lower precision than float32."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from autopeft.budget.memory_watch import release_memory
from autopeft.common import machine
from autopeft.common.containment import guarded
from autopeft.common.exceptions import in_a_line
from autopeft.execution.problem import Problem
from autopeft.models.attach import attach
from autopeft.models.device import FLOAT32, Device, name_of
from autopeft.models.float16 import overflows
from autopeft.models.modes import checkpoint_layers, train_mode
from autopeft.models.quantization import NONE
from autopeft.training.batch import Batch, bucketed
from autopeft.training.learner import Learner
from autopeft.training.packing_check import seconds_of

if TYPE_CHECKING:
    from autopeft.methods.candidate import Candidate
    from autopeft.methods.registry import Registry
    from autopeft.models.base import BaseModel
    from autopeft.study.file import StudySpec

WORTH_DOING = 1.1
"""Speed-up over float32 that a step in a lower precision must have for that precision to be chosen."""

USUAL = "lora"
"""The method whose default is timed if it is searched; else the first one is."""


@dataclass(frozen=True)
class Choice:
    """A study's precision by its name in study files, and what the user is told about the choice."""

    dtype: str
    told: str = ""


def settle(spec: StudySpec, registry: Registry) -> tuple[Problem, str]:
    """Prepare a study, in the precision that its file names or in one that is chosen now.

    The choice is written into the problem's own study file, and so kept with the study: a later start, workers and the
    refit take it from there.

    Returns:
        The problem, and a sentence on the choice; empty if nothing was measured.

    Raises:
        UserInputError: as `Problem.from_spec`.
    """
    problem = Problem.from_spec(spec, registry)
    if spec.model.dtype != "auto":
        return problem, ""
    choice = _choice(problem)
    if choice.dtype != name_of(problem.device.autocast):
        settled, read = problem.spec.with_model(dtype=choice.dtype), problem if problem.base.whole else None
        del problem
        release_memory()
        problem = Problem.from_spec(settled, registry, read=read)
    problem.base.whole.clear()
    return replace(problem, spec=problem.spec.with_model(dtype=choice.dtype)), choice.told


def _choice(problem: Problem) -> Choice:
    """The precision for a problem that was prepared in the device's lower precision, if it has one."""
    lower = name_of(problem.device.autocast)
    if problem.device.autocast is None:
        return Choice(FLOAT32)
    if problem.device.scaled and (reason := overflows(problem.base.module, problem.base.spec)):
        return Choice(FLOAT32, f'`dtype = "auto"` is float32 here and not float16, because {reason}.')
    if problem.spec.model.quantization != NONE:  # its weights are expanded to the lower precision for every product
        return Choice(lower)
    part = problem.space.get(USUAL) or next(iter(problem.space.values()))
    try:
        with guarded(problem.spec.search.hang_timeout):
            candidate = part.default()
            quick = seconds_of_step(problem, candidate, problem.device)
            try:
                plain = seconds_of_step(problem, candidate, replace(problem.device, autocast=None))
            except torch.OutOfMemoryError:
                return Choice(
                    lower, f'`dtype = "auto"` is {lower} here, because a step in float32 does not fit into memory.'
                )
    except Exception as error:  # a method may do anything, and its trial will report it
        if machine.fault(error):
            raise
        return Choice(lower, f'`dtype = "auto"` is {lower} here, because no step could be timed ({in_a_line(error)}).')
    finally:
        release_memory()
    chosen = lower if plain >= WORTH_DOING * quick else FLOAT32
    return Choice(
        chosen,
        f"A training step of {candidate.method.name} takes {1000 * quick:,.1f} ms in {lower} and "
        f'{1000 * plain:,.1f} ms in float32: `dtype = "auto"` is {chosen} for this study.',
    )


def seconds_of_step(problem: Problem, candidate: Candidate, device: Device) -> float:
    """Seconds of a candidate's training step in the precision of `device`, once the device is warm.

    Weights that the problem keeps in a lower precision are replaced in a copy.
    """
    model = attach(problem.base, candidate.method, candidate.params, seed=problem.spec.seed).to(device.type)
    if device.autocast is None:
        _in_float32(model, problem.base)
    execution = replace(problem.cost_estimator(candidate).execution, folds=1)
    if execution.checkpointing:
        checkpoint_layers(model)
    train_mode(model)
    rows = problem.folds[0].train
    callback = candidate.method.callback(model, candidate.params, problem.base.spec)
    learner = Learner(model, candidate.hyper, len(rows), execution, callback=callback, device=device)
    learner.take_turn()
    chosen = bucketed(problem.train.extents[rows], learner.batches, problem.spec.seed, problem.spec.seed)[0]
    batches: list[Batch] = learner.load(problem.train, [rows[chosen]], device.type)
    task = problem.task.trying(candidate.task)
    with torch.random.fork_rng():
        learner.step(batches, task, device)
        return seconds_of(lambda: learner.step(batches, task, device))


def _in_float32(model: nn.Module, base: BaseModel) -> None:
    """Make a copy of the base model use the float32 weights that were kept, or the lower ones expanded."""
    kept = {id(base.module.get_submodule(name).get_parameter("weight")): whole for name, whole in base.whole.items()}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.dtype in (torch.bfloat16, torch.float16):
                whole = kept.get(id(parameter), parameter.data).to(parameter.device, torch.float32)
                module._parameters[name] = nn.Parameter(whole, requires_grad=False)
