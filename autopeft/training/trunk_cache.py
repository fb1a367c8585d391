"""The layers below everything that is trained give each row the same output in every epoch, fold and trial.

So it is computed once in a study and kept; training starts at the lowest layer it can change. Dropout is off in the
skipped layers. Whether a method's output stays the same is checked once for each method and level.
"""

from __future__ import annotations

import functools
import math
import os
import tempfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from autopeft.common.containment import heartbeat
from autopeft.data.encoded import Field
from autopeft.models.marks import FROZEN, LAYER
from autopeft.study.journal import writing
from autopeft.training.learner import EVALUATION_BATCH_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

    from autopeft.data.encoded import Encoded
    from autopeft.methods.contract import ModelSpec
    from autopeft.models.base import BaseModel
    from autopeft.models.device import Device
    from autopeft.tasks.contract import Task

MEMORY_SHARE = 0.1
"""Share of the machine's memory that kept outputs may take; beyond it they go to memory-mapped files."""

CHECKED_ROWS = 4
CLOSE = {None: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Largest difference of an output, as a share of the largest output, that other padding explains in this precision."""


def lowest_trained(model: nn.Module, spec: ModelSpec) -> int:
    """The lowest layer that an add-on touches; 0 where training cannot start above the bottom.

    It cannot in a model of several stacks, with a layer that runs many times, or where something besides the layers and
    the head is trained. If only the head is trained, it is the last layer.
    """
    one_stack = len({layer.rpartition(".")[0] for layer in spec.layers}) == 1
    if not one_stack or spec.num_hidden_layers != len(spec.layers):
        return 0
    layers = _layers(model)
    inside = {id(parameter) for layer in layers.values() for parameter in layer.parameters()}
    for name, parameter in model.named_parameters():
        of_head = any(f".{head}." in f".{name}." for head in spec.head)
        if parameter.requires_grad and id(parameter) not in inside and not of_head:
            return 0
    for index in sorted(layers):
        modules = list(layers[index].modules())
        placed = any(not hasattr(module, FROZEN) for module in modules)
        if placed or any(p.requires_grad for module in modules for p in module.parameters(recurse=False)):
            return index
    return len(layers) - 1


def cut(model: nn.Module, level: int, extras: int) -> Callable[[], None]:
    """Let layers below `level` pass their input on, and layer `level` start from `trunk_states`, an input of the model.

    Args:
        model: with an add-on on.
        level: the lowest layer that runs.
        extras: how many values a layer returns after the states; negative if it returns the states alone.

    Returns:
        A function that undoes it.
    """
    layers = _layers(model)
    given: list[torch.Tensor] = []
    whole = model.forward

    def forward(*args: Any, trunk_states: torch.Tensor, **kwargs: Any) -> Any:
        # Of samples of several sequences: [rows, length, sequences, width] → [rows · sequences, length, width].
        given[:] = [trunk_states.transpose(1, 2).flatten(0, 1) if trunk_states.ndim > 3 else trunk_states]
        try:
            return whole(*args, **kwargs)
        finally:
            given.clear()

    def start(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        states = given[0]
        return ((states, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": states})

    def passing(*args: Any, **kwargs: Any) -> Any:
        states = args[0] if args else kwargs["hidden_states"]
        return states if extras < 0 else (states, *[None] * extras)

    below = [layers[index] for index in range(level)]
    for layer in below:
        layer.forward = passing
    hook = layers[level].register_forward_pre_hook(start, with_kwargs=True)
    model.forward = forward

    def undo() -> None:
        hook.remove()
        del model.forward
        for layer in below:
            del layer.forward

    return undo


def _layers(model: nn.Module) -> dict[int, nn.Module]:
    """The transformer layers, by their index from the bottom."""
    return {getattr(module, LAYER): module for module in model.modules() if hasattr(module, LAYER)}


class Trunk:
    """The output of the base model's lower layers for the rows of a study.

    Args:
        base: the model.
        task: says which parts of a batch the model takes.
        data: the rows.
        device: where the rows are run.
        folder: for memory-mapped files; made when one is needed.
        enabled: if False, every model starts from the bottom.
        sharers: processes on this machine that each keep as much.
    """

    def __init__(
        self,
        base: BaseModel,
        task: Task,
        data: Encoded,
        device: Device,
        folder: Path,
        *,
        enabled: bool = True,
        sharers: int = 1,
    ) -> None:
        self._base, self._task, self._data, self._device, self._folder = base, task, data, device, folder
        self._enabled, self._sharers = enabled, sharers
        self._states: dict[int, np.ndarray] = {}
        self._exact: dict[tuple[str, int], bool] = {}

    def level(self, name: str, model: nn.Module) -> int:
        """The layer at which training of this method's model starts; 0 is the bottom, and no cut."""
        level = lowest_trained(model, self._base.spec) if self._enabled else 0
        return level if self._exact.get((name, level), True) else 0

    @property
    def whole(self) -> set[str]:
        """Methods with a model that was left whole, since a cut would change what it computes."""
        return {name for (name, _), exact in self._exact.items() if not exact}

    @functools.cached_property
    def _output(self) -> Any:
        """What the first layer returns for one row."""
        found: list[Any] = []
        model = self._base.copy().eval()
        hook = model.get_submodule(self._base.spec.layers[0]).register_forward_hook(
            lambda module, args, output: found.append(output)
        )
        self._run(model, np.arange(1))
        hook.remove()
        return found[0]

    @property
    def extras(self) -> int:
        """How many values a layer returns after the states; negative if it returns the states alone."""
        return len(self._output) - 1 if isinstance(self._output, tuple) else -1

    def shape(self, rows: int) -> tuple[int, ...]:
        """Shape of the states of the largest batch of `rows` rows."""
        if self._data.axis:
            return rows, int(self._data.lengths.max()), *self._of_place
        first: torch.Tensor = self._output[0] if isinstance(self._output, tuple) else self._output
        return rows, *first.shape[1:]

    def prepare(self, name: str, model: nn.Module) -> tuple[Encoded, Callable[[], None]]:
        """Cut a trial's model if it can be cut.

        The first model of a method shows whether the cut changes the output; if so, the method's models are left whole.

        Returns:
            The rows to train it on, and a function that makes it whole again.
        """
        level = self.level(name, model)
        if not level:
            return self._data, lambda: None
        few = np.arange(min(CHECKED_ROWS, len(self._data)))
        known = (name, level) in self._exact
        expected = None if known else self._run(model.eval(), few)
        data = replace(self._data, states=Field(self._at(level), self._offsets))
        undo = cut(model, level, self.extras)
        if expected is not None:
            found = self._run(model, few, data)
            error, close = (found - expected).abs().max(), CLOSE[self._device.autocast]
            self._exact[name, level] = float(error) <= close * float(expected.abs().max())
        if self._exact[name, level]:
            return data, undo
        undo()
        return self._data, lambda: None

    def _at(self, level: int) -> np.ndarray:
        """The states that go into a layer: float32 `[tokens of all rows, width]`, or `[rows, places, width]`.

        Of samples of several sequences `[tokens of all rows, sequences, width]`.
        """
        if level not in self._states:
            model = self._base.copy().eval()
            found: list[torch.Tensor] = []

            def stop(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                found[:] = [args[0] if args else kwargs["hidden_states"]]
                raise _ReachedError

            layer = model.get_submodule(self._base.spec.layers[level])
            layer.register_forward_pre_hook(stop, with_kwargs=True)
            order = np.argsort(self._data.lengths, kind="stable")
            states, offsets = self._room(), self._offsets
            start, size = 0, max(1, EVALUATION_BATCH_SIZE // self._data.sequences)
            while start < len(order):
                rows = order[start : start + size]
                try:
                    self._run(model, rows)
                except _ReachedError:
                    pass
                except torch.OutOfMemoryError:  # under a limit that training meets with fewer rows at a time
                    if size == 1:
                        raise
                    size //= 2
                    continue
                start += size
                made = found[0].float().cpu().numpy()
                if self._data.sequences > 1:
                    made = made.reshape(len(rows), self._data.sequences, *made.shape[1:]).swapaxes(1, 2)
                if offsets is None:
                    states[rows] = made
                    continue
                for row, row_states in zip(rows, made, strict=True):
                    begin, end = offsets[row : row + 2]
                    states[begin:end] = row_states[: end - begin]
            self._states[level] = states
        return self._states[level]

    @property
    def _of_place(self) -> tuple[int, ...]:
        """Shape of the states at one place of `axis`."""
        many, width = self._data.sequences, self._base.spec.hidden_size
        return (width,) if many == 1 else (many, width)

    @property
    def _offsets(self) -> np.ndarray | None:
        """Where each row's places begin and end; None if all rows have the same number."""
        return self._data.fields[self._data.axis].offsets if self._data.axis else None

    def _room(self) -> np.ndarray:
        """Memory for one level's states, or a file if they would take too much."""
        ends = self._offsets
        shape = self.shape(len(self._data)) if ends is None else (int(ends[-1]), *self._of_place)
        size = 4 * math.prod(shape)
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        held = sum(states.nbytes for states in self._states.values() if not isinstance(states, np.memmap))
        if (held + size) * self._sharers <= MEMORY_SHARE * memory:
            return np.empty(shape, np.float32)
        # Without a name: no other process can open it, and it is gone with this process, however that ends.
        with writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._folder) as file:
                if hasattr(os, "posix_fallocate"):  # else a full disk would kill the process when a page is written
                    os.posix_fallocate(file.fileno(), 0, size)
                return np.memmap(file, np.float32, "w+", shape=shape)

    @torch.inference_mode()
    def _run(self, model: nn.Module, rows: np.ndarray, data: Encoded | None = None) -> torch.Tensor:
        """The first output of the model for those rows, in float32."""
        heartbeat()
        place = next(model.parameters()).device  # not `self._device`: a plan may be for a GPU that is not here
        batch = (data or self._data).batch(rows, place)
        with self._device.kernels(), self._device.precision():
            outputs = self._task.run(model, batch)
        first: torch.Tensor = next(iter(outputs.values()))
        return first.float()


class _ReachedError(Exception):
    """The requested layer has its input."""
