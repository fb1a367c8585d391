"""BLEU and chrF, which are computed from what all rows together have in common with their references.

sacrebleu 2.6.0 computes them. Its signatures for one reference are:

- `bleu` (Papineni et al. 2002): `nrefs:1|case:mixed|eff:yes|tok:13a|smooth:exp|version:2.6.0`. `eff:yes` leaves out
  n-grams that are longer than every answer, and changes nothing if any answer has four words. Without it, answers of
  three words that are all right would score 0. Words are split as in European languages: for Chinese, Japanese, Thai
  and other scripts without spaces use `chrf`.
- `chrf` (Popović 2015): `nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:2.6.0`, which is chrF2 and sees
  characters, whatever the script.

Rows may have unequal numbers of references. If nothing is written and nothing should be, both are 0, as in sacrebleu.
"""

from __future__ import annotations

import functools
import itertools
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from autopeft.tasks.text_scores import library
from autopeft.tasks.text_scores.score import NOTHING, TextScore

if TYPE_CHECKING:
    from collections.abc import Sequence

PERCENT = 100.0


@functools.cache
def _metric(name: str) -> Any:
    library.require(name)
    from sacrebleu.metrics import BLEU, CHRF

    # `force` turns off its warning about texts that end in " .".
    return BLEU(effective_order=True, force=True) if name == "bleu" else CHRF()


def _of_draws(name: str, answers: Sequence[str], references: Sequence[Sequence[str]], counts: np.ndarray) -> np.ndarray:
    """Each row's counts are taken once, and added up for each draw, as sacrebleu's own bootstrap does."""
    metric = _metric(name)
    # sacrebleu has a list of all rows for the first reference, one for the second, and so on, and None for a gap.
    by_place = [*itertools.zip_longest(*(own or NOTHING for own in references))]
    rows = np.array(metric._extract_corpus_statistics(answers, by_place), np.int64)
    sums = np.rint(counts @ rows).astype(np.int64).tolist()
    return np.array([metric._compute_score_from_stats(drawn).score for drawn in sums])


def _of_row(name: str, answer: str, references: Sequence[str]) -> float:
    return float(_of_draws(name, [answer], [references], np.ones((1, 1)))[0])


SCORES = {
    "bleu": TextScore(partial(_of_draws, "bleu"), None, PERCENT),
    "chrf": TextScore(partial(_of_draws, "chrf"), partial(_of_row, "chrf"), PERCENT),
}
