"""Tiny language models with their heads, and tokenizers of whole words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from autopeft.testing.tiny import SIZES, WRITING_FAMILIES
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
    elif family in WRITING_FAMILIES:
        marks = [(mark, known.index(mark)) for mark in ("[CLS]", "[SEP]")]
        single = f"{'[CLS] ' * (family == 'bart')}$A [SEP]"
        backend.post_processor = processors.TemplateProcessing(
            single=single, pair=f"{single} $B [SEP]", special_tokens=marks
        )
        names |= {"cls_token": "[CLS]", "model_input_names": ["input_ids", "attention_mask"]}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, **names)
    options = {"n_embd": 32, "n_head": 4, "n_layer": 4, "n_positions": 128} if family == "gpt2" else SIZES
    options = {**options, **WRITING_FAMILIES.get(family, {})}
    config = transformers.AutoConfig.for_model(
        family, **options, vocab_size=len(known), pad_token_id=1, bos_token_id=2, eos_token_id=3
    )
    kind = {"bert": transformers.AutoModelForMaskedLM, "gpt2": transformers.AutoModelForCausalLM}.get(
        family, transformers.AutoModelForSeq2SeqLM
    )
    torch.manual_seed(0)
    model = kind.from_config(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data *= 3
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


CHAT_MARKS = ("<|end|>", "<|im_start|>", "<|im_end|>")
"""Of the tokenizer of `chat_model`; the last ends a message."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

WRITTEN = (" one", "two\nlines", " back\\slash", " \x1b[31mred", "日本", " \u202eover", ' "quoted", ', "\r")
"""Words that `chat_model` writes, whatever it is asked; people can write them, but then they are their letters."""


def chat_model(folder: Path, positions: int = 256) -> None:
    """A tiny GPT-2 with a chat template, whose endless answers have line ends and what a terminal would obey."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    in_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words = [in_bytes.pre_tokenize_str(word)[0][0] for word in WRITTEN]
    known = [*CHAT_MARKS, *sorted(pre_tokenizers.ByteLevel.alphabet()), *words]
    backend = Tokenizer(models.BPE(vocab={word: place for place, word in enumerate(known)}, merges=[]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    backend.add_special_tokens(list(CHAT_MARKS))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=CHAT_MARKS[2], pad_token=CHAT_MARKS[0], chat_template=CHAT_TEMPLATE
    )
    config = transformers.GPT2Config(
        n_embd=32, n_head=4, n_layer=2, n_positions=positions, vocab_size=len(known), bos_token_id=0, eos_token_id=2
    )
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(config)
    model.transformer.wte.weight.data[: -len(words)] *= 0.1  # the head's too: what is read, and never written
    for parameter in model.transformer.h.parameters():
        if parameter.ndim > 1:
            parameter.data *= 10  # so that what is read bears on what is written
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
