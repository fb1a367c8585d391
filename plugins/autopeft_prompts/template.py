"""Takes a template such as `{text} It was {mask}.` apart."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from autopeft import SpecError, Template, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

PLACE = re.compile(r"\{(\w+)\}")
MASK = "mask"

DEFAULTS = {
    ("masked", 1): "{text} It was {mask}.",
    ("masked", 2): "{text} ? {mask} , {text_pair}",
    ("causal", 1): "{text}\nLabel:",
    ("causal", 2): "{text}\n{text_pair}\nLabel:",
}
"""By the form of the model and the number of texts of a row; for masked models from Gao et al. 2021, table 1."""


class Part(NamedTuple):
    """The part before or behind the word that is asked for: `words` around the texts of the columns `keys`."""

    words: tuple[str, ...]
    keys: tuple[str, ...]

    def of(self, rows: pd.DataFrame) -> Template:
        """The part with the texts of those rows."""
        return Template(self.words, tuple(rows[key].tolist() for key in self.keys))


class Parts(NamedTuple):
    """A template around the word that is asked for.

    Attributes:
        before: up to the word, without white space at the end.
        behind: from the word on.
        spaced: whether there is a space before the word.
    """

    before: Part
    behind: Part
    spaced: bool

    @property
    def context(self) -> str:
        """The template's own text right before the word."""
        return self.before.words[-1]


def taken_apart(template: str, form: str, keys: Sequence[str]) -> Parts:
    """The parts of a template for models of that form, "masked" or "causal", and for those columns.

    For a causal model the word comes at the end, where `{mask}` is optional.

    Raises:
        SpecError: a place is unknown, missing or there twice, or the word is not where the model can give it.
    """
    places = PLACE.findall(template)
    for place in places:
        if place not in (*keys, MASK):
            hint = nearest(place, [*keys, MASK])
            raise SpecError(
                f"`template` in [task] has {{{place}}}, which is not a place for a text of this task; {hint}"
            )
    for place in (*keys, MASK):
        least = 0 if place == MASK and form == "causal" else 1
        if not least <= places.count(place) <= 1:
            raise SpecError(
                f"`template` in [task] must have {{{place}}} {'once' if least else 'at most once'}, but has it "
                f"{places.count(place)} times: {template!r}."
            )
    before, found, behind = template.partition(f"{{{MASK}}}")
    if form == "causal" and behind:
        raise SpecError(
            f"`template` in [task] must end with {{mask}}, as the model reads forward, but {behind!r} follows; "
            'remove it, or set `model = "masked"`.'
        )
    bare = before.rstrip(" ")
    goes_on = bool(bare) and not bare[-1].isspace()  # a causal model is asked in the middle of a line
    spaced = bare != before or (goes_on and not found)
    return Parts(_part(bare), _part(behind), spaced)


def _part(text: str) -> Part:
    pieces = PLACE.split(text)
    return Part(tuple(pieces[::2]), tuple(pieces[1::2]))
