"""The libraries of the extra `writing`, which some scores need."""

from __future__ import annotations

import functools
import importlib.util

from autopeft.common.exceptions import SpecError

NEEDED = {
    "bleu": "sacrebleu",
    "chrf": "sacrebleu",
    "rouge_1": "rouge_score",
    "rouge_2": "rouge_score",
    "rouge_l": "rouge_score",
    "rouge_lsum": "rouge_score",
}
"""The package that each score needs. It is imported when the score is computed."""


@functools.cache
def require(name: str) -> None:
    """Make sure that the package a score needs is installed.

    Raises:
        SpecError: it is not installed.
    """
    if name in NEEDED and importlib.util.find_spec(NEEDED[name]) is None:
        package = NEEDED[name].replace("_", "-")
        raise SpecError(
            f'the score "{name}" needs {package}, which is not installed; run pip install "autopeft[writing]".'
        )
