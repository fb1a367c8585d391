"""Rows of prompts and what is to be written behind them: which tokens are learnt, and from which states."""

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from autopeft.models.row_tokenizer import RowTokenizer

WORDS = ["<pad>", "<s>", "</s>", "<unk>", "<|im_end|>", *"abcdefgh"]


def reader(most=64, truncation="head", begin=True):
    backend = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if begin:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens={"end": "<|im_end|>"},
    )
    return RowTokenizer(tokenizer, most, truncation)


def words_of(rows, row):
    """A row's tokens, and for each token that is learnt the one before it and itself."""
    ids = rows.tokens.columns["input_ids"][rows.tokens.offsets[row] : rows.tokens.offsets[row + 1]]
    some = slice(rows.offsets[row], rows.offsets[row + 1])
    pairs = [(WORDS[ids[at]], WORDS[label]) for at, label in zip(rows.at[some], rows.labels[some], strict=True)]
    return [WORDS[token] for token in ids], pairs


def test_a_plain_answer_is_learnt_with_an_end():
    rows = reader().answered(["a b c d"], [[(4, 7)]], [True])
    assert words_of(rows, 0) == (["<s>", "a", "b", "c", "d", "</s>"], [("b", "c"), ("c", "d"), ("d", "</s>")])


def test_a_prompt_alone_has_no_end():
    rows = reader().answered(["a b"], [[]], [True])
    assert words_of(rows, 0) == (["<s>", "a", "b"], [])


def test_a_whole_text_is_learnt_from_its_second_token_on():
    assert words_of(reader(begin=False).answered(["a b"], [[(0, 3)]], [True]), 0)[1] == [("a", "b"), ("b", "</s>")]


def test_marks_of_a_template_are_tokens_and_in_plain_text_they_are_text():
    rows = reader().answered(["a<|im_end|>b", "a<|im_end|>b"], [[(1, 11)], []], [False, True])
    assert words_of(rows, 0) == (["a", "<|im_end|>", "b"], [("a", "<|im_end|>")])
    assert words_of(rows, 1) == (["<s>", "<unk>"], [])


def test_of_an_empty_answer_the_end_is_learnt():
    assert words_of(reader().answered(["a b"], [[(3, 3)]], [True]), 0)[1] == [("b", "</s>")]


def test_a_token_across_the_border_is_the_answers():
    assert words_of(reader().answered(["a bc d"], [[(3, 6)]], [True]), 0)[1] == [
        ("a", "<unk>"), ("<unk>", "d"), ("d", "</s>")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("truncation", "kept", "learnt"),
    [
        ("head", ["<s>", "a", "b", "c"], [("b", "c")]),
        ("tail", ["e", "f", "g", "</s>"], [("e", "f"), ("f", "g"), ("g", "</s>")]),
        ("both", ["<s>", "a", "g", "</s>"], [("g", "</s>")]),
    ],
)
def test_what_is_cut_is_not_learnt_nor_is_what_no_state_tells(truncation, kept, learnt):
    rows = reader(4, truncation).answered(["a b c d e f g"], [[(4, 13)]], [True])
    assert words_of(rows, 0) == (kept, learnt)
    assert rows.tokens.whole.tolist() == [9]


def test_many_rows_keep_their_order():
    texts = [f"{'a ' * (n % 5)}b {'c ' * (n % 3)}d" for n in range(250)]
    spans = [[(text.index("b"), len(text))] for text in texts]
    rows = reader().answered(texts, spans, [n % 2 == 0 for n in range(250)])
    assert len(rows.tokens.offsets) == len(rows.offsets) == 251
    for n in range(250):
        found, pairs = words_of(rows, n)
        assert [word for word in found if word not in WORDS[:5]] == texts[n].split()
        learnt = ["b", *["c"] * (n % 3), "d", *["</s>"] * (n % 2 == 0)]
        assert [label for _, label in pairs] == (learnt if n % 2 == 0 or n % 5 else learnt[1:])
    assert np.all(rows.at >= 0)
