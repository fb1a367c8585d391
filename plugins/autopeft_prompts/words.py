"""Label words: single tokens that a language model gives in the place of labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autopeft import SpecError, nearest, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

ANY = "a"
"""The text before a word if the template has none."""

CANDIDATES = 50
"""How many words a label's word is chosen from."""


class Vocabulary:
    """Single tokens as words that follow the template's text.

    Args:
        tokenizer: of transformers.
        context: the text right before the word.
        spaced: whether there is a space between them.
    """

    def __init__(self, tokenizer: Any, context: str, *, spaced: bool) -> None:
        self._tokenizer, self._context, self._space = tokenizer, context or ANY, " " if spaced else ""
        self._before = self._ids(self._context)

    def _ids(self, text: str) -> list[int]:
        found: list[int] = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return found

    def tokens(self, word: str) -> list[int]:
        """The tokens that a word adds to the text before it; none if it changes that text's tokens."""
        found = self._ids(f"{self._context}{self._space}{word}")
        count = len(self._before)
        return found[count:] if found[:count] == self._before else []

    def token(self, word: str) -> int | None:
        """The token of a word; None if it has several, or is unknown."""
        found = self.tokens(word)
        return found[0] if len(found) == 1 and found[0] != self._tokenizer.unk_token_id else None

    def word(self, token: int) -> str | None:
        """The word that a token is, if it has only letters; None for marks, parts of words and anything else."""
        word: str = self._tokenizer.decode([token]).strip()
        return word if word.isalpha() and self.token(word) == token else None


def named(vocabulary: Vocabulary, labels: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
    """The word of each label that has one: the given word, or its own name.

    Raises:
        SpecError: a given word is not one token, or belongs to no label or to two.
    """
    for label, own in given.items():
        if label not in labels:
            raise SpecError(f"`words` in [task] names {quoted(label)}, which no row has; {nearest(label, labels)}")
        if vocabulary.token(own) is None:
            count = len(vocabulary.tokens(own))
            why = "is not in the model's vocabulary" if count == 1 else f"has {count or 'several'}"
            raise SpecError(
                f"`words` in [task] must be one token each, but {quoted(own)} for {quoted(label)} {why}; "
                "give another word."
            )
    found: dict[str, str] = {}
    taken: dict[int | None, str] = {}
    for label in sorted(labels, key=lambda label: label not in given):
        word: str | None = given.get(label) or next(
            (form for form in (label, label.lower()) if vocabulary.token(form) is not None), None
        )
        if word is None:
            continue
        other = taken.setdefault(vocabulary.token(word), label)
        if other != label and label in given:
            raise SpecError(
                f"`words` in [task] must differ, but {quoted(word)} is for {quoted(other)} and for {quoted(label)}; "
                "change one of them."
            )
        if other == label:
            found[label] = word
    return found


def chosen(vocabulary: Vocabulary, gains: np.ndarray, labels: Sequence[str], taken: Sequence[str]) -> dict[str, str]:
    """A word for each label, chosen so that together they separate the labels best.

    Args:
        vocabulary: of the tokens.
        gains: how much likelier a token is for rows of a label than for others, `[labels, tokens]`; -inf for tokens
            that cannot be taken.
        labels: that need a word.
        taken: words of other labels.

    Raises:
        SpecError: there are too few words.
    """
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    known: dict[int, str | None] = {}
    columns: dict[str, int] = {}
    for row in gains:
        mine = 0
        for token in map(int, np.argsort(-row, kind="stable")):
            if mine == CANDIDATES or not np.isfinite(row[token]):
                break
            word = known.setdefault(token, vocabulary.word(token))
            if word is not None and word not in taken:
                columns[word] = token
                mine += 1
    if len(columns) < len(labels):
        raise SpecError(
            f"each of {len(labels)} labels needs a word, but the model's vocabulary has only {len(columns)} suitable "
            "ones; give them as `words` in [task]."
        )
    words = [*columns]
    table = gains[:, list(columns.values())]
    table = np.where(np.isfinite(table), table, np.min(table[np.isfinite(table)], initial=0.0) - 1.0)
    places = linear_sum_assignment(table, maximize=True)[1]
    return {label: words[place] for label, place in zip(labels, places, strict=True)}
