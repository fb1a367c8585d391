"""What the winner's method shows in the report: its own sections, and the scores of variants of the winner."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from autopeft.methods.contract import PeftMethod
from autopeft.models.device import Device
from autopeft.study.report_section import ReportSection, ReportTable
from autopeft.training.initial_values import batches_of
from autopeft.winner import winner

if TYPE_CHECKING:
    from pathlib import Path

    from autopeft.execution.problem import Problem
    from autopeft.methods.candidate import Candidate
    from autopeft.search.scored import Scored
    from autopeft.winner.winner import Winner

MOST_ROWS = 1_000
"""Most held-out rows that a method sees; they are the first ones."""

BATCH = 16


def sections(problem: Problem, best: Candidate, made: Scored, folder: Path) -> list[ReportSection]:
    """The sections of the winner in a folder, which is loaded only if its method has something to show.

    If the models of several folds answer together, the method's own sections are about the first of them.
    """
    kind = type(best.method)
    if kind.sections is PeftMethod.sections and kind.variants is PeftMethod.variants:
        return []
    with problem.off_the_card():
        loaded = winner.load(folder, problem.device.type, trust_remote_code=problem.spec.model.trust_remote_code)
        spec = problem.base.spec
        setup = replace(problem.setup(best), rows=problem.test, device=Device(problem.device.type, None))
        rows = np.arange(min(len(problem.test), MOST_ROWS))
        own = best.method.sections(loaded.module, batches_of(setup, rows, BATCH), best.params, spec)
        return [*own, *_variants(problem, best, made, loaded)]


def _variants(problem: Problem, best: Candidate, made: Scored, loaded: Winner) -> list[ReportSection]:
    """A table with the score of each variant."""
    spec, rows = problem.base.spec, problem.rows.test[[*made.task.inputs]]
    several = [best.method.variants(module, best.params, spec) for module in loaded.modules]
    lines = [("as it is", f"{made.score:.4f}", "")]
    for name in several[0]:
        with ExitStack() as stack:
            for changes in several:
                stack.enter_context(changes[name])
            score = made.task.score(problem.metric, problem.test.truths, loaded.answers(rows))
        lines.append((name, f"{score:.4f}", f"{score - made.score:+.4f}"))
    if len(lines) == 1:
        return []
    table = ReportTable(("the winner", problem.metric, "difference"), tuple(lines), (1, 2))
    told = "Scores on the held-out rows; nothing was trained again, and nothing was chosen by them."
    return [ReportSection("Variants of the winner", told, table=table)]
