"""The GPUs that the trials of a study train on, and how a process is made to see one of them alone."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from autopeft.common.exceptions import SpecError, shorten
from autopeft.common.units import counted, format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from autopeft.study.file import StudySpec

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""The environment variable that says which GPUs a process sees. It must be set before PyTorch is imported there."""

MIG = "MIG-"
"""How the names of parts of a GPU begin. A process sees the first one of those in the variable, and no other GPU."""

ASK = "import torch; card = torch.cuda.get_device_properties(0); print(card.total_memory, card.name)"
PATIENCE = 120.0
"""What a process is started for that sees a part of a GPU; and the seconds that it gets for that."""


@dataclass(frozen=True)
class Card:
    """A GPU, or a part of one.

    Attributes:
        place: its index among the visible ones, as in `devices` of [search].
        visible: the value of `CUDA_VISIBLE_DEVICES` with which a process sees it alone.
        name: of the product.
        memory: bytes in all.
    """

    place: int
    visible: str
    name: str
    memory: int

    def __str__(self) -> str:
        return f"GPU {self.place} ({self.name}, {format_bytes(self.memory)})"


def visible_names(setting: str | None, count: int) -> list[str]:
    """For each visible GPU, the value of `CUDA_VISIBLE_DEVICES` with which a process sees it alone.

    Args:
        setting: the variable's value in this process; None where it is not set.
        count: how many GPUs this process sees.

    >>> visible_names(None, 2), visible_names("3,1", 2), visible_names("GPU-8f2a,GPU-1b7c", 2)
    (['0', '1'], ['3', '1'], ['GPU-8f2a', 'GPU-1b7c'])
    >>> visible_names("MIG-20f1,MIG-9c44", 1)  # one of those is all that a process sees
    ['MIG-20f1', 'MIG-9c44']
    """
    if setting is None:
        return [str(place) for place in range(count)]
    names = [name.strip() for name in setting.split(",")]
    parts = names[: next((place for place, name in enumerate(names) if not name.startswith(MIG)), len(names))]
    return parts if parts and count else names[:count]


def chosen(spec: StudySpec) -> tuple[Card, ...]:
    """The GPUs that the study asks for, with the most memory first; none where it leaves that to PyTorch.

    The study's own process uses the first of them. It makes no context on the others.

    Raises:
        SpecError: `devices` names GPUs that this process does not see, or one of several cannot be used.
    """
    wanted = spec.search.devices
    if wanted is None and (spec.search.workers == 1 or spec.model.candidates or spec.tasks):
        return ()
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = visible_names(os.environ.get(VISIBLE), count)
    if wanted:
        _require(wanted, names, count)
    places = range(len(names)) if wanted is None else wanted
    asked = _asked(tuple(names[place] for place in places if place >= count))
    cards = []
    for place in places:
        if place < count:
            found = torch.cuda.get_device_properties(place)
            name, memory = found.name, found.total_memory
        else:
            name, memory = asked[names[place]]
        cards.append(Card(place, names[place], name, memory))
    # The process sees the first part of a GPU alone, however large the others are.
    return tuple(sorted(cards, key=lambda card: (card.place >= count, -card.memory)))


def use(card: Card) -> None:
    """Make it the current one of this process, if the process sees it."""
    if card.place < torch.cuda.device_count():
        torch.cuda.set_device(card.place)


@contextmanager
def kept() -> Iterator[None]:
    """Have PyTorch use the same GPU afterwards as before: the process may have more to do than a study."""
    before = _current()
    try:
        yield
    finally:
        if _current() is not None:
            torch.cuda.set_device(before or 0)


def _current() -> int | None:
    """The GPU that PyTorch uses in this process; None where it does not use any yet."""
    begun = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return torch.cuda.current_device() if begun else None


def _require(wanted: Sequence[int], names: Sequence[str], count: int) -> None:
    """Check that these places are among the visible GPUs, of which this process sees as many as `count`.

    Raises:
        SpecError: they are not; it says which there are.
    """
    given, setting = ", ".join(map(str, wanted)), os.environ.get(VISIBLE)
    told = f" ({VISIBLE} is {setting!r})" if setting is not None else ""
    if not names:
        raise SpecError(
            f"`devices` in [search] must be indices of GPUs, but are [{given}], and PyTorch finds no GPU here{told}; "
            "remove the setting, or run the study on a machine with CUDA."
        )
    if max(wanted) >= len(names):
        raise SpecError(
            f"`devices` in [search] must be indices of visible GPUs, but are [{given}], and there "
            f"{'is' if len(names) == 1 else 'are'} {counted(len(names), 'GPU')}, counted from 0{told}; name others."
        )
    if min(wanted) >= count:
        raise SpecError(
            f"`devices` in [search] must contain 0 where {VISIBLE} names parts of GPUs, since the study's own process "
            f"sees only the first of them, but are [{given}]; put the parts to use first in {VISIBLE}."
        )


@functools.cache
def _asked(names: tuple[str, ...]) -> dict[str, tuple[str, int]]:
    """Name and memory of GPUs that this process does not see, by a process for each.

    Raises:
        SpecError: one cannot be used.
    """
    started = {
        name: subprocess.Popen(
            [sys.executable, "-c", ASK],
            env={**os.environ, VISIBLE: name},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in names
    }
    found = {}
    try:
        for name, process in started.items():
            told, error = process.communicate(timeout=PATIENCE)
            memory, _, product = told.strip().partition(" ")
            if process.returncode or not memory.isdecimal():
                why = shorten((error.strip() or "no reason was given").splitlines()[-1])
                raise SpecError(f"{VISIBLE} must name GPUs that can be used, but {name} cannot ({why}); leave it out.")
            found[name] = product, int(memory)
    except subprocess.TimeoutExpired:
        told = f"{VISIBLE} must name GPUs that can be used, but {name} does not answer; leave it out."
        raise SpecError(told) from None
    finally:
        for process in started.values():
            process.kill()
            process.communicate()
    return found
