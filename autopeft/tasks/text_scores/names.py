"""The scores of texts by their names."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from autopeft.common.exceptions import SpecError, brief, nearest
from autopeft.tasks.text_scores import corpus, json_texts, library, numeric, pattern, rouge, words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from autopeft.tasks.text_scores.score import TextScore

MATCHES = "matches:"
"""The prefix of a regular expression."""

SCORES: Mapping[str, TextScore] = MappingProxyType(
    {
        **words.SCORES,
        **rouge.SCORES,
        **corpus.SCORES,
        **numeric.SCORES,
        **json_texts.SCORES,
    }
)


def text_scores() -> Mapping[str, TextScore]:
    """All scores with a name; `matches:` and a regular expression make another one (`text_score`).

    Those of the extra `writing` are among them even if it is not installed: then they raise a SpecError when they are
    computed.
    """
    return SCORES


def text_score(name: str) -> TextScore:
    """The score with this name, or the score of `matches:` and a regular expression.

    Raises:
        SpecError: it is not known, its pattern breaks a rule, or the library that it needs is not installed.
    """
    if name.startswith(MATCHES):
        return pattern.matching(name.removeprefix(MATCHES))
    if name not in SCORES:
        known = nearest(name, [*SCORES, f"{MATCHES}<regular expression>"])
        raise SpecError(f'the score of texts "{brief(name)}" is not known; {known}')
    library.require(name)
    return SCORES[name]


def score_text(name: str, answers: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """A score of all answers, `[rows]`, with the references of each row: none, one or more.

    Raises:
        SpecError: as `text_score`; or the pattern takes too long.
        ValueError: there are no rows, or unequal numbers of answers and references.
        TypeError: a row's references are one text, not a list of texts.
    """
    if any(isinstance(own, str) for own in references):
        raise TypeError("the references of a row must be a list of texts, even if there is only one.")
    return text_score(name).of(answers, references)
