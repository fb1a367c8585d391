"""Models of several winners whose trunks run as one: a pass takes rows of all of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves

from autopeft.shelf.joining import Joiner
from autopeft.shelf.routing import Routing
from autopeft.shelf.trunk import Port, put_together, taken_apart
from autopeft.training.batch import Batch
from autopeft.training.learner import EVALUATION_BATCH_SIZE, joined

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from torch import nn

    from autopeft.data.encoded import Encoded
    from autopeft.models.device import Device
    from autopeft.tasks.contract import Task

TOLERANCE = 1e-3
"""Largest difference of an output between a mixed pass and a winner's own, as a share of its largest output, or of 1 if
that is more. Rounding in float32 gives far less; rows that go through another winner's modules, far more."""

ON_GPU = 8
"""How many times more rows than on a CPU a pass on a GPU takes, which then still has its memory to spare."""


@dataclass(frozen=True)
class Part:
    """One model of a winner; a winner of several folds has several.

    Attributes:
        model: the model.
        port: to its trunk.
        task: the winner's.
    """

    model: nn.Module
    port: Port
    task: Task


@dataclass(frozen=True)
class Asked:
    """Rows for a winner.

    Attributes:
        rows: encoded.
        parts: places of its models among those of the joint.
    """

    rows: Encoded
    parts: Sequence[int]


class Joint:
    """Runs the trunks of several models as one.

    Args:
        parts: the models.
        alone: places of models whose own modules are not stacked with those of others.
        device: where they are.
    """

    def __init__(self, parts: Sequence[Part], alone: Collection[int], device: Device) -> None:
        self.parts, self._device = parts, device
        self._routing = Routing(len(parts))
        trunks = [part.port.trunk for part in parts]
        self._trunk = Joiner(self._routing, alone).trunk(tuple(range(len(parts))), trunks)

    @torch.no_grad()
    def answers(self, asked: Sequence[Asked]) -> list[list[np.ndarray]]:
        """The answers `[rows, …]` of each model of each winner asked; see `learner.evaluate`."""
        order: list[list[np.ndarray]] = [[] for _ in asked]
        found: list[list[list[torch.Tensor]]] = [[[] for _ in one.parts] for one in asked]
        for samples in self._passes(asked):
            batches = {place: Batch.of(asked[place].rows, [few], self._device.type) for place, few in samples.items()}
            runs = {
                part: partial(self.parts[part].task.run, self.parts[part].model, batch.tensors)
                for place, batch in batches.items()
                for part in asked[place].parts
            }
            with self._device.kernels(), self._device.precision():
                outputs = self.run(runs)
            for place, batch in batches.items():
                order[place].append(samples[place])
                for answers, part in zip(found[place], asked[place].parts, strict=True):
                    answers.append(self.parts[part].task.answer(outputs[part], dict(batch.tensors)))
        return [
            [self._whole(one, part, places, answers) for part, answers in zip(one.parts, each, strict=True)]
            for one, places, each in zip(asked, order, found, strict=True)
        ]

    def _whole(
        self, asked: Asked, part: int, places: Sequence[np.ndarray], parts: Sequence[torch.Tensor]
    ) -> np.ndarray:
        """The answers of all passes, in the order of the rows."""
        in_order = np.argsort(np.concatenate(places), kind="stable")
        found: np.ndarray = joined(parts).cpu().numpy()[in_order]
        if asked.rows.row_of is None:
            return found
        return self.parts[part].task.combine(found, asked.rows.row_of)

    def _passes(self, asked: Sequence[Asked]) -> Iterator[dict[int, np.ndarray]]:
        """The samples of each winner in each pass, by place: of similar length, as many as go through well at once."""
        most = EVALUATION_BATCH_SIZE * (1 if self._device.type == "cpu" else ON_GPU)
        extents = np.concatenate([one.rows.extents for one in asked])
        owners = np.repeat(np.arange(len(asked)), [len(one.rows) for one in asked])
        samples = np.concatenate([one.rows.everything for one in asked])
        sequences = np.array([one.rows.sequences * len(one.parts) for one in asked])[owners]
        order = np.argsort(extents, kind="stable")
        passes = np.cumsum(sequences[order]) - 1
        for few in np.split(order, np.flatnonzero(np.diff(passes // most)) + 1):
            yield {int(place): samples[few[owners[few] == place]] for place in np.unique(owners[few])}

    def run(self, runs: Mapping[int, Callable[[], Any]]) -> dict[int, Any]:
        """The outputs of models, by their places.

        Args:
            runs: runs each on its rows.
        """
        if len(runs) == 1:
            return {part: run() for part, run in runs.items()}
        calls = {part: self.parts[part].port.asked(runs[part]) for part in sorted(runs)}
        forms: dict[Any, list[int]] = {}
        for part, call in calls.items():
            forms.setdefault(call.form, []).append(part)
        found = {}
        for alike in forms.values():
            if len(alike) == 1:
                found[alike[0]] = runs[alike[0]]()
                continue
            few = [calls[part] for part in alike]
            counts = [0] * len(self.parts)
            for part, call in zip(alike, few, strict=True):
                counts[part] = call.rows
            self._routing.begin(counts)
            answer = self._trunk.forward(**put_together(few, self.parts[alike[0]].port.padding))
            for part, own in zip(alike, taken_apart(answer, few), strict=True):
                found[part] = self.parts[part].port.answered(own, runs[part])
        return found

    @torch.no_grad()
    def fault(self, examples: Sequence[Encoded]) -> str:
        """How the outputs of a mixed pass differ from each model's own; empty if they do not.

        Args:
            examples: two rows or more for each model.
        """
        with self._device.kernels(), self._device.precision():
            for rows in (lambda place: 2, lambda place: 1 + place % 2):
                runs = {}
                for place, (part, data) in enumerate(zip(self.parts, examples, strict=True)):
                    few = data.samples_of(np.arange(rows(place)))
                    batch = Batch.of(data, [few], self._device.type)
                    runs[place] = partial(part.task.run, part.model, batch.tensors)
                together = self.run(runs)
                for place, run in runs.items():
                    if (off := _difference(run(), together[place])) > TOLERANCE:
                        return f"the outputs of model {place + 1} are off by {off:.1%} of the largest"
        return ""


def _difference(own: Any, other: Any) -> float:
    """The largest difference between tensors, as a share of the largest number in them, or of 1."""
    pairs = zip(tree_leaves(own), tree_leaves(other), strict=True)
    tensors = [(one.float(), two.float()) for one, two in pairs if isinstance(one, torch.Tensor)]
    return max(float((one - two).abs().max() / one.abs().max().clamp(min=1)) for one, two in tensors)
