"""The user's own score of texts: a function in a Python file beside the study file."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from autopeft.common.exceptions import SpecError, in_a_line, shorten
from autopeft.tasks import user_function
from autopeft.tasks.text_scores.names import MATCHES
from autopeft.tasks.text_scores.score import NOTHING, TextScore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

TAKES = (
    "It gets two lists of texts, the written ones and the references, and returns a number for each row, or one for "
    "all; higher is better."
)


class OwnScore(NamedTuple):
    """A score that is a function, and the SHA-256 of the function's file."""

    score: TextScore
    digest: str


def is_own(name: str) -> bool:
    """Whether that is the name of a function, not of a known score or a pattern."""
    return ":" in name and not name.startswith(MATCHES)


def load(name: str, folder: Path, setting: str) -> OwnScore:
    """The score that this function computes; it gets only the first reference of each row.

    Args:
        name: ``module:function``; `module.py` is in the folder.
        folder: of the study file.
        setting: the setting that names it, for errors, such as "`scores` in [task]".

    Raises:
        SpecError: there is no such file or function, or the file fails when it runs.
    """
    function, digest = user_function.load(name, folder, setting, f'a score of texts, "{MATCHES}<regular expression>"')
    of_rows = partial(_of_rows, partial(_call, name, function, setting))
    return OwnScore(TextScore(partial(_of_draws, of_rows), None, of_rows=of_rows), digest)


def _of_rows(
    call: Callable[[list[str], list[str]], np.ndarray], answers: Sequence[str], references: Sequence[Sequence[str]]
) -> np.ndarray:
    return call([*answers], [next(iter(own), *NOTHING) for own in references])


def _of_draws(
    of_rows: Callable[[Sequence[str], Sequence[Sequence[str]]], np.ndarray],
    answers: Sequence[str],
    references: Sequence[Sequence[str]],
    counts: np.ndarray,
) -> np.ndarray:
    """Average a number for each row by how often a draw has it; if there is one number for all, score each draw."""
    whole = of_rows(answers, references)
    if whole.ndim:
        return np.asarray(counts @ whole / counts.sum(axis=1))
    drawn = [np.repeat(np.arange(len(answers)), row.astype(np.int64)).tolist() for row in counts]
    return np.array([of_rows([answers[row] for row in rows], [references[row] for row in rows]) for rows in drawn])


def _call(name: str, function: Callable[..., Any], setting: str, texts: list[str], references: list[str]) -> np.ndarray:
    """The function's numbers, float64: one for each row, `[rows]`, or one for all, `[]`.

    Raises:
        SpecError: the function fails, or returns anything but finite numbers.
    """
    count = len(texts)
    try:
        found = function([*texts], [*references])
    except Exception as error:  # a user's function may raise anything
        raise SpecError(f"{setting}: {name} failed on {count} rows: {in_a_line(error)}. {TAKES}") from error
    try:
        # NumPy would turn a text such as "0.5", and None, into numbers.
        numbers = np.asarray(found)
        numbers = numbers.astype(np.float64) if numbers.dtype.kind in "biuf" else np.zeros((0, 0))
    except Exception:  # so may what it returns
        numbers = np.zeros((0, 0))
    if numbers.shape not in ((), (count,)) or not np.isfinite(numbers).all():
        raise SpecError(
            f"{setting}: {name} must return a finite number for each of {count} rows, or one for all, but returned "
            f"{shorten(found)}. {TAKES}"
        )
    return numbers
