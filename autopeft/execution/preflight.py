"""One check of the base model, its tokenizer and the rows together, before the first trial.

A fault of the model would make every trial fail with a library's message; this check reports it in plain words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from autopeft.budget.memory_watch import release_memory
from autopeft.common.exceptions import ModelError, in_a_line
from autopeft.common.seeds import seeded
from autopeft.models.device import name_of
from autopeft.models.float16 import overflows
from autopeft.models.quantization import NONE
from autopeft.tasks import token_scores
from autopeft.tasks.writing import Writing
from autopeft.training.batch import Batch
from autopeft.training.loss_scale import PROBE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autopeft.execution.problem import Problem

ROWS = 4
"""Rows that are run: the longest, and the first ones."""

RATE = 1e-3


def check(problem: Problem) -> None:
    """Make sure that the model can read the study's rows and learn from them; the model is not changed.

    Raises:
        SpecError: a metric or a score of texts of the user's own fails.
        ModelError: the model is known to overflow in float16, the tokenizer has no padding token or knows tokens that
            the model does not, the model fails on the rows, its outputs are not finite in the study's
            precision, or a step of training changes nothing.
    """
    _try_own(problem)
    where = f"[model] name_or_path: {problem.spec.model.name_or_path}"
    if problem.device.scaled and (reason := overflows(problem.base.module, problem.base.spec)):
        raise ModelError(
            f'{where} cannot be trained with `dtype = "float16"` in [model], because {reason}; set `dtype = '
            '"float32"`, or "bfloat16" on a GPU that computes it.'
        )
    problem.reader.check(problem.base.processor, problem.base.module, problem.task.texts, where)
    try:
        with seeded(problem.spec.seed):
            _check_step(problem, where)
    except torch.OutOfMemoryError:  # each trial finds out for itself what fits
        pass
    finally:
        release_memory()


def _try_own(problem: Problem) -> None:
    """Try the user's own metric and scores of texts before hours are spent.

    Scores are tried on correct texts and on empty ones, since models write empty texts too.
    """
    task, test = problem.task, problem.test.truths
    if problem.metric_digest:
        answers = (
            np.ones((len(test), len(token_scores.NAMES)), np.float32)
            if task.writes
            else task.baseline(problem.train.truths, test, problem.rows.labels).answers
        )
        task.score(problem.metric, test, answers)
    if isinstance(task, Writing):
        texts = [*test[: task.options.written_rows]]
        for own in task.own_scores.values():
            for written in (texts, [""] * len(texts)):
                own.score.of(written, [[text] for text in texts])


def _check_step(problem: Problem, where: str) -> None:
    """Run a few rows through a copy of the model, and train its head on them."""
    device, spec = problem.device, problem.base.spec
    model = problem.base.copy().eval()
    parts = spec.head or spec.layers[-1:]  # a pretrained head stays as it is: then check the layers
    head = [p for name in parts for p in _own(model.get_submodule(name))]
    batch = Batch.of(problem.train, [_rows(problem.train.extents)], device.type)
    try:
        with device.kernels():
            with device.precision():
                outputs = problem.task.run(model, batch.tensors)
            predictions = problem.task.answer(outputs, batch.tensors)
            (loss,) = (problem.task.loss(*part) for part in batch.per_fold(outputs))
            _check_finite(problem, predictions, where)
            loss = loss * PROBE if device.scaled else loss
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    except (torch.OutOfMemoryError, ModelError):
        raise
    except Exception as error:  # of any kind: the model may bring code of its own
        raise ModelError(
            f"{where} cannot read the study's rows; the longest has {problem.train.lengths.max()} "
            f"{problem.reader.unit} ({in_a_line(error)}); {problem.reader.advice}, or give another model."
        ) from error
    if not _changes(head):
        raise ModelError(
            f"{where} must have {'a head' if spec.head else 'layers'} that {'learns' if spec.head else 'learn'}, but a "
            f"step of training changes nothing in {', '.join(parts)}; "
            "give another model."
        )


def _own(module: nn.Module) -> list[nn.Parameter]:
    """Put trainable copies in place of a module's parameters, which layers share with the base model; returns them."""
    found = []
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            if parameter.is_floating_point():
                setattr(part, name, own := nn.Parameter(parameter.detach().clone()))
                found.append(own)
    return found


def _rows(lengths: np.ndarray) -> np.ndarray:
    longest = int(lengths.argmax())
    others = [row for row in range(min(ROWS, len(lengths))) if row != longest]
    return np.array([longest, *others[: ROWS - 1]])


def _check_finite(problem: Problem, predictions: torch.Tensor, where: str) -> None:
    if torch.isfinite(predictions).all():
        return
    lowered = problem.device.autocast is not None or problem.spec.model.quantization != NONE
    precision = name_of(problem.device.autocast)
    kept = "" if problem.spec.model.quantization == NONE else f" and {problem.spec.model.quantization} weights"
    advice = 'set `dtype = "float32"` and `quantization = "none"` in [model], or ' if lowered else ""
    raise ModelError(
        f"{where} must give finite numbers, but its outputs for the first rows in {precision}{kept} are not finite; "
        f"{advice}give another model, with intact weights."
    )


def _changes(parameters: Sequence[nn.Parameter]) -> bool:
    """Whether a step on their gradients changes any of them."""
    before = [parameter.detach().clone() for parameter in parameters]
    torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0).step()
    return any(not torch.equal(old, new) for old, new in zip(before, parameters, strict=True))
