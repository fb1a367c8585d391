"""Complete a checkpoint's tokenizer for rows: a padding token, a separator between two texts, text read as text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from autopeft.models.control_tokens import cuts, read_as_text

if TYPE_CHECKING:
    from pathlib import Path

ANY_CLASS = "PreTrainedTokenizerFast"
"""The class of transformers that takes a tokenizer as it is in `tokenizer.json`; most others rebuild it."""


def prepare(tokenizer: Any, *models: Any) -> None:
    """Complete a loaded tokenizer, and tell the models its padding token.

    A causal model's classifier takes as the last token of a row the last one that is not padding by its configuration,
    which in many checkpoints names another token than the tokenizer, or one outside the vocabulary.

    Args:
        tokenizer: of transformers.
        models: the models that will read its tokens.
    """
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token_id is not None:
        for model in models:
            for config in (model.config, model.config.get_text_config()):
                config.pad_token_id = tokenizer.pad_token_id
    read_as_text(tokenizer)
    _separate_pairs(tokenizer)


def save(tokenizer: Any, folder: Path) -> None:
    """Write a tokenizer that works like this one when `AutoTokenizer` reads it; one in Python works almost like it."""
    tokenizer.save_pretrained(str(folder))
    if not cuts(tokenizer):
        return
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content |= {"tokenizer_class": ANY_CLASS, "model_input_names": list(tokenizer.model_input_names)}
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _separate_pairs(tokenizer: Any) -> None:
    """Put the end token between two texts if a tokenizer (GPT-2's, Qwen's) would not separate them."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    end = tokenizer.eos_token
    if backend is None or end is None or tokenizer.num_special_tokens_to_add(pair=True):
        return
    from tokenizers.processors import TemplateProcessing

    backend.post_processor = TemplateProcessing(
        single="$A", pair=f"$A {end} $B", special_tokens=[(end, tokenizer.eos_token_id)]
    )
