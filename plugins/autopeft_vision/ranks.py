"""At which place images find their texts, and texts their images: what retrieval is scored by."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from autopeft import Metric

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import pandas as pd

RECALLS = (1, 5, 10)
"""Among how many first ones the right one must be."""

BLOCK = 1000
"""Rows that are compared with all others at a time."""


def identities(rows: pd.DataFrame) -> np.ndarray:
    """A number for each row's image, and one for its text, equal where these are, int64 `[rows, 2]`."""
    import numpy as np
    import pandas as pd

    return np.stack([pd.factorize(rows[key].map(str))[0].astype(np.int64) for key in ("image", "text")], axis=1)


def ranks(answers: np.ndarray, equal: np.ndarray) -> np.ndarray:
    """At which place an image finds a right text among all, and a text a right image, int64 `[rows, 2]`, from 1 on.

    Right is what belongs to an image, or a text, that equals the row's own. A text that several rows have is one among
    those that are searched, and an image likewise. Those that are equally near come in the rows' order.

    Args:
        answers: vectors of images and of texts side by side, `[rows, 2 · width]`.
        equal: which rows have equal images, and equal texts, `[rows, 2]`.
    """
    import numpy as np

    width = answers.shape[1] // 2
    vectors = np.asarray(answers, np.float32)  # always the same, so that ranks worked out again are too
    sides = vectors[:, :width], vectors[:, width:]
    found = np.empty((len(answers), 2), np.int64)
    for way in (0, 1):
        asked, offered = sides[way], sides[1 - way]
        first = np.sort(np.unique(equal[:, 1 - way], return_index=True)[1])  # each of what is searched once
        place_of = {number: place for place, number in enumerate(equal[first, 1 - way])}
        wanted = np.array([place_of[number] for number in equal[:, 1 - way]])
        for start in range(0, len(asked), BLOCK):
            rows = np.arange(start, min(start + BLOCK, len(asked)))
            near = asked[rows] @ offered[first].T
            right = _right(equal[:, way], wanted, rows, len(first))
            best = np.where(right, near, -np.inf).max(axis=1, keepdims=True)
            before = np.where(right & (near == best), np.arange(len(first)), len(first)).min(axis=1, keepdims=True)
            ahead = (near > best) | ((near == best) & (np.arange(len(first)) < before))
            found[rows, way] = 1 + ahead.sum(axis=1)
    return found


def _right(own: np.ndarray, wanted: np.ndarray, rows: np.ndarray, offered: int) -> np.ndarray:
    """Which of what is offered belongs to each of some rows, or to one that equals it, bool `[rows, offered]`."""
    import numpy as np

    found = np.zeros((len(rows), offered), bool)
    order = np.argsort(own, kind="stable")
    starts, ends = (np.searchsorted(own[order], own[rows], side) for side in ("left", "right"))
    for place, (start, end) in enumerate(zip(starts, ends, strict=True)):
        found[place, wanted[order[start:end]]] = True
    return found


def recall(found: np.ndarray, most: int) -> np.ndarray:
    """Of each row, the mean over both ways of whether the right one is among so many first."""
    hits: np.ndarray = (found <= most).mean(axis=1)
    return hits


def reciprocal(found: np.ndarray) -> np.ndarray:
    """Of each row, the mean over both ways of 1 / place."""
    parts: np.ndarray = (1.0 / found).mean(axis=1)
    return parts


def _metric(of_rows: Callable[[np.ndarray], np.ndarray]) -> Metric:
    """The mean over rows of what their ranks give.

    Rows that are drawn anew keep the ranks they had among all rows.
    """
    return Metric(
        lambda found, truths: float(of_rows(found).mean()),
        lambda written, truths: float(of_rows(_read(written)).mean()),
        of_draws=lambda written, truths, counts: counts @ of_rows(_read(written)) / counts.sum(axis=1),
    )


def _read(written: Sequence[str]) -> np.ndarray:
    """Ranks as they were written, `[rows, 2]`."""
    import numpy as np

    return np.array([[float(place) for place in row.split()] for row in written])


METRICS = {
    **{f"recall_at_{most}": _metric(partial(recall, most=most)) for most in RECALLS},
    "mean_reciprocal_rank": _metric(reciprocal),
}
"""By name; all are means of image → text and text → image."""
