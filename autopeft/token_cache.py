"""A tokenizer that remembers on disk: the same texts are tokenised once, whatever study they are in.

The gain grows with the rows: tens of thousands take seconds to tokenise and a fraction of one to find, while for a few
hundred either is over at once (`benchmarks/tokenising.py` measures both).
"""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from autopeft import disk_cache

if TYPE_CHECKING:
    from collections.abc import Mapping

LENGTHS = ".lengths"
"""The array beside the columns: tokens of each row."""


class CachedTokenizer:
    """Stands in for a transformers tokenizer; texts it has seen before come from the disk.

    Only what can be kept truthfully is: calls with lists of texts and plain options, whose result is lists of numbers
    as long as each other, by a tokenizer of transformers itself that the tokenizers library runs. Every other call
    goes through. What is returned has the columns alone, without the alignment of tokens to words.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, *texts: Any, **options: Any) -> Any:
        """As the tokenizer's own: column name → a list of token values for each row."""
        from transformers import BatchEncoding

        name = self._key(texts, options)
        kept = _load(name) if name else None
        if kept is not None:
            return BatchEncoding(_unpack(kept))
        tokens = self._tokenizer(*texts, **options)
        columns = _pack(tokens) if name else None
        if columns is None or name is None:
            return tokens
        _keep(name, columns)
        return BatchEncoding(dict(tokens))

    def _key(self, texts: tuple[Any, ...], options: Mapping[str, Any]) -> str | None:
        """A digest of everything the tokens depend on, or None where that cannot be told."""
        import tokenizers
        import transformers

        tokenizer = self._tokenizer
        backend = getattr(tokenizer, "backend_tokenizer", None)
        kind = type(tokenizer)
        if not isinstance(backend, tokenizers.Tokenizer) or not kind.__module__.startswith("transformers."):
            return None  # Python code, which may change while its name does not
        backend.no_truncation()  # the last call's settings, which every call sets anew
        backend.no_padding()
        own = [kind.__qualname__, tokenizer.model_input_names, tokenizer.truncation_side, tokenizer.padding_side]
        versions = [tokenizers.__version__, transformers.__version__]
        try:
            call = json.dumps([own, versions, options, texts], sort_keys=True)
        except TypeError:
            return None
        return disk_cache.key("tokens", backend.to_str(), call)


def _pack(tokens: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
    """Each column as one array of every row's values, the rows' lengths beside them; None if it is no such table."""
    packed: dict[str, np.ndarray] = {}
    lengths: list[int] | None = None
    for name, rows in tokens.items():
        if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
            return None
        own = [len(row) for row in rows]
        values = np.asarray(list(itertools.chain.from_iterable(rows)))
        whole = values.ndim == 1 and (values.dtype.kind == "i" or not values.size)
        if not whole or (lengths is not None and lengths != own):
            return None
        lengths = own
        packed[name] = _smallest(values)
    return None if lengths is None else {**packed, LENGTHS: _smallest(np.asarray(lengths))}


def _unpack(packed: Mapping[str, np.ndarray]) -> dict[str, list[list[int]]]:
    bounds = [0, *np.cumsum(packed[LENGTHS], dtype=np.int64).tolist()]
    flat = {name: values.tolist() for name, values in packed.items() if name != LENGTHS}
    return {name: [row[a:b] for a, b in itertools.pairwise(bounds)] for name, row in flat.items()}


def _smallest(values: np.ndarray) -> np.ndarray:
    """The whole numbers in the fewest bytes that hold them all."""
    ends = (values.min(initial=0), values.max(initial=0))
    return values.astype(np.result_type(*(np.min_scalar_type(int(end)) for end in ends)))


def _load(name: str) -> dict[str, np.ndarray] | None:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    content = disk_cache.read(name)
    try:
        return None if content is None else dict(load(content))
    except SafetensorError:
        return None


def _keep(name: str, columns: dict[str, np.ndarray]) -> None:
    from safetensors.numpy import save

    disk_cache.keep(name, save(columns))
