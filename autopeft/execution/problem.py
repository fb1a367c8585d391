"""Everything a study file stands for, prepared: rows as tokens, the base model, the folds, the space, the budget."""

from __future__ import annotations

import functools
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

import torch

from autopeft.budget.cost_estimator import CostEstimator
from autopeft.budget.memory_watch import release_memory
from autopeft.common.exceptions import MethodError, SpecError
from autopeft.common.locate import kind_of, locate, portable
from autopeft.execution.base_loader import base_loader, commit_of
from autopeft.execution.folds import folds_of
from autopeft.execution.screening import refusal
from autopeft.execution.sent_rows import SentRows
from autopeft.execution.shares import shares_of
from autopeft.execution.weight_check import WeightCheck
from autopeft.methods.candidate import CandidateSpace
from autopeft.models.device import described_card, study_device
from autopeft.models.load import read_config
from autopeft.models.quantization import NONE
from autopeft.models.readers import STUDY_READERS
from autopeft.study.folder import STATES
from autopeft.study.sections import FIXED_SEARCH_KEYS
from autopeft.tasks import user_metric
from autopeft.tasks.base_model_part import BaseModelPart
from autopeft.tasks.registry import find_task
from autopeft.tasks.study_methods import with_settings
from autopeft.tasks.study_rows import read_rows, recognised, rows_that_count
from autopeft.tasks.text_scores import own as own_score
from autopeft.tasks.writing import Writing
from autopeft.training import blockwise_adamw
from autopeft.training.rungs import rung_ends
from autopeft.training.setup import Setup
from autopeft.training.trunk_cache import Trunk

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np

    from autopeft.budget.limits import Budget
    from autopeft.common.params import ParamValue
    from autopeft.common.plugins import Origin
    from autopeft.common.truncation import Truncation
    from autopeft.data.encoded import Encoded
    from autopeft.data.load import StudyData
    from autopeft.data.split import Fold
    from autopeft.execution.shares import Share
    from autopeft.methods.candidate import Candidate
    from autopeft.methods.contract import PeftMethod
    from autopeft.methods.registry import Registry
    from autopeft.models.base import BaseModel
    from autopeft.models.device import Device
    from autopeft.models.reader import Reader
    from autopeft.study.file import StudySpec
    from autopeft.tasks.contract import Task

Known = TypeVar("Known")

FEWEST_COMPARED = 2
"""Least rows of a batch whose loss compares rows (`Task.contrasts`)."""


@dataclass(frozen=True)
class Problem:
    """Everything of a study that is fixed before the first trial.

    `shares` says what each worker may use, and `budget` holds the largest share; `blocked` plugins were left out.
    `train` and `test` are encoded once, by `reader`; `refused` holds the methods left out, with reasons. `packed` holds
    the methods whose folds train in one pass, and whether each is mapped by place (`packing.pack`). `origins` says
    which plugin a method is from; `weight_check` whether one changed the base model's weights.

    `base_model` refers to the base model in a form that holds in any folder, even when its files are gone;
    `base_digest` is its identity (`digest.of`); `kinds` holds the kind of each reference when the study was read
    (`locate.kind_of`), by the name of its setting. `metric_digest` is the SHA-256 of the file of the user's own metric.
    `batch_seed` is the seed of batches and dropout if it is not the study's.

    A study that chooses among several base models has a problem for each, with its `label`; they share rows, splits,
    the whole space, and the rungs of the first, whose folds have `rung_rows`. One more problem holds all of them as
    `models`: it is the first one's in what does not depend on the model; for the rest ask `of(candidate)`. If the study
    is `planned` for a GPU that need not be here, the models stay off it.

    A study of several tasks has a problem for each as `parts`, by the task's name. They share the base model's weights.
    """

    spec: StudySpec
    task: Task
    rows: StudyData
    base: BaseModel
    train: Encoded
    test: Encoded
    folds: tuple[Fold, ...]
    device: Device
    space: CandidateSpace
    budget: Budget
    refused: dict[str, str]
    reader: Reader
    origins: dict[str, Origin]
    weight_check: WeightCheck
    base_model: str
    base_digest: str
    kinds: dict[str, str]
    metric_digest: str = ""
    shares: tuple[Share, ...] = ()
    blocked: tuple[str, ...] = ()
    packed: dict[str, bool] = field(default_factory=dict)
    batch_seed: int | None = None
    label: str = ""
    models: dict[str, Problem] = field(default_factory=dict)
    parts: dict[str, Problem] = field(default_factory=dict)
    rung_rows: int | None = None
    planned: bool = False

    @property
    def workers(self) -> int:
        """How many trials run side by side."""
        return max(1, len(self.shares))

    @property
    def each(self) -> list[Problem]:
        """The problem of every base model; this one if there is only one model."""
        return [*self.models.values()] or [self]

    def of(self, candidate: Candidate) -> Problem:
        """The problem of the candidate's base model."""
        return self.models[candidate.model] if self.models else self

    def at_hand(self, candidate: Candidate) -> Problem:
        """The problem of the candidate's base model, with only that model on the GPU."""
        return self._on_card(self.of(candidate))

    def in_turn(self) -> Iterator[Problem]:
        """`each`, with only its model on the GPU while it is in use."""
        yield from map(self._on_card, self.each)

    def _on_card(self, found: Problem) -> Problem:
        if self.models and self.device.type == "cuda" and not self.planned:
            for other in self.models.values():
                if other is not found:
                    other.base.module.to("cpu")
            release_memory()
            found.base.module.to("cuda")
        return found

    def own(self, known: Mapping[str, Known]) -> dict[str, Known]:
        """The part of `known` about methods on this model, by method name; `known` is by the names of the space."""
        parts = {part.name: part.method.name for part in self.space.values() if part.model == self.label}
        return {parts[name]: found for name, found in known.items() if name in parts}

    @functools.cached_property
    def cost_estimator(self) -> CostEstimator:
        """Estimates what a candidate would need, at the longest batch of the rows."""
        assert not self.models, "a candidate's own problem tells what it needs"
        return CostEstimator(
            self.base,
            self.task,
            self.device,
            self.train,
            self.budget.max_gpu_memory,
            self.spec.model.quantization,
            self.packed,
            len(self.folds),
            self.trunk,
        )

    @functools.cached_property
    def trunk(self) -> Trunk:
        """The output of the layers below an add-on for the training rows."""
        assert not self.models, "each base model has its own"
        folder = self.spec.output / STATES
        enabled = self.spec.model.trunk_cache and not self.parts  # add-ons may begin at other layers for each task
        return Trunk(self.base, self.task, self.train, self.device, folder, enabled=enabled, sharers=self.workers)

    @property
    def metric(self) -> str:
        """The metric that is maximised."""
        return self.task.metric(self.spec.validation.metric)

    def setup(self, candidate: Candidate) -> Setup:
        """What a trial gets; all trials share it, except for settings of the task that are searched."""
        task = self.task.trying(candidate.task)
        seed = self.spec.seed if self.batch_seed is None else self.batch_seed
        longest = self.space.max_epochs
        return Setup(task, self.train, self.folds, self.device, self.metric, seed, longest)

    def on(self, fold: Fold, batch_seed: int) -> Problem:
        """The same problem for one fold of another split; it shares the cost estimator and the trunk."""
        found = replace(self, folds=(fold,), batch_seed=batch_seed)
        vars(found).update(cost_estimator=self.cost_estimator, trunk=self.trunk)
        return found

    def rung_ends(self, epochs: int) -> list[float]:
        """After how many epochs a trial of `epochs` is scored."""
        rows = self.rung_rows or min(len(fold.train) for fold in self.folds)
        return rung_ends(epochs, rows, self.space.max_epochs)

    @classmethod
    def from_spec(
        cls, spec: StudySpec, registry: Registry, card: int | None = None, read: Problem | StudyData | None = None
    ) -> Problem:
        """Read the data, load the model, and decide which methods are searched.

        Args:
            spec: the study file.
            registry: the methods found.
            card: bytes of a GPU to plan for, which need not be here: they replace `max_gpu_memory`, and memory is
                predicted for that GPU. Such a problem is not for training.
            read: what was read before: the rows, for another base model; or the same study in a lower precision, with
                "auto" in its file. Its model is not read again either, and it must not be used afterwards.

        Raises:
            UserInputError: what the study file, the data or the model lack, in one sentence.
        """
        if card is None:
            blockwise_adamw.require(spec.model.optimizer)
        task, metric_digest = _measured(spec, find_task(spec.task.kind, registry.blocked).configured(spec.task.options))
        spec = spec.with_metric(task.metric(spec.validation.metric))
        registry = with_settings(registry, spec)
        wanted = {name: registry[name] for name in registry.chosen(spec.search.methods, spec.search.exclude)}
        origins = {name: registry.origins[name] for name in wanted}
        device = study_device(spec) if card is None else described_card(spec)
        spec, task, told = recognised(spec, task)
        task = task.maximising(spec.validation.metric or "").searching(spec.search.overrides)
        rows = read.rows if isinstance(read, Problem) else read or read_rows(spec, task, told)
        task = task.knowing({**rows.facts, **_facts_of_config(spec, task)}, rows.labels)
        there = isinstance(rows, SentRows)  # on another machine, where the study's own files are not
        load, base_digest = base_loader(spec, rows.labels, device, quantized=card is None)
        base = _raised(read, task) if isinstance(read, Problem) else load(task)
        reader = STUDY_READERS[task.processor].of_study(base.processor, base.module, spec.model, task.texts)
        task = task if there else _knowing_model(task, base, rows, reader, device)
        space, refused = _space(spec, task, base, wanted, origins, len(rows.train))
        train, test, folds = rows.prepared if isinstance(rows, SentRows) else _encoded(spec, task, rows, reader)
        if card is None:
            base.module.to(device.type)
        shares = shares_of(spec, base, device, card)
        return cls(
            spec=spec,
            task=task,
            rows=rows,
            base=base,
            train=train,
            test=test,
            folds=folds,
            device=device,
            space=space,
            budget=max(shares, key=lambda share: share.memory).budget,
            refused=refused,
            reader=reader,
            shares=shares,
            blocked=registry.blocked,
            origins=origins,
            weight_check=WeightCheck(base, functools.partial(load, task)),
            base_model=portable(spec.model.name_or_path, spec.folder),
            base_digest=base_digest,
            kinds={} if there else kinds_of(spec),
            metric_digest=metric_digest,
        )

    @contextmanager
    def off_the_card(self) -> Iterator[None]:
        """Keep the base model off the GPU while others need the room; a quantized one cannot move."""
        moves = self.device.type == "cuda" and self.spec.model.quantization == NONE
        if moves:
            self.base.module.to("cpu")
            release_memory()
        try:
            yield
        finally:
            if moves:
                self.base.module.to(self.device.type)

    @property
    def truncated(self) -> Truncation:
        """What rows that are too long lost, in training and held-out rows together."""
        return self.train.truncated + self.test.truncated

    @property
    def all_rows(self) -> np.ndarray:
        """Positions of every training sample."""
        return self.train.everything


def _measured(spec: StudySpec, task: Task) -> tuple[Task, str]:
    """The task with the user's own scores and metric, if named, and the SHA-256 of the metric's file."""
    if isinstance(task, Writing):
        named = {name: setting for name, setting in task.named_scores.items() if own_score.is_own(name)}
        task = task.scoring({name: own_score.load(name, spec.folder, setting) for name, setting in named.items()})
    name = spec.validation.metric
    if name is None or not user_metric.is_own(name):
        return task, ""
    function, digest_of_file = user_metric.load(name, spec.folder)
    return task.measuring(name, user_metric.metric(name, function, task)), digest_of_file


def references(spec: StudySpec) -> dict[str, str]:
    """What the study file refers to, by the name of the setting; for a list, with the position."""
    several = {f"model.candidates.{place}": one for place, one in enumerate(spec.model.candidates or ())}
    models = several or {"model.name_or_path": spec.model.name_or_path}
    given = {**models, "data.train": spec.data.train, "data.test": spec.data.test}
    if spec.tasks:
        parts = {f"tasks.{place}.data": task.data for place, task in enumerate(spec.tasks)}
        of_tasks = {f"{name}.{key}": getattr(data, key) for name, data in parts.items() for key in ("train", "test")}
        given = {**models, **of_tasks}
    return {name: reference for name, reference in given.items() if reference is not None}


def kinds_of(spec: StudySpec) -> dict[str, str]:
    """The kind of each reference, such as a path, as it is read now."""
    return {name: kind_of(reference, spec.folder) for name, reference in references(spec).items()}


def _raised(read: Problem, task: Task) -> BaseModel:
    """The base model of a problem in float32, adapted to `task`."""
    base = read.base.raised()
    read.task.restore(base.module)
    task.adapt(base.module)
    return base


def _facts_of_config(spec: StudySpec, task: Task) -> dict[str, ParamValue]:
    """Facts from the base model's configuration, for a task that asks for them."""
    if type(task).facts_of_config is BaseModelPart.facts_of_config:
        return {}
    location = locate(spec.model.name_or_path, spec.folder)
    trusted, revision = spec.model.trust_remote_code, commit_of(spec, location) or spec.model.revision
    return task.facts_of_config(read_config(location, trust_remote_code=trusted, revision=revision))


def _knowing_model(task: Task, base: BaseModel, rows: StudyData, reader: Reader, device: Device) -> Task:
    """The task with facts from the base model; that model is adapted to the task again if there are any."""
    with torch.autocast(
        next(base.module.parameters()).device.type, device.autocast, enabled=device.autocast is not None
    ):
        told = task.facts_of_model(base.module, rows.train, reader)
    if not told:
        return task
    task = task.knowing({**task.facts, **told}, rows.labels)
    for module in filter(None, (base.module, base.dense)):
        task.adapt(module)
    return task


def _encoded(spec: StudySpec, task: Task, rows: StudyData, reader: Reader) -> tuple[Encoded, Encoded, tuple[Fold, ...]]:
    """The rows to train on and those held out, as arrays, and the folds."""
    train, test = (task.encode(part, reader, rows.labels) for part in (rows.train, rows.test))
    return train, test, tuple(folds_of(task, rows, train, spec.validation.folds, spec.seed))


def _space(
    spec: StudySpec,
    task: Task,
    base: BaseModel,
    wanted: dict[str, PeftMethod],
    origins: dict[str, Origin],
    rows: int,
) -> tuple[CandidateSpace, dict[str, str]]:
    """The search space for this many training rows, and the methods left out with reasons."""
    patience = spec.search.hang_timeout
    answers = {name: refusal(method, origins[name], base, task.kind, patience) for name, method in wanted.items()}
    refused = {name: reason for name, reason in answers.items() if reason}
    methods = [method for name, method in wanted.items() if name not in refused]
    if not methods or (spec.search.methods and refused and not spec.model.candidates):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in refused.items()) or "none was found"
        raise MethodError(f"[search] methods must support the model {base.spec.architecture}, but {reasons}")
    overrides, own = spec.search.overrides, task.search_space()
    counted = rows_that_count(spec, task, rows)
    space = CandidateSpace.build(methods, base.spec, overrides, FIXED_SEARCH_KEYS, own, counted)
    if task.contrasts:
        smallest = min(int(min(part.training["batch_size"].extremes())) for part in space.values())
        if smallest < FEWEST_COMPARED:
            raise SpecError(
                f"`batch_size` in [search] must be at least {FEWEST_COMPARED}, since {task.kind} compares the rows of "
                f"a batch, but may be {smallest}; raise it."
            )
    return space, refused
