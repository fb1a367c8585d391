"""Finds which winners can share a pass: each method's are tried together with those that were found before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import PreTrainedModel

from autopeft.common import machine
from autopeft.common.exceptions import in_a_line
from autopeft.shelf.joint import Joint, Part
from autopeft.shelf.trunk import Port

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from autopeft.data.encoded import Encoded
    from autopeft.models.device import Device
    from autopeft.winner.winner import Winner


class Settled:
    """How winners run.

    Attributes:
        joint: runs several in one pass; None where fewer than two can.
        parts: the places in it of a winner's models, by the winner's name.
        turns: why a winner runs alone, by its name.
    """

    def __init__(self, winners: Mapping[str, Winner], device: Device) -> None:
        self.turns: dict[str, str] = {}
        self.parts: dict[str, range] = {}
        self.joint: Joint | None = None
        able = {name: found for name, winner in winners.items() if (found := self._parts_of(name, winner))}
        examples = {name: _example(winners[name]) for name in able}
        methods: dict[str, list[str]] = {}
        for name in able:
            methods.setdefault(winners[name].card.method, []).append(name)
        chosen: list[str] = []
        alone: set[str] = set()
        for names in methods.values():
            names.sort(key=lambda name: str(sorted(winners[name].card.params.items())))  # alike ones side by side
            faults = ""
            for kept in (set[str](), set(names)):
                faults = self._fault([*chosen, *names], alone | kept, able, examples, device)
                if not faults:
                    chosen, alone = [*chosen, *names], alone | kept
                    break
            else:
                self.turns |= dict.fromkeys(names, f"it cannot share a pass with the others: {faults}")
        if len(chosen) < 2:
            return
        self.joint, self.parts = _join(chosen, alone, able, device)

    def _parts_of(self, name: str, winner: Winner) -> list[Part]:
        """A winner's models with their trunks; none where it runs in turns."""
        if winner.writes:
            self.turns[name] = "it writes texts"
            return []
        trunks = [_trunk(model) for model in winner.modules]
        if any(trunk is None for trunk in trunks):
            self.turns[name] = "its model has no part that all tasks share"
            return []
        padding = int(getattr(winner.processor, "pad_token_id", None) or 0)
        return [
            Part(model, Port(trunk, padding), winner.answering.task)
            for model, trunk in zip(winner.modules, trunks, strict=True)
            if trunk is not None
        ]

    def _fault(
        self,
        names: Sequence[str],
        alone: set[str],
        able: Mapping[str, list[Part]],
        examples: Mapping[str, Encoded],
        device: Device,
    ) -> str:
        """Why these winners cannot share a pass; empty if they can."""
        try:
            joint, _ = _join(names, alone, able, device)
            return joint.fault([examples[name] for name in names for _ in able[name]])
        except Exception as error:  # a method's modules may do anything with what they get
            if machine.fault(error):
                raise
            return in_a_line(error)


def _join(
    names: Sequence[str], alone: set[str], able: Mapping[str, list[Part]], device: Device
) -> tuple[Joint, dict[str, range]]:
    places, parts = dict[str, range](), list[Part]()
    for name in names:
        places[name] = range(len(parts), len(parts) + len(able[name]))
        parts += able[name]
    return Joint(parts, {place for name in alone if name in places for place in places[name]}, device), places


def _trunk(model: nn.Module) -> nn.Module | None:
    """The part of a model below its head; None where it has none."""
    plain: Any = next((module for module in model.modules() if isinstance(module, PreTrainedModel)), None)
    return None if plain is None or plain.base_model is plain else plain.base_model


def _example(winner: Winner) -> Encoded:
    """Two rows for a winner."""
    import pandas as pd

    rows = pd.DataFrame(winner.sample(winner.reader.cells()))
    return winner.answering.encoded(winner.answering.cells(rows))
