"""What happens once the search is over: refit, save, score once on the rows held out, and set beside the baselines."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from autopeft import artifact
from autopeft.card import Card
from autopeft.cross_validation import derive_seed
from autopeft.locate import portable
from autopeft.model import attach, checkpoint_layers
from autopeft.objective import release_memory
from autopeft.training import Learner, train_epoch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from autopeft.candidate import Candidate
    from autopeft.problem import Problem

REFIT_SEED_STREAM = 1_000_000
"""Keeps the refit's random numbers apart from every fold's."""


@dataclass(frozen=True)
class TestScores:
    """Scores on the held-out rows: the winner, the majority class, and each method's untuned default.

    A default is None where it was over the budget and so was not trained; `notes` says why.
    """

    winner: float
    baseline: float
    defaults: dict[str, float | None]
    notes: dict[str, str]


def refit(problem: Problem, candidate: Candidate) -> nn.Module:
    """Train the candidate on every training row."""
    execution = problem.appraiser(candidate).execution
    model = attach(problem.base, candidate.method, candidate.params, seed=problem.spec.seed).to(problem.device.type)
    data, make_whole = problem.trunk.prepare(candidate.method.name, model)
    if execution.checkpointing:
        checkpoint_layers(model)
    callback = candidate.method.callback(model, candidate.params, problem.base.spec)
    alone = replace(execution, folds=1)
    learner = Learner(model, candidate.hyper, len(problem.train), alone, callback=callback)
    for epoch in range(1, candidate.hyper.epochs + 1):
        seed = derive_seed(problem.spec.seed, REFIT_SEED_STREAM, epoch)
        train_epoch(learner, data, [problem.all_rows], problem.task, problem.device, [seed], seed)
    make_whole()
    return model.eval()


def crown(problem: Problem, best: Candidate, folder: Path, origin: str, say: Callable[[str], None]) -> TestScores:
    """Refit and save the best candidate, load it back from disk, and score that, and the baselines, on the test rows.

    The score is of exactly what the folder holds, in float32. The folder appears whole or not at all.
    """
    say(f"Refitting the winner on all {len(problem.train)} training rows: {best}")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".winner-") as draft:
        score = _score(problem, best, Path(draft) / "winner", origin)
        shutil.rmtree(folder, ignore_errors=True)
        (Path(draft) / "winner").rename(folder)
        defaults: dict[str, float | None] = {}
        notes: dict[str, str] = {}
        for name, part in problem.space.items():
            default = part.default()
            reason = problem.budget.reason(problem.appraiser(default))
            if default.flat == best.flat:
                defaults[name] = score
            elif reason:
                defaults[name], notes[name] = None, f"its default {reason}"
            else:
                say(f"Scoring the untuned default of {name} on the test rows")
                try:
                    defaults[name] = _score(problem, default, Path(draft) / name, origin)
                except Exception as error:  # a method whose default fails must not cost the winner
                    defaults[name], notes[name] = None, f"its default failed: {error}"
    baseline = problem.task.baseline(problem.spec.validation.metric, problem.train.labels, problem.test.labels)
    return TestScores(score, baseline, defaults, notes)


def _score(problem: Problem, candidate: Candidate, folder: Path, origin: str) -> float:
    """Refit, save to `folder`, load from there, and score on the test rows."""
    spec = problem.spec
    card = Card(
        base_model=portable(spec.model.name_or_path, spec.folder),
        task=problem.task.kind,
        labels=problem.rows.labels,
        max_length=problem.max_length,
        method=candidate.method.name,
        params=dict(candidate.params),
        plugin=origin,
        seed=spec.seed,
        trust_remote_code=spec.model.trust_remote_code,
        quantization=spec.model.quantization,
    )
    artifact.save(refit(problem, candidate), candidate.method, problem.base.tokenizer, card, folder)
    release_memory()
    loaded = artifact.load(folder, problem.device.type)
    predictions = loaded.predict_proba(problem.rows.test)
    return problem.task.score(spec.validation.metric, problem.test.labels, predictions)
