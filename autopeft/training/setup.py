"""What all trials of a study share: what is learnt, on which rows, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from autopeft.data.encoded import Encoded
    from autopeft.data.split import Fold
    from autopeft.models.device import Device
    from autopeft.tasks.contract import Task


@dataclass(frozen=True)
class Setup:
    """What all trials of a study share.

    Attributes:
        task: gives the loss, the answers and the scores.
        rows: the training rows.
        folds: how they are split.
        device: where, and in what precision.
        metric: what folds are scored by.
        seed: the study's.
        longest: epochs of the longest training in the study; the rungs depend on it (`rungs.rung_ends`).
        starts: by fold, initial values of trained parameters, if the trial's method computes them (`initial_values`).
    """

    task: Task
    rows: Encoded
    folds: Sequence[Fold]
    device: Device
    metric: str
    seed: int
    longest: int = 0
    starts: Sequence[Mapping[str, torch.Tensor]] = ()
