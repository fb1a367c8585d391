"""Winners of the method `adapter` on a tiny model, for tests of what builds on them: real files, drawn values."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch

from autopeft.execution.problem import Problem
from autopeft.methods.registry import discover
from autopeft.models.attach import attach, trainable
from autopeft.study.card import Card
from autopeft.study.file import StudySpec
from autopeft.winner import winner

if TYPE_CHECKING:
    from pathlib import Path

    from autopeft.common.params import ParamValue

ADAPTER = {"placement": "pfeiffer", "reduction_factor": 4, "non_linearity": "relu", "layers": "all"}


@functools.cache
def problem_of(study: Path) -> Problem:
    """The problem of a study file, read once."""
    return Problem.from_spec(StudySpec.from_file(study), discover())


def saved_winner(study: Path, folder: Path, method: str = "adapter", seed: int = 0, **params: ParamValue) -> Path:
    """A winner in `folder`, as a study saves it, whose values are drawn and not trained."""
    problem, found = problem_of(study), discover()[method]
    own = {**(ADAPTER if method == "adapter" else found.search_space(problem.base.spec).defaults()), **params}
    model = attach(problem.base, found, own, seed=seed)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter += 0.1 * torch.randn_like(parameter)
    card = Card(
        base_model=problem.base_model,
        task=problem.task.kind,
        labels=problem.rows.labels,
        **problem.reader.settings,
        method=method,
        params=own,
        plugin="",
        seed=seed,
        base_digest=problem.base_digest,
        task_options=dict(problem.spec.task.options),
        task_facts=dict(problem.task.facts),
        inputs=problem.task.inputs,
    )
    winner.save(model, found, problem.reader, card, folder)
    return folder
