"""The configurations of the bank: the same for all tasks, and drawn before any of them was run.

- `defaults`: every method's own.
- `lower`: LoRA, adapter and prefix-tuning at a third and a tenth of their default rate.
- `wide`: drawn evenly from the whole space of the strong methods.
- `near_more`, `wide_more`: as a study draws around the defaults, and more of the last.
- `small_batch`: strong defaults and their lower rates in batches of 8.

A configuration says nothing of the length of training. Its name is a hash of what it says and of `VERSION`, which rises
when the same words come to mean another training.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import optuna

from autopeft.common.seeds import derive_seed
from autopeft.methods.candidate import Candidate, CandidateSpace
from autopeft.methods.training_space import Hyperparameters
from autopeft.models.attach import attach, trained_params
from autopeft.search.sampler import NearDefaultsSampler

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from autopeft.common.params import ParamValue
    from autopeft.methods.registry import Registry
    from autopeft.models.base import BaseModel

VERSION = 1
SEED = 25

STRONG = ("adapter", "lora", "prefix_tuning")
"""Methods that most of the pool is of: they were the best where anybody looked."""

LOWER = (1 / 3, 1 / 10)
"""Shares of the default rate: defaults suit about a hundred steps, and published rates are up to 40 times lower."""

EPOCHS = "epochs"
TRAINING = {field.name for field in fields(Hyperparameters)} - {EPOCHS}

Pool = dict[str, list["Config"]]


@dataclass(frozen=True)
class Config:
    """A method with what is set of it and of its training; `origin` is how it came into the pool."""

    method: str
    origin: str
    params: Mapping[str, ParamValue]

    @property
    def name(self) -> str:
        """16 hexadecimal digits."""
        said = json.dumps([VERSION, self.method, self.params], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    def candidate(self, space: CandidateSpace, epochs: int, **training: Any) -> Candidate:
        """The candidate that trains for so many epochs; `training` sets more of how it is trained."""
        known = {**self.params, **training, EPOCHS: epochs}
        if unknown := training.keys() - TRAINING:
            named = ", ".join(sorted(unknown))
            raise SystemExit(f"autopeft must know the options {named}, but does not; record with --schedule linear.")
        hyper = {name: known.pop(name) for name in (*TRAINING, EPOCHS) if name in known}
        return Candidate(space[self.method].method, known, Hyperparameters(**hyper))

    def scaled(self, rate: float = 1.0, **params: ParamValue) -> Config:
        """The same at a share of its learning rate, with other params."""
        rate *= float(self.params["learning_rate"])
        return replace(self, origin="added", params={**self.params, "learning_rate": rate, **params})


def of(candidate: Candidate, origin: str) -> Config:
    """The configuration of a candidate."""
    usual = {field.name: field.default for field in fields(Hyperparameters)}  # none of what is searched
    training = {name: getattr(candidate.hyper, name) for name in sorted(TRAINING)}
    said = {name: value for name, value in training.items() if value != usual[name]}
    return Config(candidate.method.name, origin, {**candidate.params, **said})


def pool(space: CandidateSpace) -> Pool:
    """The blocks of configurations, by name; always the same for a space."""
    defaults = {name: of(part.default(), "default") for name, part in space.items()}
    strong = [defaults[name] for name in STRONG if name in defaults]
    wide, more = (_wide(space, each, seed) for each, seed in ((4, 1), (5, 2)))
    lower = [config.scaled(rate) for rate in LOWER for config in strong]
    return {
        "defaults": [*defaults.values()],
        "lower": lower,
        "wide": wide[:8],
        "near_more": [of(candidate, "near") for candidate in _near(space, 12)],
        "wide_more": more[:12],
        "small_batch": [config.scaled(batch_size=8) for config in (*strong, *lower)][:8],
    }


def _wide(space: CandidateSpace, each: int, seed: int) -> list[Config]:
    """So many even draws of each strong method, by turns."""
    drawn = [
        space[name].sample(each, derive_seed(SEED, seed, place)) for place, name in enumerate(STRONG) if name in space
    ]
    return [of(candidate, "wide") for turn in zip(*drawn, strict=True) for candidate in turn]


def _near(space: CandidateSpace, count: int) -> list[Candidate]:
    """As the first draws of a study."""
    study = optuna.create_study(sampler=NearDefaultsSampler(space.defaults, derive_seed(SEED, 3)))
    return [space.suggest(study.ask()) for _ in range(count)]


def space_of(base: BaseModel, registry: Registry) -> CandidateSpace:
    """The space of every method that supports the base model, whatever the task."""
    methods = [method for _, method in sorted(registry.methods.items()) if method.supports(base.spec)]
    return CandidateSpace.build(methods, base.spec, {}, ())


def table(configs: Iterable[Config], base: BaseModel, space: CandidateSpace) -> list[dict[str, Any]]:
    """Rows of `configs.parquet`; what is trained besides the head is told as a share of the base model."""
    found = []
    for config in {config.name: config for config in configs}.values():
        candidate = config.candidate(space, 1)
        model = attach(base, candidate.method, candidate.params, meta=True)
        own = trained_params(base, candidate.method, candidate.params, model) - base.head_params
        found.append(
            {
                "config": config.name,
                "method": config.method,
                "origin": config.origin,
                "params": json.dumps(config.params, sort_keys=True),
                "lr": config.params["learning_rate"],
                "batch": config.params["batch_size"],
                "trained_share": own / base.spec.num_parameters,
            }
        )
    return found
