"""Estimate a candidate before it trains: count parameters on the meta device, predict memory on fake tensors."""

from __future__ import annotations

import functools
import logging
import math
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from autopeft.budget.memory import gpu, peak
from autopeft.budget.usage import Usage, Weights
from autopeft.common import machine
from autopeft.common.containment import heartbeat
from autopeft.data.rows_of_tasks import task_of
from autopeft.methods.callback import TrainingCallback
from autopeft.methods.contract import declared_params
from autopeft.models import quantization
from autopeft.models.architecture import linear_shape
from autopeft.models.attach import attach, trainable, trained_params
from autopeft.models.marks import LINEAR
from autopeft.models.model_of_tasks import ModelOfTasks
from autopeft.models.modes import checkpoint_layers, train_mode
from autopeft.models.weights_file import file_size, saved_tensors
from autopeft.training.batch import Batch
from autopeft.training.batch_plan import Execution, guess, ways
from autopeft.training.blockwise_adamw import moment_bytes
from autopeft.training.learner import make_optimizer
from autopeft.training.loss_scale import LossScale
from autopeft.training.packing import pack
from autopeft.training.step import training_step
from autopeft.training.trunk_cache import cut

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from autopeft.data.encoded import Encoded
    from autopeft.methods.candidate import Candidate
    from autopeft.models.base import BaseModel
    from autopeft.models.device import Device
    from autopeft.tasks.contract import Task
    from autopeft.training.trunk_cache import Trunk


GUESS_MARGIN = 1.02
"""A prediction is made only if the guessed peak is at most this factor of the limit."""


CHECKPOINT_MARGIN = 1.02
"""If a step with checkpointed layers needs more than this factor of the limit, one without is not tried."""


NEAR_LIMIT_SHARE = 0.9
"""If weights, gradients and optimiser state take more than this share of the limit, a refusal is expected."""


class CostEstimator:
    """Estimates what a candidate needs; remembers its results.

    Args:
        base: the model.
        task: gives the loss.
        device: the device and precision training would use.
        data: the training rows; the longest make the batch that decides.
        limit: most bytes of a step; the fastest way to run a batch within it is chosen.
        quantized: "8bit" or "4bit" if the base model's linear maps are quantized.
        packed: methods whose folds are packed, and whether by place; others may be added later (then `forget` them).
        folds: how many are packed.
        trunk: says at which layer training of a candidate starts; default: at the bottom.
    """

    def __init__(
        self,
        base: BaseModel,
        task: Task,
        device: Device,
        data: Encoded,
        limit: int | None = None,
        quantized: str = quantization.NONE,
        packed: Mapping[str, bool] | None = None,
        folds: int = 1,
        trunk: Trunk | None = None,
    ) -> None:
        self._base, self._task, self._device, self._data = base, task, device, data
        self._rows, self._longest, self._limit = len(data), data.places_of(data.everything) // len(data), limit
        self._quantized = quantized
        self._trunk = trunk
        self._packed_methods, self._folds = {} if packed is None else packed, folds
        self._known: dict[tuple[object, ...], Usage] = {}
        self._excess: dict[str, int] = {}
        self._scarce: set[str] = set()  # methods whose latest candidate was refused
        self._latest: tuple[tuple[object, ...], nn.Module] | None = None

    def __call__(self, candidate: Candidate) -> Usage:
        """The candidate's usage: an exact count of parameters; the rest is computed when it is asked for.

        Memory is predicted for one step at the longest batch.
        """
        heartbeat()
        key = _key(candidate)
        if key not in self._known:
            told = declared_params(candidate.method, candidate.params, self._base.spec)
            self._known[key] = Usage(
                trainable_params=self._count(candidate) if told is None else told + self._base.head_params,
                measure_saved=functools.partial(self._weigh, candidate),
                fit_memory=functools.partial(self._fit, candidate),
            )
        return self._known[key]

    def _count(self, candidate: Candidate) -> int:
        """The exact count, from the model; see `attach.trained_params` for what it raises."""
        return trained_params(self._base, candidate.method, candidate.params, self._model(candidate))

    def _weigh(self, candidate: Candidate) -> Weights:
        self._count(candidate)  # if a method gave a number, it is checked before anything trains
        model = self._model(candidate)
        kept = saved_tensors(model, candidate.method)
        return Weights(
            saved_params=sum(tensor.numel() for tensor in kept.values()),
            saved_bytes=file_size(kept),
            least_memory=self._least(model),
        )

    def _model(self, candidate: Candidate, *, take: bool = False) -> nn.Module:
        """The candidate's model on the meta device; set `take` to change it.

        Attaching an add-on is most of the cost of an estimate, so the latest model is kept, and no other.
        """
        key = _key(candidate)
        if self._latest is None or self._latest[0] != key:
            self._latest = key, attach(self._base, candidate.method, candidate.params, meta=True)
        model = self._latest[1]
        if take:
            self._latest = None
        return model

    def batch_shapes(self, batch_size: int, folds: int = 1) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Shape and type of the tensors of the largest batch of this size, or of `folds` of them side by side."""
        return self._data.largest(min(batch_size, self._rows) * folds)

    @functools.cached_property
    def _saved_by_quantization(self) -> int:
        """Bytes of weights that quantization saves; 0 if there is none."""
        if self._quantized == quantization.NONE:
            return 0
        maps = (self._base.skeleton.get_submodule(linear.name) for linear in self._base.spec.linears)
        dense = sum(module.get_parameter("weight").nbytes for module in maps)
        return dense - quantization.model_bytes(self._quantized, self._base.spec)

    def excess(self, name: str) -> int:
        """Bytes that are added to every prediction for a method."""
        return self._excess.get(name, 0)

    def learn(self, name: str, excess: int) -> None:
        """Add `excess` bytes to every prediction for a method, unless as many are added already.

        A method's kernels may take memory that fake tensors do not show. What a prediction lacked is added to all later
        ones for this method only.
        """
        if excess > self.excess(name):
            self._excess[name] = excess
            self.forget(name)

    def forget(self, name: str) -> None:
        """Estimate a method's candidates again when they are next asked for."""
        self._known = {key: usage for key, usage in self._known.items() if key[0] != name}

    def _least(self, model: nn.Module) -> int:
        """Bytes that every way to run a batch needs: at the update AdamW has weights, gradients and two moments."""
        trained = [*trainable(model).values()]
        moments = moment_bytes(self._device.optimizer, [parameter.numel() for parameter in trained])
        # One walk for every estimate, not one each for `parameters` and `buffers`; `tensor_bytes` counts each once.
        held = (t for m in model.modules() for t in (*m._parameters.values(), *m._buffers.values()) if t is not None)
        constant = gpu.workspace() + gpu.context() if self._device.type == "cuda" else 0
        weights = peak.tensor_bytes(held) - self._saved_by_quantization
        return constant + weights + peak.tensor_bytes(trained) + moments

    def _fit(self, candidate: Candidate) -> tuple[Execution, peak.MemoryEstimate]:
        """The fastest way to run a batch that fits the limit, with its memory; the smallest if none fits."""
        if self._task.contrasts:
            return self._fit_whole(candidate)
        name, size = candidate.method.name, min(candidate.hyper.batch_size, self._rows)
        least = self._least(self._model(candidate))
        found: dict[Execution, peak.MemoryEstimate] = {}
        limit = math.inf if self._limit is None else self._limit

        def fits(way: Execution) -> bool:
            if way not in found:
                found[way] = self.predict(candidate, way)
            return found[way].peak <= limit

        # If the last candidate was refused, or little is left, this one may be refused too. One row at a time can
        # settle that alone: a whole batch saves at most the gradients of the first pass, which the second one adds to.
        by_row = _one_row(fits, found, limit) if name in self._scarce or least > NEAR_LIMIT_SHARE * limit else None
        if by_row is not False or min(e.peak - e.gradients for e in found.values()) <= limit:
            side_by_side = [Execution(size, folds=self._folds)] * (name in self._packed_methods)
            for way in (*side_by_side, Execution(size)):
                # What was settled for the method need not hold for every candidate: this one may not be packed at all.
                with suppress(Exception) if way.folds > 1 else nullcontext():
                    if fits(way):
                        return way, found[way]
        if by_row is None:
            by_row = _one_row(fits, found, limit)
        smallest = min((way for way in found if way.micro_batch == way.folds == 1), key=lambda way: found[way].peak)
        if not by_row:
            self._scarce.add(name)
            return smallest, found[smallest]
        self._scarce.discard(name)
        for way in ways(size, self._longest, self._device.type):
            known = {other: estimate.peak for other, estimate in found.items() if other.folds == 1}
            possible = smallest.checkpointing or not way.checkpointing
            if possible and guess(way, known) <= GUESS_MARGIN * limit and fits(way):
                return way, found[way]
        return smallest, found[smallest]

    def _fit_whole(self, candidate: Candidate) -> tuple[Execution, peak.MemoryEstimate]:
        """The same if a batch must not be cut: packed, alone, or with checkpointed layers."""
        name, size = candidate.method.name, min(candidate.hyper.batch_size, self._rows)
        limit = math.inf if self._limit is None else self._limit
        plain = Execution(size, whole=True)
        if name in self._packed_methods:
            with suppress(Exception):  # this candidate may not be packed at all
                packed = replace(plain, folds=self._folds)
                if (found := self.predict(candidate, packed)).peak <= limit:
                    return packed, found
        alone = self.predict(candidate, plain)
        if alone.peak <= limit:
            return plain, alone
        checkpointed = replace(plain, checkpointing=True)
        try:
            least = self.predict(candidate, checkpointed)
        except Exception as error:  # the method's layers cannot run twice
            if machine.fault(error):
                raise
            return plain, alone
        return (checkpointed, least) if least.peak < alone.peak else (plain, alone)

    def _moments_elsewhere(self, model: nn.Module, shapes: Mapping[str, object]) -> int:
        """Bytes of the moments of parameters that a step on this batch does not reach, since other tasks train them."""
        if not isinstance(model, ModelOfTasks):
            return 0
        reached = {id(parameter) for parameter in trainable(model.of(task_of(shapes)[0])).values()}
        others = [p.numel() for p in trainable(model).values() if id(p) not in reached]
        return moment_bytes(self._device.optimizer, others)

    def predict(self, candidate: Candidate, execution: Execution) -> peak.MemoryEstimate:
        """Predicted peak of one step at the longest batch, run in this way."""
        heartbeat()
        passes = 2 if execution.micro_batch < min(candidate.hyper.batch_size, self._rows) else 1
        sizes = (min(execution.micro_batch, self._rows),) * execution.slices
        task = self._task.trying(candidate.task)

        def make_step(module: nn.Module) -> Callable[[Mapping[str, torch.Tensor]], object]:
            optimizer = make_optimizer(module, candidate.hyper, execution.slices, self._device)
            place = next(module.parameters()).device
            scale = LossScale(execution.slices, place) if self._device.scaled else None
            callback = _loss_alone(candidate.method.callback(module, candidate.params, self._base.spec))
            # The second pass finds the gradients of the first; a third would add nothing.
            return lambda tensors: training_step(
                module, optimizer, [Batch(tensors, sizes)] * passes, task, self._device, callback, scale=scale
            )

        model = self._model(candidate, take=True)
        shapes = self.batch_shapes(execution.micro_batch, execution.slices)
        level = self._trunk.level(candidate.method.name, model) if self._trunk else 0
        if self._trunk and level:
            cut(model, level, self._trunk.extras)
            rows = min(execution.micro_batch, self._rows) * execution.slices
            shapes["trunk_states"] = self._trunk.shape(rows), torch.float32
        if execution.checkpointing:
            checkpoint_layers(model)
        if execution.slices > 1:
            pack(model, execution.slices, sites=self._packed_methods[candidate.method.name])
        if self._quantized != quantization.NONE:
            compute = self._device.autocast or torch.float32
            for module in model.modules():
                # A module that a method or packing gave another forward pass keeps it.
                if hasattr(module, LINEAR) and "forward" not in vars(module) and (shape := linear_shape(module)):
                    quantization.stand_in(module, shape, self._quantized, compute)
        train_mode(model)
        own = 3 * peak.tensor_bytes(trainable(model).values()) if execution.candidates > 1 else 0
        estimate = peak.predict(model, make_step, shapes, self._device.type)
        return replace(
            estimate,
            # Each candidate of a cohort keeps its weights and moments besides.
            optimizer=estimate.optimizer + self._moments_elsewhere(model, shapes) + own,
            weights=estimate.weights - self._saved_by_quantization,
            workspace=estimate.workspace + self.excess(candidate.method.name),
        )


def _one_row(fits: Callable[[Execution], bool], found: Mapping[Execution, peak.MemoryEstimate], limit: float) -> bool:
    """Whether one row at a time `fits`, plain or, if the method allows it, with checkpointed layers.

    Without them a step takes more, or hardly less, so the plain way is not tried if checkpointing is far over the
    limit.
    """
    log = logging.getLogger("torch._subclasses.fake_tensor")  # would print a traceback for each refusal
    log.disabled = True
    checkpointed = Execution(1, checkpointing=True)
    try:
        fitting = fits(checkpointed)
    except Exception as error:  # the method's layers cannot run twice; PyTorch says so in many ways
        if machine.fault(error):  # and says nothing of the method
            raise
        fitting = False
    finally:
        log.disabled = False
    if checkpointed in found and found[checkpointed].peak > CHECKPOINT_MARGIN * limit:
        return False
    return fits(Execution(1)) or fitting


def _key(candidate: Candidate) -> tuple[object, ...]:
    chosen = (*candidate.params.items(), *candidate.task.items())
    return candidate.method.name, chosen, candidate.hyper.batch_size


def _loss_alone(callback: TrainingCallback | None) -> TrainingCallback:
    """A callback without its part around an update, which may look at values, and fake tensors have none.

    Around an update the activations are gone, so that part does not affect the peak; `start` makes what it keeps.
    """
    silent = TrainingCallback()
    if callback:
        callback.start(total_steps=1)
        silent.loss = callback.loss  # type: ignore[method-assign]  # bound to the callback, which therefore stays alive
    return silent
