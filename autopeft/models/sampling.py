"""How each token of a text is chosen: the most probable one, or drawn by probability."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from autopeft.common.exceptions import UserInputError, shorten
from autopeft.common.seeds import seeded

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

COLDEST, HOTTEST = 0.01, 100.0
"""Range of temperatures in which logits stay finite and distinct."""

LARGEST_SEED = 2**32 - 1

NUMBERS = (
    ("temperature", Real, "a number"),
    ("top_p", Real, "a number"),
    ("top_k", Integral, "a whole number"),
    ("seed", Integral, "a whole number"),
)
"""What each setting is."""


@dataclass(frozen=True)
class Sampling:
    """How each token is chosen.

    Attributes:
        temperature: divides logits before tokens are drawn by their probabilities; 0: the most probable token is taken,
            and nothing is drawn.
        top_p: draw from the most probable tokens that together have this much probability; 1: all.
        top_k: draw from this many of the most probable tokens; 0: all.
        seed: gives the same texts for the same rows on the same machine; None: other texts each time.

    Raises:
        UserInputError: something is no number or out of its range, or `top_p` or `top_k` is set but nothing is drawn.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = 0

    def __post_init__(self) -> None:
        for name, kind, rule in NUMBERS:
            given = getattr(self, name)
            if not isinstance(given, kind) and (name, given) != ("seed", None):
                raise UserInputError(f"`{name}` must be {rule}, but is {shorten(given)}; change it.")
        ranges = {
            "temperature": (
                self.temperature == 0 or COLDEST <= self.temperature <= HOTTEST,
                f"0 for the most probable token, or from {COLDEST} to {HOTTEST:.0f}",
            ),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "top_k": (self.top_k >= 0, "0 or more, where 0 is all tokens"),
            "seed": (self.seed is None or 0 <= self.seed <= LARGEST_SEED, f"from 0 to {LARGEST_SEED}"),
        }
        for name, (within, rule) in ranges.items():
            if not within:
                raise UserInputError(f"`{name}` must be {rule}, but is {shorten(getattr(self, name))}; change it.")
        if not self.temperature and (self.top_p, self.top_k) != (1, 0):
            raise UserInputError(
                "`top_p` and `top_k` limit the tokens to draw from, but at a `temperature` of 0 nothing is drawn; set "
                "a temperature too, such as 0.7."
            )

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of transformers' `GenerationConfig`."""
        if not self.temperature:
            return {"do_sample": False}
        return {
            "do_sample": True,
            "temperature": float(self.temperature),
            "top_p": float(self.top_p),
            "top_k": self.top_k,
        }

    def seeded(self) -> AbstractContextManager[None]:
        """Draw random numbers from the seed inside; torch's own are the same in every process."""
        return seeded(secrets.randbelow(LARGEST_SEED) if self.seed is None else self.seed)
