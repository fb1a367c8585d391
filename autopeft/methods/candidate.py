"""A candidate is a method with its hyperparameters; the candidate space is what the study draws them from."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from autopeft.common.exceptions import SpecError, brief, nearest, shorten
from autopeft.common.model_names import MODEL, arm
from autopeft.common.training_words import training_word
from autopeft.methods import length
from autopeft.methods.dimensions import Categorical
from autopeft.methods.search_space import SearchSpace, readable
from autopeft.methods.training_space import TRAINING_SPACE, Hyperparameters

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

    from autopeft.common.params import Params, ParamValue
    from autopeft.methods.contract import ModelSpec, PeftMethod
    from autopeft.methods.dimensions import Dimension


@dataclass(frozen=True)
class Candidate:
    """A method, its own params, the training hyperparameters, and the settings of the task that are searched.

    If a study chooses among several base models, also the `model`'s label, and the names (`called`) of the dimensions
    that differ between models.
    """

    method: PeftMethod
    params: Params
    hyper: Hyperparameters
    task: Params = field(default_factory=dict)
    model: str = ""
    called: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The method's name, and the model's if there are several base models."""
        return arm(self.method.name, self.model)

    @property
    def dimensions(self) -> dict[str, ParamValue]:
        """Every dimension by its own name, except method and model."""
        return {**self.params, **self.hyper.point, **self.task}

    @property
    def flat(self) -> dict[str, ParamValue]:
        """The params for Optuna and MLflow: `method`, and every dimension as `<method>.<name>`."""
        name = self.method.name
        dimensions = {self.called.get(key, key): value for key, value in self.dimensions.items()}
        of_model = {MODEL: self.model} if self.model else {}
        return {"method": name, **{f"{name}.{key}": value for key, value in {**of_model, **dimensions}.items()}}

    @property
    def alike(self) -> dict[str, ParamValue]:
        """The part of `flat` that candidates must have in common to train in one pass (`PeftMethod.unequal`)."""
        free = {*(self.method.unequal or ()), *self.hyper.point} - {"batch_size"}
        called = {f"{self.method.name}.{self.called.get(key, key)}" for key in free}
        return {key: value for key, value in self.flat.items() if key not in called}

    def __str__(self) -> str:
        """A readable name, such as `lora r=8 lora_alpha=16 … lr=0.001`."""
        shown = {**self.params, "lr": self.hyper.learning_rate, "epochs": self.hyper.epochs, **self.task}
        return readable(self.name, shown)


@dataclass(frozen=True)
class MethodSpace:
    """One method's part of the space: its own dimensions, its training dimensions, and some of the task.

    `model` and `called` are those of `Candidate`.
    """

    method: PeftMethod
    own: SearchSpace
    training: SearchSpace
    task: SearchSpace = field(default_factory=lambda: SearchSpace({}))
    model: str = ""
    called: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As `Candidate.name`."""
        return arm(self.method.name, self.model)

    @property
    def dimensions(self) -> dict[str, Dimension]:
        """Every dimension by its name; if several have one name, the method's own counts."""
        return {**self.task, **self.training, **self.own}

    def candidate(self, params: Params, training: Mapping[str, Any], task: Params | None = None) -> Candidate:
        """The candidate at these points of the spaces; without a point for the task, at the task's defaults."""
        chosen = self.task.defaults() if task is None else dict(task)
        return Candidate(self.method, dict(params), Hyperparameters(**training), chosen, self.model, self.called)

    def default(self) -> Candidate:
        """The candidate with the method author's defaults."""
        return self.candidate(self.own.defaults(), self.training.defaults())

    def suggest(self, trial: BaseTrial) -> Candidate:
        """Draw a candidate of this method."""
        prefix = f"{self.method.name}."
        spaces = (self.own, self.training, self.task)
        return self.candidate(*(space.suggest(trial, prefix, self.called) for space in spaces))

    def sample(self, count: int, seed: int) -> list[Candidate]:
        """`count` candidates drawn independently and uniformly by Optuna's random sampler."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)  # this study is internal
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
        return [self.suggest(study.ask()) for _ in range(count)]


def within_bounds(ranges: SearchSpace) -> SearchSpace:
    """The training dimensions with a method's own ranges, which must be within the host's bounds.

    Raises:
        ValueError: a range exceeds these bounds.
    """
    held = {}
    for name, dimension in ranges.items():
        if dimension.optional:
            raise ValueError(f'dimension "{name}" is needed for all training and cannot be optional.')
        host = TRAINING_SPACE.get(name)
        if host is None or isinstance(host, Categorical):
            held[name] = dimension
        elif not isinstance(dimension, Categorical):
            held[name] = replace(dimension, bounds=host.valid)
        elif wrong := [choice for choice in dimension.choices if choice not in host.valid]:
            raise ValueError(f'dimension "{name}" must be {host.valid}, but has the choice {wrong[0]!r}.')
        else:
            held[name] = dimension
    return TRAINING_SPACE.merged(SearchSpace(held))


def check_keys(
    methods: Iterable[PeftMethod], overrides: Mapping[str, Any], fixed_keys: Iterable[str], task: SearchSpace
) -> None:
    """Check that the keys of [search] that are not settings are methods or dimensions.

    Raises:
        SpecError: one is neither.
    """
    names = {method.name for method in methods}
    for key in overrides:
        if key not in names and key not in TRAINING_SPACE and key not in task:
            hint = _hint(key, {*names, *TRAINING_SPACE, *fixed_keys, *task})
            raise SpecError(f'"{brief(key)}" in [search] is not a setting, method or training dimension; {hint}')


def check_names(
    methods: Iterable[PeftMethod], overrides: Mapping[str, Any], fixed_keys: Iterable[str], task: SearchSpace
) -> None:
    """Check without a model that the keys of [search], and of methods' tables in it, exist.

    Their valid values depend on the model, except those of training dimensions, whose bounds are the host's.

    Raises:
        SpecError: a name is unknown, or the value of a training dimension is out of its bounds.
    """
    methods = list(methods)
    check_keys(methods, overrides, fixed_keys, task)
    ranges = {key: value for key, value in overrides.items() if key in TRAINING_SPACE}
    for method in methods:
        own, training = method.search_space(), method.training_space()
        chosen = {key for key, dimension in training.items() if isinstance(dimension, Categorical)}
        ranges = {key: value for key, value in ranges.items() if key not in chosen}
        if isinstance(table := overrides.get(method.name), Mapping):
            _check_dimensions(table, own, training, f"[search] {method.name}")
    TRAINING_SPACE.narrowed(ranges, "[search]")


def _check_dimensions(table: Mapping[str, Any], own: SearchSpace, declared: SearchSpace, where: str) -> None:
    """Check that a method's table names its own dimensions or training dimensions."""
    training = {*TRAINING_SPACE, *declared}
    for name in table:
        if name not in own and name not in training:
            hint = _hint(name, {*own, *training})
            raise SpecError(f'"{brief(name)}" in {where} is not a dimension; {hint}')


def _hint(name: str, known: Collection[str]) -> str:
    """What an unknown name may mean: a training setting, or the known name nearest to it."""
    word = training_word(name)
    return f"here it is called `{word}`." if word else nearest(name, known)


class CandidateSpace(Mapping[str, MethodSpace]):
    """The methods of a study with their spaces, narrowed by the study file.

    With several base models, each method on each model is a part, with a name such as "lora on small".

    Args:
        spaces: the parts.
        models: the labels of several base models, in their order.
    """

    def __init__(self, spaces: Iterable[MethodSpace], models: Iterable[str] = ("",)) -> None:
        self._spaces, self._models = {space.name: space for space in spaces}, [*models]

    @classmethod
    def build(
        cls,
        methods: Iterable[PeftMethod],
        spec: ModelSpec | None,
        overrides: Mapping[str, Any],
        fixed_keys: Iterable[str],
        task: SearchSpace | None = None,
        rows: int | None = None,
    ) -> CandidateSpace:
        """The space of `methods` on a model, narrowed by the study file's [search] table.

        Given the number of `rows` that a fold trains on, the length of training and default rates depend on it
        (`length`).

        `overrides` holds the keys of [search] that are not among its `fixed_keys`: a training dimension for every
        method (`learning_rate = 3e-4`), a table for one method (`lora.r = [4, 32]`), or a dimension of the `task`,
        which is searched only if it is named.

        Raises:
            SpecError: a key is none of these, a dimension is unknown, or a value is not valid.
        """
        methods, task = list(methods), task or SearchSpace({})
        check_keys(methods, overrides, fixed_keys, task)
        names = {method.name for method in methods}
        common = {key: value for key, value in overrides.items() if key in TRAINING_SPACE}
        searched = {key: value for key, value in overrides.items() if key in task and key not in names}
        chosen = SearchSpace({key: task[key] for key in searched}).narrowed(searched, "[search]")
        parts = (cls._narrow(method, spec, common, overrides.get(method.name, {}), rows) for method in methods)
        return cls(replace(part, task=chosen) for part in parts)

    @staticmethod
    def _narrow(
        method: PeftMethod,
        spec: ModelSpec | None,
        common: Mapping[str, Any],
        table: Mapping[str, Any],
        rows: int | None,
    ) -> MethodSpace:
        own, declared = method.search_space(spec), method.training_space(spec)
        training = within_bounds(declared if rows is None else length.of_rows(declared, rows))
        where = f"[search] {method.name}"
        if not isinstance(table, Mapping):
            raise SpecError(
                f"{where} must be a table of dimensions, such as {method.name}.epochs = 3, but got {shorten(table)}."
            )
        _check_dimensions(table, own, training, where)
        mine = {name: value for name, value in table.items() if name in training and name not in own}
        training = training.narrowed(common, "[search]").narrowed(mine, where)
        return MethodSpace(
            method,
            own.narrowed({name: value for name, value in table.items() if name in own}, where),
            training if rows is None else length.with_scaled_rate(training, rows),
        )

    def __getitem__(self, name: str) -> MethodSpace:
        return self._spaces[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._spaces)

    def __len__(self) -> int:
        return len(self._spaces)

    @property
    def models(self) -> list[str]:
        """The labels of the base models that have a part, in their order; only "" for a single one."""
        there = {part.model for part in self.values()}
        return [model for model in self._models if model in there]

    def on(self, model: str) -> CandidateSpace:
        """The parts of the methods on one base model."""
        return CandidateSpace((part for part in self.values() if part.model == model), [model])

    @property
    def methods(self) -> dict[str, MethodSpace]:
        """Each method's part by its own name; with several base models, the part on the first one that has it."""
        found = dict[str, MethodSpace]()
        for part in self.values():
            found.setdefault(part.method.name, part)
        return found

    def of_method(self, name: str) -> list[MethodSpace]:
        """The parts of a method, one for each base model that it is searched on."""
        return [part for part in self.values() if part.method.name == name]

    @property
    def max_epochs(self) -> int:
        """The most epochs that any candidate trains: the pruner's largest resource."""
        return max(int(max(space.training["epochs"].extremes())) for space in self.values())

    @property
    def defaults(self) -> dict[str, ParamValue]:
        """The default of every dimension, as `<method>.<name>`, also of those that the default candidate lacks."""
        return {
            f"{part.method.name}.{part.called.get(key, key)}": dimension.default
            for part in self.values()
            for key, dimension in part.dimensions.items()
        }

    def suggest(self, trial: BaseTrial) -> Candidate:
        """Draw a candidate: the method, then the base model if there are several, then the rest."""
        parts = self.of_method(name := trial.suggest_categorical("method", tuple(self.methods)))
        chosen = parts[0].model
        if chosen:
            chosen = trial.suggest_categorical(f"{name}.{MODEL}", tuple(part.model for part in parts))
        return self[arm(name, chosen)].suggest(trial)

    def parse(self, flat: Mapping[str, ParamValue]) -> Candidate:
        """The candidate with the params of an Optuna trial."""
        name = str(flat["method"])
        space = self.get(name) or self[arm(name, str(flat.get(f"{name}.{MODEL}")))]
        plain = {called: own for own, called in space.called.items()}
        values = {
            plain.get(key, key): value
            for key, value in ((key.partition(".")[2], value) for key, value in flat.items() if key != "method")
        }
        own, training, task = (
            {name: value for name, value in values.items() if name in part}
            for part in (space.own, space.training, space.task)
        )
        return space.candidate(own, training, task)


def together(spaces: Mapping[str, CandidateSpace]) -> CandidateSpace:
    """The space of a study that chooses among several base models; for each method in turn, its parts on all models.

    A dimension may depend on the model. If it is the same on all models, it is one dimension, so that what was found on
    one model helps on another; otherwise it is called "<name> on <model>".

    Args:
        spaces: the models' spaces by label, in their order.
    """
    methods = dict.fromkeys(name for space in spaces.values() for name in space)
    found = []
    for name in methods:
        parts = {label: space[name] for label, space in spaces.items() if name in space}
        for label, part in parts.items():
            shared = [key for key in part.dimensions if _shared(key, parts.values())]
            called = {key: arm(key, label) for key in part.dimensions if key not in shared}
            found.append(replace(part, model=label, called=called))
    return CandidateSpace(found, spaces)


def _shared(key: str, parts: Iterable[MethodSpace]) -> bool:
    first, *others = (part.dimensions.get(key) for part in parts)
    return all(other == first for other in others)
