"""The sampler of a study."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import optuna

from autopeft.cross_validation import derive_seed

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

optuna.logging.set_verbosity(optuna.logging.WARNING)  # its line per trial would say less than ours


class MethodFirstSampler(optuna.samplers.TPESampler):
    """TPE that draws the method first, and then that method's dimensions alone.

    Optuna's own draws a value for every dimension of every method and throws all but one method's away: with ten
    methods most of what a proposal costs.
    """

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The method and its dimensions, as far as they can be modelled yet."""
        if "method" not in search_space:  # there is but one
            return super().sample_relative(study, trial, search_space)
        drawn = super().sample_relative(study, trial, {"method": search_space["method"]})
        if not drawn:
            return {}
        own = {name: kind for name, kind in search_space.items() if name.startswith(f"{drawn['method']}.")}
        return drawn | super().sample_relative(study, trial, own)


def make_sampler(seed: int, number: int, trials: int, *, side_by_side: bool = False) -> BaseSampler:
    """TPE for trial `number`: multivariate, and grouped so that each method's dimensions are modelled together.

    Each trial gets a sampler of its own, seeded by its number. A study that was interrupted therefore draws exactly
    what an uninterrupted one would have drawn. With trials `side_by_side`, those that run count as bad ones, so that
    the same point is not drawn twice; what is drawn then depends on which trials have ended by then.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return MethodFirstSampler(
            multivariate=True,
            group=True,
            seed=derive_seed(seed, number),
            n_startup_trials=min(10, max(4, trials // 3)),
            constant_liar=side_by_side,
        )
