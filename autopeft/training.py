"""Train one epoch, and evaluate: the two loops everything else is built around."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from autopeft.exceptions import AutopeftError
from autopeft.model import train_mode, trainable
from autopeft.search_space import Float, Integer, SearchSpace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import nn

    from autopeft.tasks import Encoded, TaskKind

TRAINING_SPACE = SearchSpace(
    {
        "learning_rate": Float(low=1e-4, high=1e-2, log=True, default=1e-3),
        "epochs": Integer(low=2, high=4, default=4),
        "batch_size": Integer(low=16, high=32, step=16, default=16),
        "warmup_ratio": Float(low=0.0, high=0.2, default=0.06),
        "weight_decay": Float(low=0.0, high=0.1, default=0.01),
    }
)
"""The training dimensions every method is searched over; a method may override their ranges."""

MAX_GRADIENT_NORM = 1.0
EVALUATION_BATCH_SIZE = 32
"""On a CPU the fastest of 8 to 128 for sentences: activations of more rows fall out of its caches."""


class DivergedError(AutopeftError):
    """The loss became NaN or infinite."""


@dataclass(frozen=True)
class Device:
    """Where to train, and in what precision the matrix products run (`autocast`; None is float32 throughout)."""

    type: str
    autocast: torch.dtype | None

    def kernels(self) -> AbstractContextManager[None]:
        """The context forward and backward passes run in.

        On a CPU attention is computed from plain matrix products: for inputs of a sentence or two that takes a
        fraction of the time of PyTorch's fused kernel there (`benchmarks/cpu_step.py`).
        """
        return sdpa_kernel(SDPBackend.MATH) if self.type == "cpu" else nullcontext()

    def precision(self) -> AbstractContextManager[None]:
        """The context a forward pass alone runs in."""
        return torch.autocast(self.type, dtype=self.autocast, enabled=self.autocast is not None)


@dataclass(frozen=True)
class Hyperparameters:
    """One point of the training dimensions. Learning rate: peak of a linear warm-up and linear decay to zero."""

    learning_rate: float
    epochs: int
    batch_size: int
    warmup_ratio: float
    weight_decay: float


class Watch(Protocol):
    """Entered around every training step."""

    def __call__(self, learner: Learner, tokens: int, /) -> AbstractContextManager[None]:
        """The context of a step of `learner` whose largest pass has so many tokens."""


class Learner:
    """What one fold owns of a model that all folds share: its trained tensors and its optimiser.

    The folds of a trial take turns on one model. `take_turn` points the model's trainable parameters at this fold's
    tensors; `end_turn` moves them and the optimiser's state off a GPU, so that many folds take no more of it than one.

    Args:
        model: with the add-on on.
        hyper: how to train it.
        rows: of an epoch; they give the schedule its length.
        micro_batch: rows that go through the model at a time; default: the whole batch.
        watch: entered around every step with this learner and the tokens of its largest pass; may raise.
    """

    def __init__(
        self,
        model: nn.Module,
        hyper: Hyperparameters,
        rows: int,
        micro_batch: int | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.model, self.hyper = model, hyper
        self.micro_batch, self.watch = micro_batch or hyper.batch_size, watch
        self.parameters = list(trainable(model).values())
        self.tensors = [parameter.detach().to("cpu", copy=True) for parameter in self.parameters]
        self.optimizer = make_optimizer(model, hyper)
        self.steps = hyper.epochs * -(-rows // hyper.batch_size)
        self.warmup = round(hyper.warmup_ratio * self.steps)
        self.done = 0

    @property
    def learning_rate(self) -> float:
        """Of the next step: a linear rise over the warm-up, then a linear fall that ends just above zero."""
        rise = (self.done + 1) / (self.warmup + 1)
        fall = (self.steps - self.done) / max(1, self.steps - self.warmup)
        return self.hyper.learning_rate * min(rise, fall)

    def split(self, batch: np.ndarray) -> list[np.ndarray]:
        """A batch's rows, sorted by length, in micro-batches; the longest first, so that memory peaks at once."""
        if len(batch) <= self.micro_batch:
            return [batch]
        return [batch[::-1][start : start + self.micro_batch] for start in range(0, len(batch), self.micro_batch)]

    def step(self, micro_batches: Sequence[Mapping[str, torch.Tensor]], task: TaskKind, device: Device) -> torch.Tensor:
        """Train on a batch at the schedule's rate; returns its mean loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        self.done += 1
        tokens = max(batch["attention_mask"].numel() for batch in micro_batches)
        with self.watch(self, tokens) if self.watch else nullcontext():
            return training_step(self.model, self.optimizer, micro_batches, task, device)

    def take_turn(self) -> None:
        """Make the shared model this fold's."""
        for index, parameter in enumerate(self.parameters):
            self._move(index, parameter.device)
            parameter.data = self.tensors[index]
            parameter.grad = None

    def end_turn(self) -> None:
        """Leave the device to the next fold; on a CPU there is nothing to do."""
        for index in range(len(self.parameters)):
            self._move(index, torch.device("cpu"))

    def optimizer_tensors(self) -> list[torch.Tensor]:
        """The optimiser's state."""
        return [value for state in self.optimizer.state.values() for value in state.values()]

    def _move(self, index: int, device: torch.device) -> None:
        state = self.optimizer.state.get(self.parameters[index], {})
        for name, value in state.items():
            state[name] = value.to(device)
        self.tensors[index] = self.tensors[index].to(device)

    def state(self) -> dict[str, torch.Tensor]:
        """All that the steps so far have changed, as tensors on the CPU; call it in this learner's turn."""
        found = {f"tensors.{index}": tensor for index, tensor in enumerate(self.tensors)}
        for index, parameter in enumerate(self.parameters):
            values = self.optimizer.state.get(parameter, {})
            found |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
        found["done"] = torch.tensor(self.done)
        return {name: tensor.detach().cpu().contiguous() for name, tensor in found.items()}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on from what `state` gave."""
        for name, value in state.items():
            kind, *place = name.split(".")
            if kind == "tensors":
                self.tensors[int(place[0])].copy_(value)
            elif kind == "optimizer":
                parameter = self.parameters[int(place[0])]
                self.optimizer.state[parameter][place[1]] = value.to(parameter.device)
        self.done = int(state["done"])


def make_optimizer(model: nn.Module, hyper: Hyperparameters) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; vectors (biases, norms) are not decayed."""
    parameters = list(trainable(model).values())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": hyper.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=hyper.learning_rate, fused=True)


def training_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    micro_batches: Sequence[Mapping[str, torch.Tensor]],
    task: TaskKind,
    device: Device,
) -> torch.Tensor:
    """Forward, loss, backward; clip, update. Returns the batch's mean loss, detached, without waiting for it.

    A batch may come in several parts. Each part's loss counts by its share of the batch, so the gradients that add up
    are those of the whole.
    """
    total = torch.zeros((), device=device.type)
    weights = [task.weight(batch) for batch in micro_batches]
    for batch, weight in zip(micro_batches, weights, strict=True):
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        with device.kernels():
            with device.precision():
                outputs = model(**inputs)
            loss = task.loss(outputs, batch) * (weight / sum(weights))
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        total += loss.detach()
    torch.nn.utils.clip_grad_norm_((p for group in optimizer.param_groups for p in group["params"]), MAX_GRADIENT_NORM)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total


def train_epoch(
    learner: Learner,
    data: Encoded,
    rows: np.ndarray,
    task: TaskKind,
    device: Device,
    seed: int,
    part: tuple[float, float] = (0.0, 1.0),
) -> float:
    """One pass over `rows` in bucketed batches, or the part of it between two shares; returns the mean batch loss.

    Raises:
        DivergedError: the loss is no longer finite.
    """
    learner.take_turn()
    train_mode(learner.model)
    batches = list(bucketed(data.lengths[rows], learner.hyper.batch_size, seed))
    first, last = (round(share * len(batches)) for share in part)
    torch.manual_seed(seed + first)  # dropout; each fold, epoch and part draws its own
    total = torch.zeros((), device=device.type)
    for chosen in batches[first:last]:
        micro_batches = [data.batch(rows[few], device.type) for few in learner.split(chosen)]
        total += learner.step(micro_batches, task, device)
    mean = float(total) / max(1, last - first)  # the only wait for the device
    if not np.isfinite(mean):
        raise DivergedError("the training loss is no longer a finite number; a lower learning rate may help.")
    return mean


@torch.inference_mode()
def evaluate(model: nn.Module, data: Encoded, rows: np.ndarray, task: TaskKind, device: Device) -> np.ndarray:
    """The task's predictions for `rows`, in their order: float32 `[rows, …]`."""
    model.eval()
    order = np.argsort(data.lengths[rows], kind="stable")
    parts = []
    for start in range(0, len(order), EVALUATION_BATCH_SIZE):
        batch = data.batch(rows[order[start : start + EVALUATION_BATCH_SIZE]], device.type)
        batch.pop("labels")
        with device.kernels(), device.precision():
            outputs = model(**batch)
        parts.append(task.predict(outputs))
    predictions = torch.cat(parts).cpu().numpy()
    return predictions[np.argsort(order, kind="stable")]


def bucketed(lengths: np.ndarray, batch_size: int, seed: int, pool: int = 50) -> Iterator[np.ndarray]:
    """Batches of rows of similar length, in an order drawn from `seed`: less padding, and still a shuffle.

    Rows are shuffled, cut into pools of `pool` batches, sorted by length inside each, cut into batches, and the
    batches shuffled. Yields int64 `[≤ batch_size]` positions into `lengths`; each position comes once.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(lengths))
    span = batch_size * pool
    batches = []
    for start in range(0, len(order), span):
        members = order[start : start + span]
        members = members[np.argsort(lengths[members], kind="stable")]
        batches += [members[i : i + batch_size] for i in range(0, len(members), batch_size)]
    for position in generator.permutation(len(batches)):
        yield batches[position]
