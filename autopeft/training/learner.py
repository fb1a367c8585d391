"""Train one epoch, and evaluate: the two loops everything else is built around."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from autopeft.common.containment import heartbeat
from autopeft.common.exceptions import AutopeftError
from autopeft.data.rows_of_tasks import RowsOfTasks
from autopeft.methods.callback import TrainingCallback
from autopeft.methods.parameter_groups import ParameterGroup
from autopeft.models.attach import trainable
from autopeft.models.device import ADAMW, PAGED, Device
from autopeft.models.marks import GROUPS
from autopeft.models.modes import train_mode
from autopeft.tasks.several import as_objects
from autopeft.training.average import Average
from autopeft.training.batch import Batch
from autopeft.training.batch_plan import Execution
from autopeft.training.blockwise_adamw import BlockwiseAdamW
from autopeft.training.loss_scale import LossScale
from autopeft.training.mixture import scheduled
from autopeft.training.pages import is_paged
from autopeft.training.schedule import Schedule
from autopeft.training.stacked_adamw import StackedAdamW
from autopeft.training.step import training_step

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import nn

    from autopeft.data.encoded import Encoded
    from autopeft.methods.training_space import Hyperparameters
    from autopeft.tasks.contract import Task


PLAIN = Device("cpu", None)
"""Keeps everything in float32."""

EVALUATION_BATCH_SIZE = 32
"""On a CPU the fastest of 8 to 128 for sentences: activations of more rows do not fit its caches."""


DIVERGED = "the training loss is no longer a finite number; a lower learning rate may help."


class DivergedError(AutopeftError):
    """The loss became NaN or infinite."""


class Watch(Protocol):
    """Entered around every training step."""

    def __call__(self, learner: Learner, places: int, /) -> AbstractContextManager[None]:
        """The context of a step of `learner` whose largest pass has this many `places`."""


class Learner:
    """The part of a shared model that one fold, or a pack of all folds, owns: trained tensors and the optimiser.

    Folds that are not packed take turns on one model. `take_turn` points its trainable parameters at this fold's
    tensors; `end_turn` moves them and the optimiser's state off a GPU, so that many folds take no more of it than one.

    Args:
        model: with the add-on on; packed if there are several folds.
        hyper: how to train it.
        rows: of an epoch of the largest fold; they set the length of the schedule, which all folds share.
        execution: how a batch is run; default: whole, one fold alone.
        watch: entered around every step with this learner and the places of its largest pass; may raise.
        callback: the method's own part in training; only with one fold.
        device: says whether each fold's loss is scaled, and how the optimiser keeps its moments.
    """

    def __init__(
        self,
        model: nn.Module,
        hyper: Hyperparameters,
        rows: int,
        execution: Execution | None = None,
        watch: Watch | None = None,
        callback: TrainingCallback | None = None,
        *,
        device: Device = PLAIN,
    ) -> None:
        self.model, self.hyper = model, hyper
        self.execution, self.watch = execution or Execution(hyper.batch_size), watch
        self.folds = self.execution.folds
        self.parameters = list(trainable(model).values())
        self.tensors = [parameter.detach().to("cpu", copy=True) for parameter in self.parameters]
        self.optimizer = make_optimizer(model, hyper, self.folds, device)
        self.scale = LossScale(self.folds, self.parameters[0].device) if device.scaled else None
        self.average = Average(self.tensors) if hyper.averaged else None
        self.batches = -(-rows // hyper.batch_size)
        self.schedule = self.planned = Schedule.of(hyper, hyper.epochs * self.batches)
        self.done = 0
        self.callback = callback or TrainingCallback()
        self.callback.start(self.steps)

    def start_from(self, values: Sequence[Mapping[str, torch.Tensor]]) -> None:
        """Copy each fold's own initial values, by parameter name, if it has any. Call it before the first turn."""
        for index, name in enumerate(trainable(self.model)):
            stack = self.tensors[index] if self.folds > 1 else self.tensors[index][None]
            for place, own in zip(stack, values, strict=bool(values)):
                if name in own:
                    place.copy_(own[name])

    @property
    def steps(self) -> int:
        """Number of steps of the whole training."""
        return self.schedule.steps

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return self.hyper.learning_rate * self.schedule.factor(self.done)

    def cool_down(self, steps: int) -> None:
        """Lower the rate over the next `steps`, and end the training with them; `restore` undoes this.

        The callback still assumes the planned number of steps.

        Raises:
            ValueError: the rate is falling already.
        """
        self.schedule = self.schedule.cooled(self.done, steps)

    def load(self, data: Encoded, rows: Sequence[np.ndarray], device: str) -> list[Batch]:
        """A batch of each fold's `rows`, sorted by length; the longest micro-batch, where memory peaks, comes first."""
        size = self.execution.micro_batch
        if self.folds > 1 or len(rows[0]) <= size:
            return [Batch.of(data, rows, device)]
        longest_first = rows[0][::-1]
        parts = [longest_first[start : start + size] for start in range(0, len(longest_first), size)]
        return [Batch.of(data, [part], device) for part in parts]

    def step(self, micro_batches: Sequence[Batch], task: Task, device: Device) -> torch.Tensor:
        """Train on a batch at the schedule's rate; returns its mean loss, `[folds]`."""
        heartbeat()
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * group["rate"]
        self.done += 1
        places = max(batch.places for batch in micro_batches)
        with self.watch(self, places) if self.watch else nullcontext():
            loss = training_step(
                self.model, self.optimizer, micro_batches, task, device, self.callback, self.done, self.scale
            )
            if self.average:
                self.average.update(self.parameters, self.done)
            return loss

    def take_turn(self) -> None:
        """Make the shared model this fold's."""
        for index, parameter in enumerate(self.parameters):
            self._move(index, parameter.device)
            parameter.data = self.tensors[index]
            parameter.grad = None
        with torch.no_grad():
            self.callback.take_turn()

    def end_turn(self) -> None:
        """Leave the device to the next fold; on a CPU there is nothing to do."""
        for index in range(len(self.parameters)):
            self._move(index, torch.device("cpu"))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Give the model its averaged values, or its own if no average is kept; for use in this learner's turn."""
        own = [parameter.data for parameter in self.parameters]
        for parameter, tensor in zip(self.parameters, self._averages or own, strict=True):
            parameter.data = tensor
        try:
            yield
        finally:
            for parameter, tensor in zip(self.parameters, own, strict=True):
                parameter.data = tensor

    def kept_tensors(self) -> list[torch.Tensor]:
        """Tensors kept between steps besides the model's: the optimiser's, callback's, loss scale's and average's."""
        moments = [value for state in self.optimizer.state.values() for value in state.values()]
        scales = self.scale.state().values() if self.scale else ()
        return [*moments, *self.callback.state().values(), *scales, *self._averages]

    @property
    def _averages(self) -> list[torch.Tensor]:
        return self.average.tensors if self.average else []

    def _move(self, index: int, device: torch.device) -> None:
        state = self.optimizer.state.get(self.parameters[index], {})
        for name, value in state.items():
            state[name] = value if is_paged(value) else value.to(device)
        for tensors in filter(None, (self.tensors, self._averages)):
            tensors[index] = tensors[index].to(device)

    def states(self) -> list[dict[str, torch.Tensor]]:
        """Everything that training has changed so far, per fold, as CPU tensors; call it in this learner's turn."""
        found = {f"tensors.{index}": tensor for index, tensor in enumerate(self.tensors)}
        for index, parameter in enumerate(self.parameters):
            values = self.optimizer.state.get(parameter, {})
            found |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
        found |= {f"callback.{name}": value for name, value in self.callback.state().items()}
        found |= {f"scale.{name}": value for name, value in self.scale.state().items()} if self.scale else {}
        found |= {f"average.{index}": value for index, value in enumerate(self._averages)}
        if self.schedule != self.planned:
            start = self.steps - self.schedule.cooldown
            found |= {"cooldown.start": torch.tensor(start), "cooldown.steps": torch.tensor(self.schedule.cooldown)}
        found["done"] = torch.tensor(self.done)
        found = {name: tensor.detach().cpu() for name, tensor in found.items()}
        return [
            {name: (tensor[fold] if self.folds > 1 and tensor.ndim else tensor).contiguous().clone()
             for name, tensor in found.items()}
            for fold in range(self.folds)
        ]  # fmt: skip

    def restore(self, states: Sequence[Mapping[str, torch.Tensor]]) -> None:
        """Go on from what `states()` returned for as many folds; the same states may be restored several times."""
        of_callback, cooldown = {}, {}
        self.optimizer.state.clear()
        for name, first in states[0].items():
            kind, *place = name.split(".")
            counted = place[-1:] == ["step"] and isinstance(self.optimizer, torch.optim.AdamW)
            shared = self.folds == 1 or kind in ("done", "cooldown") or counted
            value = first.clone() if shared else torch.stack([state[name] for state in states])
            if kind == "tensors":
                self.tensors[int(place[0])].copy_(value)
            elif kind == "average" and self.average:
                self.average.tensors[int(place[0])].copy_(value)
            elif kind == "optimizer":
                parameter = self.parameters[int(place[0])]
                self.optimizer.state[parameter][place[1]] = value.to(parameter.device)
            elif kind == "scale" and self.scale:
                self.scale.load_state(place[0], value)
            elif kind == "callback":
                of_callback[".".join(place)] = value
            elif kind == "cooldown":
                cooldown[place[0]] = int(value)
        self.callback.load_state(of_callback)
        self.done = int(states[0]["done"])
        self.schedule = self.planned.cooled(cooldown["start"], cooldown["steps"]) if cooldown else self.planned


def make_optimizer(
    model: nn.Module, hyper: Hyperparameters, folds: int = 1, device: Device = PLAIN
) -> torch.optim.Optimizer:
    """AdamW over the trainable parameters; vectors (biases, norms) are not decayed unless their group says so.

    It works element by element, or in 8 bits slice by slice, so each slice of a stack of `folds` is trained as if
    alone. The `device` says how moments are kept; if it scales the loss, each slice may skip a step. A group's learning
    rate is the training's times the group's `rate`.
    """
    own = {name: group for group in getattr(model, GROUPS, ()) for name in group.names}
    usual, vector = ParameterGroup(()), 1 if folds == 1 else 2
    alike: dict[tuple[float, float, bool], list[torch.Tensor]] = {
        (1.0, hyper.weight_decay, False): [],
        (1.0, 0.0, True): [],
    }  # first, so that gradient norms are added in the same order with and without groups
    for name, parameter in trainable(model).items():
        group, flat = own.get(name, usual), parameter.ndim <= vector
        decay = (0.0 if flat else hyper.weight_decay) if group.weight_decay is None else group.weight_decay
        alike.setdefault((group.rate, decay, flat), []).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": parameters, "weight_decay": decay, "rate": rate, "lr": hyper.learning_rate * rate}
        for (rate, decay, _), parameters in alike.items()
        if parameters
    ]
    if device.optimizer != ADAMW:
        return BlockwiseAdamW(groups, hyper.learning_rate, folds, paged=device.optimizer == PAGED)
    if device.scaled and folds > 1:
        return StackedAdamW(groups, lr=hyper.learning_rate)
    return torch.optim.AdamW(groups, lr=hyper.learning_rate, fused=True)


def train_epoch(
    learner: Learner,
    data: Encoded,
    rows: Sequence[np.ndarray],
    task: Task,
    device: Device,
    seeds: Sequence[int],
    order: int,
    part: tuple[float, float] = (0.0, 1.0),
) -> np.ndarray:
    """One pass over each fold's `rows` in bucketed batches, or a part of it.

    Args:
        learner: with as many folds as there are `rows` and `seeds`.
        data: the rows' tokens.
        rows: positions of each fold's rows.
        task: gives the loss.
        device: where, and in what precision.
        seeds: one per fold, for the rows of its batches and for its dropout.
        order: seed of the order of short and long batches, the same for all folds of an epoch.
        part: from which share of the epoch to which.

    Returns:
        Mean loss of a batch, `[folds]`.

    Raises:
        DivergedError: a loss is no longer finite.
    """
    learner.take_turn()
    train_mode(learner.model)
    schedules = [
        scheduled(task, data, few, learner.batches, seed, order) for few, seed in zip(rows, seeds, strict=True)
    ]
    first, last = (round(share * learner.batches) for share in part)
    torch.manual_seed(seeds[0] + first)  # dropout; each fold, epoch and part draws its own
    total = torch.zeros(len(rows), device=device.type)
    for chosen in list(zip(*schedules, strict=True))[first:last]:
        batch = [few[places] for few, places in zip(rows, chosen, strict=True)]
        total += learner.step(learner.load(data, batch, device.type), task, device)
    means = total.cpu().numpy() / max(1, last - first)  # the only wait for the device
    if not np.isfinite(means).all():
        raise DivergedError(DIVERGED)
    if learner.scale and learner.scale.exhausted:
        raise DivergedError(
            "the gradients overflow float16 in every step; a lower learning rate may help, or another `dtype` in "
            "[model]."
        )
    return means


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    data: Encoded,
    rows: Sequence[np.ndarray],
    task: Task,
    device: Device,
    most: int = EVALUATION_BATCH_SIZE,
) -> list[np.ndarray]:
    """The task's answers to each fold's `rows`, in their order: float32 `[rows, …]` a fold.

    Several folds need a packed model. At most `most` sequences of a fold, or those of one sample, go through it at a
    time. Where a row has several samples, `rows` are samples, and the answers are those of their rows
    (`Encoded.rows_of`).
    """
    if isinstance(data, RowsOfTasks):
        return [_evaluate_each(model, data, few, task, device, most) for few in rows]
    model.eval()
    orders = [np.argsort(data.extents[few], kind="stable") for few in rows]
    most = max(1, most // data.sequences)
    size = max(1, most // len(rows)) if device.type == "cpu" else most
    passes = -(-max(map(len, rows)) // size)
    parts: list[list[torch.Tensor]] = [[] for _ in rows]
    for places in zip(*(np.array_split(order, passes) for order in orders), strict=True):
        heartbeat()
        batch = Batch.of(data, [few[some] for few, some in zip(rows, places, strict=True)], device.type)
        with device.kernels(), device.precision():
            outputs = task.run(model, batch.tensors)
        for found, (of_fold, own) in zip(parts, batch.per_fold(outputs), strict=True):
            found.append(task.answer(of_fold, own))
    predictions = [joined(found).cpu().numpy() for found in parts]
    answers = [found[np.argsort(order, kind="stable")] for found, order in zip(predictions, orders, strict=True)]
    if data.row_of is None:
        return answers
    return [task.combine(found, data.row_of[few]) for found, few in zip(answers, rows, strict=True)]


def _evaluate_each(
    model: Any, data: RowsOfTasks, samples: np.ndarray, task: Any, device: Device, most: int
) -> np.ndarray:
    """The answers of each task to its own rows, in the order of `RowsOfTasks.rows_of`: an object for each row."""
    found = []
    for name, _, own in data.split(samples):
        (answers,) = evaluate(model.of(name), data.parts[name], [own], task.tasks[name], device, most)
        found.append(as_objects(answers))
    return np.concatenate(found)


NO_ANSWER = -1.0
"""Pads the answers to rows with fewer places than the longest."""


def joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Answers to several batches as one tensor; their second dimension may differ, as the number of words does."""
    widest = max(part.shape[1] for part in parts) if parts[0].ndim > 1 else 0
    if any(part.ndim > 1 and part.shape[1] < widest for part in parts):
        missing = [(0, 0) * (part.ndim - 2) + (0, widest - part.shape[1]) for part in parts]
        parts = [torch.nn.functional.pad(part, pad, value=NO_ANSWER) for part, pad in zip(parts, missing, strict=True)]
    return torch.cat(list(parts))
