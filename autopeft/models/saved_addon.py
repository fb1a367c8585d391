"""The add-ons of winners that earlier studies saved, for methods that build on them; no base model is loaded."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from autopeft.common.exceptions import SpecError, UserInputError, brief, in_a_line
from autopeft.common.paths import as_path
from autopeft.common.units import counted
from autopeft.models import digest, tensor_file
from autopeft.study.card import CARD, Card
from autopeft.study.folder import TASKS, WINNER
from autopeft.study.winner_of_task import tasks_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from autopeft.common.params import Params
    from autopeft.methods.contract import ModelSpec, Support

SHOWN_DIGEST = 19
"""Characters of a digest that a message repeats."""


@dataclass(frozen=True)
class SavedAddOn:
    """The add-on of a winner that an earlier study saved.

    Attributes:
        name: a short name, different for each of several: that of the study's output folder, or of the winner's.
        folder: of the winner.
        method: the method's name.
        params: its params.
        task: the kind of task that it was trained for.
        labels: the names that its answers choose from; empty where there are none.
        base_model: that it was trained on, as its study named it.
        base_digest: identity of that model's files; "" where it was not kept.
        quantization: of that model's weights as it was trained: "none", "8bit" or "4bit".
        weights: name of the file with its tensors.
        digest: SHA-256 of that file; "" where it was not kept.
    """

    name: str
    folder: Path
    method: str
    params: Params
    task: str
    labels: tuple[str, ...]
    base_model: str
    base_digest: str
    quantization: str
    weights: str
    digest: str

    @classmethod
    def read(cls, reference: str | Path, folder: Path) -> SavedAddOn:
        """Find one, without reading its tensors.

        Args:
            reference: the folder of a winner, or of a study that has one.
            folder: where a relative path starts.

        Raises:
            UserInputError: there is no winner, there is one for each of several tasks, it has the models of several
                folds, or lacks those of low layers; in one sentence.
        """
        try:
            there = folder / as_path(reference)
        except ValueError as error:
            raise UserInputError(f"the reference {error}.") from None
        if not (there / CARD).is_file() and (there / WINNER / CARD).is_file():
            there = there / WINNER
        for several in (there, there / WINNER):
            if (several / TASKS).is_file():
                raise UserInputError(
                    f"{brief(several)} holds a winner for each of several tasks; give the folder of one of them in it: "
                    f"{', '.join(tasks_in(several))}."
                )
        card = Card.read(there)
        if card.members:
            raise UserInputError(
                f'{there} holds the models of {card.members} folds, not one add-on; train it with `form = "average"` '
                'or "refit" in [winner].'
            )
        if card.dropped_layers:
            raise UserInputError(
                f"{there} lacks the add-ons of its lowest {counted(card.dropped_layers, 'layer')}; train it with "
                "`drop_layers = 0` in [winner]."
            )
        files = [name for name in card.digests if name.endswith(".safetensors")]
        weights = files[0] if files else next((path.name for path in sorted(there.glob("*.safetensors"))), "")
        home = there.resolve()
        named = home.parent.name if home.name == WINNER and home.parent.name else home.name
        return cls(
            name=re.sub(r"[^\w-]+", "_", named) or "source",
            folder=there,
            method=card.method,
            params=dict(card.params),
            task=card.task,
            labels=card.labels,
            base_model=card.base_model,
            base_digest=card.base_digest,
            quantization=card.quantization,
            weights=weights,
            digest=card.digests.get(weights, ""),
        )

    def fits(self, spec: ModelSpec) -> Support:
        """Whether it was trained on this base model, with the reason if it was not."""
        from autopeft.methods.contract import Support

        if self.quantization != spec.quantization:
            return Support(
                f'{self.folder} was trained with `quantization = "{self.quantization}"` in [model], but here it is '
                f'"{spec.quantization}"; use the same.'
            )
        if not spec.digest or self.base_digest == spec.digest:
            return Support()
        if not self.base_digest:
            return Support(f"{self.folder} does not say which base model it was trained on; train it again.")
        if digest.kind_of(self.base_digest) != digest.kind_of(spec.digest):
            return Support(
                f"{self.folder} was trained on {brief(self.base_model)} ({self.base_digest[:SHOWN_DIGEST]}…), but here "
                f"it is {spec.digest[:SHOWN_DIGEST]}…: the commit of a model on the hub cannot be compared with the "
                "files of a folder; name the model in [model] as it was named there."
            )
        return Support(
            f"{self.folder} was trained on another base model ({brief(self.base_model)}, digest "
            f"{self.base_digest[:SHOWN_DIGEST]}…, here {spec.digest[:SHOWN_DIGEST]}…); give winners on this model."
        )

    @functools.cached_property
    def tensors(self) -> Mapping[str, np.ndarray]:
        """Its tensors and its head's by their names, as NumPy arrays, read once; check their names and shapes.

        Raises:
            UserInputError: the file is missing, damaged or not the one that was saved, or holds NaN.
        """
        path = self.folder / (self.weights or "addon.safetensors")
        found = tensor_file.arrays(path)
        if self.digest and tensor_file.digest(path) != self.digest:
            raise UserInputError(
                f"{path} must be the file that was saved, but its SHA-256 is not the one on the card; restore it."
            )
        for name, array in found.items():
            if not np.isfinite(array).all():
                raise UserInputError(f"{path} must hold finite numbers, but {brief(name)} does not; train it again.")
        return found


def saved_addons(references: Sequence[str], folder: Path, setting: str) -> tuple[SavedAddOn, ...]:
    """Find several, each with a name of its own.

    Args:
        references: as for `SavedAddOn.read`.
        folder: where relative paths start.
        setting: that gives them, for messages, such as "`sources` in [methods.fusion]".

    Raises:
        SpecError: one cannot be used, or is named twice.
    """
    found: list[SavedAddOn] = []
    for reference in references:
        try:
            one = SavedAddOn.read(reference, folder)
        except UserInputError as error:
            raise SpecError(
                f"{setting} names {brief(str(reference))}, which cannot be used: {in_a_line(error)}"
            ) from None
        if any(one.folder.resolve() == other.folder.resolve() for other in found):
            raise SpecError(f"{setting} must name each winner once, but names {brief(str(one.folder))} twice.")
        names, number, name = {other.name for other in found}, 2, one.name
        while name in names:
            name, number = f"{one.name}_{number}", number + 1
        found.append(replace(one, name=name))
    return tuple(found)
