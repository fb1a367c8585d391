"""Tokens of rows kept on disk: the same texts are tokenised once, whatever study they are in.

The gain grows with the rows: tens of thousands take seconds to tokenise and a fraction of a second to load, while a few
hundred are fast either way (`benchmarks/tokenising.py` measures both).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from autopeft.common import cache
from autopeft.models.row_tokenizer import RowTokenizer
from autopeft.models.token_rows import TokenRows

if TYPE_CHECKING:
    from collections.abc import Sequence

LENGTHS, WHOLE = ".lengths", ".whole"
"""The arrays beside the columns: tokens of each row, and before it was cut."""


class CachedRowTokenizer(RowTokenizer):
    """Loads the tokens of texts that it has seen before from disk.

    Only reliable results are kept: those of transformers' own tokenizers that the tokenizers library runs. Rows of any
    other tokenizer are tokenised each time. Rows that a winner predicts are not kept.
    """

    def __call__(self, *texts: Sequence[str]) -> TokenRows:
        """Tokens of the rows, as from `RowTokenizer`."""
        name = self._key(texts)
        kept = _load(name) if name else None
        if kept is not None:
            return kept
        found = super().__call__(*texts)
        if name:
            _keep(name, found)
        return found

    def _key(self, texts: tuple[Sequence[str], ...]) -> str | None:
        """A digest of everything the tokens depend on, or None if that is not known."""
        import tokenizers
        import transformers

        tokenizer = self.tokenizer
        backend = getattr(tokenizer, "backend_tokenizer", None)
        kind = type(tokenizer)
        if not isinstance(backend, tokenizers.Tokenizer) or not kind.__module__.startswith("transformers."):
            return None  # Python code, which may change while its name does not
        backend.no_truncation()  # the last call's settings, which every call sets again
        backend.no_padding()
        own = [kind.__qualname__, tokenizer.model_input_names, tokenizer.split_special_tokens]
        if self.of_targets:  # the backend does not show them before they are used
            own.append(tokenizer(text_target=["", "a"])["input_ids"])
        versions = [tokenizers.__version__, transformers.__version__]
        call = json.dumps([own, versions, self.max_length, self.truncation, [list(column) for column in texts]])
        return cache.key("rows", backend.to_str(), call)


def _smallest(values: np.ndarray) -> np.ndarray:
    """The integers in the smallest type that holds them all."""
    ends = (values.min(initial=0), values.max(initial=0))
    return values.astype(np.result_type(*(np.min_scalar_type(int(end)) for end in ends)))


def _load(name: str) -> TokenRows | None:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    content = cache.read(name)
    try:
        arrays = None if content is None else load(content)
    except SafetensorError:
        return None
    if arrays is None:
        return None
    lengths, whole = (arrays.pop(kept).astype(np.int64) for kept in (LENGTHS, WHOLE))
    columns = {column: values.astype(np.int32) for column, values in arrays.items()}
    return TokenRows(columns, np.concatenate([[0], np.cumsum(lengths)]), whole)


def _keep(name: str, rows: TokenRows) -> None:
    from safetensors.numpy import save

    arrays = {**rows.columns, LENGTHS: np.diff(rows.offsets), WHOLE: rows.whole}
    cache.keep(name, save({column: _smallest(values) for column, values in arrays.items()}))
