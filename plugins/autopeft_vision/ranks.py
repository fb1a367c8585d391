"""The ranks of texts for images, and of images for texts, by which retrieval is scored."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from autopeft import Metric

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import pandas as pd

RECALLS = (1, 5, 10)
"""The right one must be among this many first ones."""

BLOCK = 1000
"""How many rows are compared with all others at a time."""


def identities(rows: pd.DataFrame) -> np.ndarray:
    """A number for each row's image, and one for its text; equal ones have the same number, int64 `[rows, 2]`."""
    import numpy as np
    import pandas as pd

    return np.stack([pd.factorize(rows[key].map(str))[0].astype(np.int64) for key in ("image", "text")], axis=1)


def ranks(answers: np.ndarray, equal: np.ndarray) -> np.ndarray:
    """The rank of the best right text for each image, and of the best right image for each text, int64 `[rows, 2]`.

    Ranks count from 1. A text is right if it belongs to an image that equals the row's own, and an image likewise. A
    text or an image that several rows have is searched once. Equally near ones come in the rows' order.

    Args:
        answers: vectors of images and of texts side by side, `[rows, 2 · width]`.
        equal: which rows have equal images, and equal texts, `[rows, 2]`.
    """
    import numpy as np

    width = answers.shape[1] // 2
    vectors = np.asarray(answers, np.float32)  # always this type, so that ranks come out the same each time
    sides = vectors[:, :width], vectors[:, width:]
    found = np.empty((len(answers), 2), np.int64)
    for way in (0, 1):
        asked, offered = sides[way], sides[1 - way]
        first = np.sort(np.unique(equal[:, 1 - way], return_index=True)[1])  # each text or image once
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
    """Which of the offered ones belong to each row, or to a row that equals it, bool `[rows, offered]`."""
    import numpy as np

    found = np.zeros((len(rows), offered), bool)
    order = np.argsort(own, kind="stable")
    starts, ends = (np.searchsorted(own[order], own[rows], side) for side in ("left", "right"))
    for place, (start, end) in enumerate(zip(starts, ends, strict=True)):
        found[place, wanted[order[start:end]]] = True
    return found


def recall(found: np.ndarray, most: int) -> np.ndarray:
    """For each row, the mean over both directions of whether the right one is among the first `most`."""
    share: np.ndarray = (found <= most).mean(axis=1)
    return share


def reciprocal(found: np.ndarray) -> np.ndarray:
    """For each row, the mean over both directions of 1 / rank."""
    share: np.ndarray = (1.0 / found).mean(axis=1)
    return share


def _metric(of_rows: Callable[[np.ndarray], np.ndarray]) -> Metric:
    """The mean over rows of a score of their ranks.

    Rows that are drawn again keep the ranks that they had among all rows.
    """
    return Metric(
        lambda found, truths: float(of_rows(found).mean()),
        lambda written, truths: float(of_rows(_read(written)).mean()),
        of_draws=lambda written, truths, counts: counts @ of_rows(_read(written)) / counts.sum(axis=1),
    )


def _read(written: Sequence[str]) -> np.ndarray:
    """Ranks from their written form, `[rows, 2]`."""
    import numpy as np

    return np.array([[float(place) for place in row.split()] for row in written])


METRICS = {
    **{f"recall_at_{most}": _metric(partial(recall, most=most)) for most in RECALLS},
    "mean_reciprocal_rank": _metric(reciprocal),
}
"""By name; all are means of image → text and text → image."""
