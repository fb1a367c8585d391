"""Control tokens that a person types are text like any other, and never special tokens of the model.

Otherwise `</s>`, `[SEP]` or `<pad>` in a row's text would end it, split it or hide the rest of it. Three mechanisms,
all in the tokenizer itself, so that training and prediction agree:

- a tokenizer of the tokenizers library no longer looks for special tokens in texts (`split_special_tokens`);
- if its model has them in its own vocabulary and would still assemble them (every Unigram model: T5, XLM-R, ALBERT,
  DeBERTa-v2), a last step before the model cuts them after their first character;
- a tokenizer in Python gets a trie that cuts them in the same way.

Added tokens that are not special (`|||EMAIL_ADDRESS|||`, runs of spaces) stand for text, and stay.
"""

from __future__ import annotations

import json
import re
from typing import Any

CONTEXTS = ("{}", "a {} b", "a{}b")
"""Contexts of a control token: with some tokenizers the neighbours decide how it is read."""


def read_as_text(tokenizer: Any) -> None:
    """Make a tokenizer read control tokens in a text as text; the special tokens that it adds itself stay.

    Args:
        tokenizer: of transformers. Kinds that the module's description does not name are left as they are.
    """
    controls = controls_of(tokenizer)
    if not controls:
        return
    if hasattr(tokenizer, "backend_tokenizer"):
        tokenizer.init_kwargs["split_special_tokens"] = tokenizer.split_special_tokens = True  # saved with it as well
        _read_by_backend(tokenizer.backend_tokenizer, controls)
    elif hasattr(tokenizer, "tokens_trie"):
        tokenizer.tokens_trie = _trie(tokenizer.tokens_trie, controls)


def cuts(tokenizer: Any) -> bool:
    """Whether the backend has the step that cuts control tokens: it is saved only in `tokenizer.json`."""
    step = getattr(getattr(tokenizer, "backend_tokenizer", None), "pre_tokenizer", None)
    return step is not None and json.dumps(_pattern(controls_of(tokenizer))).encode() in step.__getstate__()


def controls_of(tokenizer: Any) -> list[str]:
    """Tokens that only the tokenizer may add; a single character cannot be cut, and is text in any vocabulary."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    found = {*map(str, tokenizer.all_special_tokens), *(token.content for token in added if token.special)}
    return sorted(control for control in found if len(control) > 1)


def _read_by_backend(backend: Any, controls: list[str]) -> None:
    from tokenizers import AddedToken, Regex
    from tokenizers.pre_tokenizers import Sequence, Split

    added = {token.content: token for token in backend.get_added_tokens_decoder().values()}
    # A token that is named as special but was added as text would still be searched for.
    ordinary = [control for control in controls if control in added and not added[control].special]
    backend.add_special_tokens([AddedToken(control, special=True) for control in ordinary])
    backend.encode_special_tokens = True
    backend.no_truncation()
    if any(_is_made(backend, control) for control in controls):
        step, before = Split(Regex(_pattern(controls)), "merged_with_previous"), backend.pre_tokenizer
        backend.pre_tokenizer = Sequence([before, step]) if before else step


def _is_made(backend: Any, control: str) -> bool:
    """Whether the backend's model assembles a control token from a text."""
    number = backend.token_to_id(control)
    for context in CONTEXTS:
        text = context.format(control)
        encoded = backend.encode(text, add_special_tokens=False)
        if any(i == number and control in text[a:b] for i, (a, b) in zip(encoded.ids, encoded.offsets, strict=True)):
            return True
    return False


def _pattern(controls: list[str]) -> str:
    """Matches the first character of each control token."""
    return "|".join(f"{re.escape(control[0])}(?={re.escape(control[1:])})" for control in controls)


def _trie(trie: Any, controls: list[str]) -> Any:
    """A trie for a tokenizer in Python that finds what `trie` finds, except control tokens, which it cuts."""
    from transformers.tokenization_python import Trie

    cut = re.compile("|".join(f"(?<={re.escape(c[0])})(?={re.escape(c[1:])})" for c in controls))

    class CuttingTrie(Trie):  # type: ignore[misc]  # transformers leaves it untyped
        """Splits a text at the added tokens that stand for text, and after the first character of all others."""

        def split(self, text: str) -> list[str]:
            return [piece for part in super().split(text) for piece in cut.split(part)]

    return CuttingTrie(sorted(set(trie._tokens) - set(controls)))
