"""The sampler of a study: draws around the methods' defaults first, then where trials scored well."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from autopeft.common.seeds import derive_seed
from autopeft.methods import length
from autopeft.search.seen import Inferred, Memory, Seen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

    from autopeft.common.params import ParamValue

optuna.logging.set_verbosity(optuna.logging.WARNING)  # its line for each trial says less than ours


SPREAD = 0.25
"""Standard deviation of a number drawn near its default, as a share of its range."""

KEPT = 0.5
"""How often a choice keeps its default without being drawn."""

FIRST = 10
"""Number of draws near the defaults before TPE has enough to model; Optuna's TPE draws as many at random."""


DRAWN = "drawn"
"""User attribute of a queued trial of which only some params are given, so that it can share a pass with others."""


class NearDefaultsSampler(optuna.samplers.RandomSampler):
    """Draws each dimension around its default, if it has one; the method, and the rest, uniformly.

    A learning rate is drawn around the rate for the length that was drawn (`length.rate_at`). Numbers come from a
    normal distribution around the default, cut off at the range's ends, on a log scale where the dimension has one. A
    method's author knows more than a uniform draw over wide ranges, most of which are useless for the task at hand: the
    prior of PriorBand (Mallik et al. 2023, arXiv:2306.12370). `benchmarks/near_defaults.py` compares the two.

    Args:
        defaults: of the dimensions, by Optuna's name.
        seed: of the draws.
    """

    def __init__(self, defaults: Mapping[str, ParamValue], seed: int) -> None:
        super().__init__(seed)
        self._defaults, self._generator = defaults, np.random.default_rng(seed)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """One dimension."""
        default = self._centre(trial, param_name)
        if isinstance(default, int | float) and isinstance(param_distribution, FloatDistribution | IntDistribution):
            return self._near(default, param_distribution)
        if (
            default is not None
            and isinstance(param_distribution, CategoricalDistribution)
            and self._generator.random() < KEPT
        ):
            return default
        return super().sample_independent(study, trial, param_name, param_distribution)

    def _centre(self, trial: FrozenTrial, param_name: str) -> ParamValue | None:
        """The value that a dimension is drawn around."""
        default, (method, _, dimension) = self._defaults.get(param_name), param_name.rpartition(".")
        if dimension == "learning_rate" and isinstance(default, float):
            epochs, usual = (known.get(f"{method}.epochs") for known in (trial.params, self._defaults))
            if isinstance(epochs, int) and isinstance(usual, int):
                return length.rate_at(epochs, default, usual)
        return default

    def _near(self, default: float, kind: FloatDistribution | IntDistribution) -> float:
        scale, back = (math.log, math.exp) if kind.log else (float, float)
        step = kind.step if isinstance(kind, IntDistribution) else 0
        low, high = scale(kind.low - step / 2), scale(kind.high + step / 2)  # the ends get a full share
        centre = scale(min(max(default, kind.low), kind.high))
        while not low <= (drawn := self._generator.normal(centre, SPREAD * (high - low))) <= high:
            pass
        value = min(max(back(drawn), kind.low), kind.high)
        return kind.low + round((value - kind.low) / step) * step if step else value


class MethodFirstSampler(optuna.samplers.TPESampler):
    """TPE that draws the method first, and then only that method's dimensions, for one trial.

    Optuna's own TPE draws a value for every dimension of every method and throws away all but one method's. With ten
    methods that is most of the cost of a proposal.

    Args:
        memory: of the study.
        settings: of TPE.
    """

    def __init__(self, memory: Memory, **settings: Any) -> None:
        super().__init__(**settings)
        self._memory = memory
        self._seen: Seen | None = None

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Every dimension that has been drawn, in groups of those that were drawn together."""
        self._seen, firsts = self._memory.look(study)
        names = [frozenset(one.distributions) for one in firsts.get_trials(deepcopy=False)]
        known = self._memory.inferred
        if known is None or known.names != names:  # to infer it for each trial would take milliseconds
            found = super().infer_relative_search_space(firsts, trial)
            self._memory.inferred = known = Inferred(names, found, self._search_space_group)
        self._search_space_group = known.groups
        return known.dimensions

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A dimension that no trial has yet."""
        return super().sample_independent(self._seen or study, trial, param_name, param_distribution)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The method and its dimensions, as far as they can be modelled yet."""
        study = self._seen or study
        if "method" not in search_space:  # there is only one
            return super().sample_relative(study, trial, search_space)
        if DRAWN in trial.user_attrs:
            drawn = {"method": trial.system_attrs["fixed_params"]["method"]}
        else:
            drawn = super().sample_relative(study, trial, {"method": search_space["method"]})
        if not drawn:
            return {}
        own = {name: kind for name, kind in search_space.items() if name.startswith(f"{drawn['method']}.")}
        return drawn | super().sample_relative(study, trial, own)


@dataclass(frozen=True)
class Draw:
    """What a trial's sampler needs to know.

    Attributes:
        seed: of this trial's draws.
        draws: number of trials that were drawn and have ended; queued ones do not count.
        defaults: of the dimensions, by Optuna's name.
        side_by_side: whether other trials may run meanwhile.
        memory: what is remembered of the study's trials.
    """

    seed: int
    draws: int
    defaults: Mapping[str, ParamValue]
    side_by_side: bool
    memory: Memory


def _tpe(draw: Draw) -> BaseSampler:
    """Near the defaults at first; TPE after `FIRST` draws that have ended.

    Before any has ended TPE knows nothing, and would draw uniformly for all but the first of many workers.

    TPE is multivariate and grouped, so that each method's dimensions are modelled together. Running trials count as bad
    ones, so that the same point is not drawn twice.
    """
    if draw.draws < FIRST:
        return NearDefaultsSampler(draw.defaults, draw.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return MethodFirstSampler(
            draw.memory,
            multivariate=True,
            group=True,
            seed=draw.seed,
            n_startup_trials=0,
            constant_liar=draw.side_by_side,
        )


SAMPLERS: dict[str, Callable[[Draw], BaseSampler]] = {
    "tpe": _tpe,
    "random": lambda draw: optuna.samplers.RandomSampler(draw.seed),
}
"""Makers of a trial's sampler, by the names that a study file may give; `SearchSection.sampler` has the same names.

"random" draws uniformly from the whole space and learns nothing: a search must beat it.
"""


def make_sampler(
    seed: int,
    number: int,
    draws: int,
    defaults: Mapping[str, ParamValue],
    *,
    side_by_side: bool = False,
    name: str = "tpe",
    memory: Memory | None = None,
) -> BaseSampler:
    """The sampler that a study file names, for trial `number` of a study with that seed; see `Draw` for the rest.

    Each trial gets a sampler of its own, seeded by its number. A study that was interrupted therefore draws exactly
    what an uninterrupted one would have drawn. With trials `side_by_side`, what TPE draws depends on which trials have
    ended by then. The `memory` of a study spares reading all its trials for each of them.
    """
    return SAMPLERS[name](Draw(derive_seed(seed, number), draws, defaults, side_by_side, memory or Memory()))
