"""Which hyperparameters mattered, by Optuna's PED-ANOVA: for each method, and over the whole conditional space."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autopeft.study.states import COMPLETE, PRUNED, STOPPED

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from autopeft.study.archive import Archive

FEWEST, TOP = 20, 5
"""Fewest trials for a result; and the fewest top trials for PED-ANOVA to compare with all, by its authors."""


@dataclass(frozen=True)
class Importance:
    """Shares of importance, which sum to 1.

    Attributes:
        scope: a method, or "all methods".
        trials: number of trials that it was computed from.
        basis: the score that was used.
        shares: by hyperparameter, the most important first; empty where there are too few trials.
        note: in words, what it is based on or why it is empty.
    """

    scope: str
    trials: int
    basis: str
    shares: dict[str, float]
    note: str


def importances(archive: Archive) -> list[Importance]:
    """For the whole space, where there are several methods, and for each of them that has enough trials."""
    methods = list(dict.fromkeys(record.method for record in archive.records))
    scopes = {"all methods": methods} if len(methods) > 1 else {}
    found = [_importance(archive, scope, of) for scope, of in {**scopes, **{name: [name] for name in methods}}.items()]
    return found[:1] if found and found[0].trials < FEWEST else found  # each method has even fewer


def _importance(archive: Archive, scope: str, methods: list[str]) -> Importance:
    """PED-ANOVA (Watanabe, Bansal & Hutter 2023, arXiv:2304.10255; conditional spaces: arXiv:2601.20800).

    It compares the distribution of the best trials' params with that of all trials. A pruned trial has no final score,
    and leaving it out would hide what makes a candidate bad. So unless enough trials are complete, all are judged by
    the first rung, which every trained trial has reached.
    """
    scored: dict[str, dict[int, float]] = {COMPLETE: {}, PRUNED: {}, STOPPED: {}}
    early = {}
    for record in archive.records:
        if record.method in methods and record.state in scored and record.curve:
            scored[record.state][record.number] = record.score or 0.0
            early[record.number] = record.curve[0]
    values, basis = scored[COMPLETE], "the final score of the complete trials"
    if len(values) < FEWEST and len(early) > len(values):
        values, basis = early, "the score at the first rung, which pruned trials have too"
    if len(values) < FEWEST:
        note = f"Too few trials to tell: {len(values)} with a score. Below {FEWEST}, a ranking would be noise."
        return Importance(scope, len(values), basis, {}, note)
    if len(set(values.values())) == 1:
        return Importance(scope, len(values), basis, {}, "Nothing mattered: every trial has the same score.")
    shares = _ped_anova([archive.trials[number] for number in values], list(values.values()))
    prefix = f"{scope.partition(' on ')[0]}."  # without the base model, if there are several
    note = (
        f"By {basis}, over {len(values)} trials: what distinguishes the best {_top(len(values)):.0%} from all of them."
    )
    return Importance(scope, len(values), basis, {k.removeprefix(prefix): v for k, v in shares.items()}, note)


def _top(trials: int) -> float:
    return max(0.1, TOP / trials)


def _ped_anova(trials: list[FrozenTrial], values: list[float]) -> dict[str, float]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # this study is internal
    study = optuna.create_study(direction="maximize")
    study.add_trials(
        [
            optuna.trial.create_trial(params=trial.params, distributions=trial.distributions, value=value)
            for trial, value in zip(trials, values, strict=True)
        ]
    )
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=_top(len(trials)))
    varied = {name for trial in trials for name in trial.params if len({str(t.params.get(name)) for t in trials}) > 1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of conditional params that few trials have; their shares are small, and fair
        found = optuna.importance.get_param_importances(study, evaluator=evaluator, params=sorted(varied))
    return {name: float(share) for name, share in sorted(found.items(), key=lambda item: (-item[1], item[0]))}
