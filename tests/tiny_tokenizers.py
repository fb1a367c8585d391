"""Tokenizers of many families, with small vocabularies, as the library's classes build them."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AlbertTokenizerFast,
    BertTokenizerFast,
    ByT5Tokenizer,
    DebertaV2TokenizerFast,
    EsmTokenizer,
    GPT2TokenizerFast,
    LlamaTokenizerFast,
    PreTrainedTokenizerFast,
    RobertaTokenizerFast,
    T5TokenizerFast,
    XLMRobertaTokenizerFast,
)

if TYPE_CHECKING:
    from pathlib import Path

CHARACTERS = [*string.ascii_lowercase, *"SEPMAKDCL[]<>/|_!"]
ESM = "<cls> <pad> <eos> <unk> L A G V S E R T I D P K Q N F Y M H W C X B U Z O . - <null_1> <mask>"


def bert():
    words = ["the", "fox", "runs", *CHARACTERS, *(f"##{letter}" for letter in string.ascii_lowercase)]
    vocabulary = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]", *words]
    return BertTokenizerFast(vocab={word: index for index, word in enumerate(vocabulary)})


def _bytes(*special: str) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A byte-level vocabulary whose only word is "the"."""
    tokens = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet()), "th", "the"]
    return {token: index for index, token in enumerate(tokens)}, [("t", "h"), ("th", "e")]


def roberta():
    vocabulary, merges = _bytes("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    return RobertaTokenizerFast(vocab=vocabulary, merges=merges)


def gpt2():
    vocabulary, merges = _bytes("<|endoftext|>")
    return GPT2TokenizerFast(vocab=vocabulary, merges=merges)


def modernbert():
    vocabulary, merges = _bytes()
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.add_special_tokens(["[CLS]", "[SEP]", "[PAD]", "[MASK]", "[UNK]"])
    backend.add_tokens(["|||EMAIL_ADDRESS|||", "  "])
    marks = [(mark, backend.token_to_id(mark)) for mark in ("[CLS]", "[SEP]")]
    single, pair = "[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]"
    backend.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=marks)
    names = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "mask_token": "[MASK]"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", **names)


def llama():
    """With merges that put `</s>` together, as converters have made them."""
    letters = ["▁", *CHARACTERS, "▁the", "▁t", "▁th", "</", "</s", "s>"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    merges = [("<", "/"), ("</", "s"), ("</s", ">"), ("▁", "t"), ("▁t", "h"), ("▁th", "e")]
    return LlamaTokenizerFast(vocab={token: index for index, token in enumerate(tokens)}, merges=merges)


def _pieces(*special: str) -> list[tuple[str, float]]:
    """A Unigram vocabulary in which, as in T5's, control pieces are the likeliest of all."""
    return [*((piece, 0.0) for piece in special), *((piece, -5.0) for piece in ["▁", "▁the", "▁fox", *CHARACTERS])]


def t5():
    return T5TokenizerFast(vocab=_pieces("<pad>", "</s>", "<unk>"), extra_ids=2)


def xlm_roberta():
    return XLMRobertaTokenizerFast(vocab=_pieces("<s>", "<pad>", "</s>", "<unk>", "<mask>"))


def albert():
    return AlbertTokenizerFast(vocab=_pieces("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"))


def deberta():
    return DebertaV2TokenizerFast(vocab=_pieces("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), unk_id=1)


def words():
    """A tokenizer that splits at spaces alone, and looks whole words up."""
    known = ["[UNK]", "[PAD]", "</s>", "the", "fox"]
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(known)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]", eos_token="</s>")


BACKENDS = {
    made.__name__: made for made in (bert, roberta, gpt2, modernbert, llama, t5, xlm_roberta, albert, deberta, words)
}
"""Those that the tokenizers library runs."""


def byt5(folder: Path):
    return ByT5Tokenizer()


def esm(folder: Path):
    (folder / "vocab.txt").write_text("\n".join(ESM.split()))
    return EsmTokenizer(str(folder / "vocab.txt"))


IN_PYTHON = {"byt5": byt5, "esm": esm}
