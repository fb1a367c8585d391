"""The reader for each class of processors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopeft.models.image_reader import ImageReader
from autopeft.models.pair_reader import CachedPairReader, PairReader
from autopeft.models.row_tokenizer import RowTokenizer
from autopeft.models.token_cache import CachedRowTokenizer

if TYPE_CHECKING:
    from autopeft.models.reader import Reader

READERS: dict[str, type[Reader]] = {
    "AutoTokenizer": RowTokenizer,
    "AutoImageProcessor": ImageReader,
    "AutoProcessor": PairReader,
}
"""Readers by the transformers class that a task names as its `processor`."""

STUDY_READERS: dict[str, type[Reader]] = {
    **READERS,
    "AutoTokenizer": CachedRowTokenizer,
    "AutoProcessor": CachedPairReader,
}
"""The same for the rows of a study, which the next one may use again; rows to predict are not kept anywhere."""
