"""Tiny language models with their heads, and tokenizers of whole words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from autopeft.testing.tiny import SIZES
from tests.conftest import WORDS

if TYPE_CHECKING:
    from pathlib import Path

ANSWERS = ("no", "maybe", "yes", "terrible", "okay", "great")
"""Words that labels may have."""


def language_model(folder: Path, family: str) -> None:
    """A tiny one, with a tokenizer of whole words that knows the labels."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    known = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *ANSWERS]
    backend = Tokenizer(models.WordLevel({word: place for place, word in enumerate(known)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "eos_token": "[SEP]"}
    if family == "bert":
        marks = [(mark, known.index(mark)) for mark in ("[CLS]", "[SEP]")]
        single, pair = "[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]"
        backend.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=marks)
        names |= {"mask_token": "[MASK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, **names)
    options = {"n_embd": 32, "n_head": 4, "n_layer": 4, "n_positions": 128} if family == "gpt2" else SIZES
    config = transformers.AutoConfig.for_model(
        family, **options, vocab_size=len(known), pad_token_id=1, bos_token_id=2, eos_token_id=3
    )
    kind = transformers.AutoModelForMaskedLM if family == "bert" else transformers.AutoModelForCausalLM
    torch.manual_seed(0)
    model = kind.from_config(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data *= 3
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
