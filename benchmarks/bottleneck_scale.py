"""Does a mixture's training hold where its bottlenecks are scaled by alpha / width, or warmed up for longer?

Adam moves every entry of a zero up-projection by about the learning rate in each step, so what a bottleneck adds grows
with its width. The default of `mixed` is cross-validated as it is, with its bottlenecks' output times alpha / width,
and with a warm-up of 20 steps at least; printed are the score and the state of each fold and the loss at each rung.

    python benchmarks/bottleneck_scale.py studies/quickstart.toml --alpha 8 24
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from autopeft_adapter.adapter import Bottleneck
from autopeft_mixed import Mixed

from autopeft.execution.problem import Problem
from autopeft.execution.run_trial import run_trial
from autopeft.methods.registry import discover
from autopeft.study.file import StudySpec

if TYPE_CHECKING:
    import torch
    from torch import nn

    from autopeft import ModelSpec, Params

WARM = 20
"""Steps."""


class ScaledBottleneck(Bottleneck):
    """A bottleneck whose output is multiplied by `scale`."""

    scale: float

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As without, times the scale."""
        return self.scale * super().forward(x)


class ScaledMixed(Mixed):
    """The mixture with bottlenecks scaled by alpha / width, so that a step of any width moves the output as far."""

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def apply(self, model: nn.Module, params: Params, spec: ModelSpec) -> nn.Module:
        """Put the mixture on, and scale its bottlenecks."""
        model = super().apply(model, params, spec)
        for module in list(model.modules()):
            if isinstance(module, Bottleneck):
                module.__class__, module.scale = ScaledBottleneck, self.alpha / module.down.out_features
        return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study")
    parser.add_argument("--alpha", type=float, nargs="+", default=[8.0])
    parser.add_argument("--rate", type=float, help="learning rate in place of the default")
    parser.add_argument("--no-warm-up", action="store_true", help="only the warm-up as it is")
    arguments = parser.parse_args()
    spec = StudySpec.from_file(arguments.study)
    search = spec.search.model_copy(update={"methods": ["mixed"], "exclude": [], "overrides": {}})
    free = spec.budget.model_copy(update=dict.fromkeys(type(spec.budget).model_fields))
    problem = Problem.from_spec(spec.model_copy(update={"search": search, "budget": free}), discover())
    default = problem.space["mixed"].default()
    hyper = replace(default.hyper, learning_rate=arguments.rate or default.hyper.learning_rate)
    print("| bottlenecks | warm-up | score | folds | states | loss at each rung |\n|---|---|---:|---|---|---|")
    for warm in (0,) if arguments.no_warm_up else (0, WARM):
        for alpha in (None, *arguments.alpha):
            method = default.method if alpha is None else ScaledMixed(alpha)
            candidate = replace(default, method=method, hyper=replace(hyper, least_warmup=warm))
            outcome = run_trial(problem, candidate, lambda rung: None)
            last = outcome.rungs[-1]
            cells = (
                "as they are" if alpha is None else f"{alpha:g} / width",
                f"{warm} steps at least" if warm else "as it is",
                f"{last.mean:.3f}",
                " ".join(f"{score:.3f}" for score in last.scores),
                ", ".join(last.states),
                " ".join(f"{rung.loss:.3f}" for rung in outcome.rungs),
            )
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
