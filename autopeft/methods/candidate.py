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
    """A method, its own params, the training hyperparameters, and those settings of the task that are searched.

    Where a study chooses among several base models also the `model` by its label, and what dimensions are `called`
    there that differ between models.
    """

    method: PeftMethod
    params: Params
    hyper: Hyperparameters
    task: Params = field(default_factory=dict)
    model: str = ""
    called: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The method's, and of several base models that of its model."""
        return arm(self.method.name, self.model)

    @property
    def dimensions(self) -> dict[str, ParamValue]:
        """Every dimension by its own name, but for method and model."""
        return {**self.params, **self.hyper.point, **self.task}

    @property
    def flat(self) -> dict[str, ParamValue]:
        """As Optuna and MLflow know it: `method`, and every dimension as `<method>.<name>`."""
        name = self.method.name
        dimensions = {self.called.get(key, key): value for key, value in self.dimensions.items()}
        of_model = {MODEL: self.model} if self.model else {}
        return {"method": name, **{f"{name}.{key}": value for key, value in {**of_model, **dimensions}.items()}}

    def __str__(self) -> str:
        """A name a person can read, such as `lora r=8 lora_alpha=16 … lr=0.001`."""
        shown = {**self.params, "lr": self.hyper.learning_rate, "epochs": self.hyper.epochs, **self.task}
        return readable(self.name, shown)


@dataclass(frozen=True)
class MethodSpace:
    """One method's part of the space: its own dimensions, the training ones as it has them, and some of the task.

    `model` and `called` as of a `Candidate`.
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
        """Every dimension by its name; the method's own of a name is what is drawn."""
        return {**self.task, **self.training, **self.own}

    def candidate(self, params: Params, training: Mapping[str, Any], task: Params | None = None) -> Candidate:
        """The candidate at a point of these spaces; without a point of the last, at its defaults."""
        chosen = self.task.defaults() if task is None else dict(task)
        return Candidate(self.method, dict(params), Hyperparameters(**training), chosen, self.model, self.called)

    def default(self) -> Candidate:
        """The candidate that the method's author considers proven."""
        return self.candidate(self.own.defaults(), self.training.defaults())

    def suggest(self, trial: BaseTrial) -> Candidate:
        """Draw a candidate of this method."""
        prefix = f"{self.method.name}."
        spaces = (self.own, self.training, self.task)
        return self.candidate(*(space.suggest(trial, prefix, self.called) for space in spaces))

    def sample(self, count: int, seed: int) -> list[Candidate]:
        """`count` candidates drawn independently and evenly, by Optuna's random sampler."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)  # nobody needs to know of this study
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
        return [self.suggest(study.ask()) for _ in range(count)]


def within_bounds(ranges: SearchSpace) -> SearchSpace:
    """The training dimensions with a method's own ranges of them; what is valid at all is the host's to say.

    Raises:
        ValueError: a range passes those bounds.
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
    """See that the keys of [search] that are not settings are methods or dimensions.

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
    """See that the keys of [search], and those of methods' tables in it, name what there is, without a model.

    What their values may be goes by the model, but for the training dimensions, of which the bounds are the host's.

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
    """See that a method's table names dimensions of its own or of the training."""
    training = {*TRAINING_SPACE, *declared}
    for name in table:
        if name not in own and name not in training:
            hint = _hint(name, {*own, *training})
            raise SpecError(f'"{brief(name)}" in {where} is not a dimension; {hint}')


def _hint(name: str, known: Collection[str]) -> str:
    """What a name that is not known may mean: a setting of training, or the known name nearest to it."""
    word = training_word(name)
    return f"here it is called `{word}`." if word else nearest(name, known)


class CandidateSpace(Mapping[str, MethodSpace]):
    """The methods of a study with their spaces, as the study file narrows them.

    Of several base models each method on each model has a part of its own, by a name such as "lora on small".

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

        With the number of `rows` that a fold trains on, the length of training and default rates go by it (`length`).

        `overrides` holds the keys of [search] that are not among its `fixed_keys`: a training dimension for every
        method (`learning_rate = 3e-4`), a table for one (`lora.r = [4, 32]`), or a dimension of the `task`, which is
        searched where it is named alone.

        Raises:
            SpecError: a key is neither, a dimension is unknown, or a value lies outside what it can be.
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
        """The labels of the base models that have a part, in their order; of a single one "" alone."""
        there = {part.model for part in self.values()}
        return [model for model in self._models if model in there]

    def on(self, model: str) -> CandidateSpace:
        """The parts of the methods on one base model."""
        return CandidateSpace((part for part in self.values() if part.model == model), [model])

    @property
    def methods(self) -> dict[str, MethodSpace]:
        """By the method's own name its part; of several base models that on the first that it is searched on."""
        found = dict[str, MethodSpace]()
        for part in self.values():
            found.setdefault(part.method.name, part)
        return found

    def of_method(self, name: str) -> list[MethodSpace]:
        """The parts of a method, one for each base model that it is searched on."""
        return [part for part in self.values() if part.method.name == name]

    @property
    def max_epochs(self) -> int:
        """The most epochs any candidate trains: the pruner's largest resource."""
        return max(int(max(space.training["epochs"].extremes())) for space in self.values())

    @property
    def defaults(self) -> dict[str, ParamValue]:
        """The default of every dimension, as `<method>.<name>`; of those too that a default does not have."""
        return {
            f"{part.method.name}.{part.called.get(key, key)}": dimension.default
            for part in self.values()
            for key, dimension in part.dimensions.items()
        }

    def suggest(self, trial: BaseTrial) -> Candidate:
        """Draw a candidate: the method, then the base model where there are several, then the rest."""
        parts = self.of_method(name := trial.suggest_categorical("method", tuple(self.methods)))
        chosen = parts[0].model
        if chosen:
            chosen = trial.suggest_categorical(f"{name}.{MODEL}", tuple(part.model for part in parts))
        return self[arm(name, chosen)].suggest(trial)

    def parse(self, flat: Mapping[str, ParamValue]) -> Candidate:
        """The candidate behind the params of an Optuna trial."""
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
    """The space of a study that chooses among several base models, whose parts take turns, a method after the other.

    What a dimension can be may depend on the model. One that is the same on all models is one dimension, so that what
    was found on one of them helps on another; any other is called "<name> on <model>".

    Args:
        spaces: by the model's label, in their order.
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
