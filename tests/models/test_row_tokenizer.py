"""Rows that are too long are cut as asked, what that cost is counted, and the rest is as the tokenizer has it."""

from itertools import chain

import numpy as np
import pytest

from autopeft.common.truncation import BOTH, HEAD, TAIL, Truncation
from autopeft.models.row_tokenizer import RowTokenizer
from autopeft.models.tokenizer import prepare
from tests.tiny_tokenizers import BACKENDS, IN_PYTHON

SOME = np.random.default_rng(0)
TEXTS = [" ".join(SOME.choice(["the", "fox", "runs", "a", "b"], count)) for count in (0, 1, 2, 3, 5, 8, 13, 21)]
LENGTHS = (7, 8, 9, 12, 15)


@pytest.fixture(params=["bert", "roberta", "gpt2", "modernbert", "t5", "deberta"])
def tokenizer(request):
    made = BACKENDS[request.param]()
    prepare(made)
    return made


def rows(found) -> list[list[int]]:
    return [found.columns["input_ids"][a:b].tolist() for a, b in zip(found.offsets, found.offsets[1:], strict=False)]


@pytest.mark.parametrize("texts", [(TEXTS,), (TEXTS, TEXTS[::-1]), (TEXTS, [TEXTS[3]] * len(TEXTS))])
@pytest.mark.parametrize(("truncation", "side"), [(HEAD, "right"), (TAIL, "left"), (None, "left")])
def test_the_head_or_the_tail_is_what_the_tokenizer_keeps(tokenizer, texts, truncation, side):
    tokenizer.truncation_side = side
    for most in LENGTHS:
        found = RowTokenizer(tokenizer, most, truncation)(*texts)
        expected = tokenizer(*texts, truncation=True, max_length=most)
        assert rows(found) == expected["input_ids"]
        if "token_type_ids" in expected:
            assert found.columns["token_type_ids"].tolist() == list(chain.from_iterable(expected["token_type_ids"]))
        whole = tokenizer(*texts)["input_ids"]
        assert found.whole.tolist() == [len(row) for row in whole]


def test_of_both_ends_half_is_kept_and_the_marks_stay(tokenizer):
    marks = tokenizer.num_special_tokens_to_add()
    for most in LENGTHS:
        whole = tokenizer(TEXTS)["input_ids"]
        for row, full in zip(rows(RowTokenizer(tokenizer, most, BOTH)(TEXTS)), whole, strict=True):
            room = most - marks
            ids = [i for i in full if marks == 0 or i not in tokenizer("")["input_ids"]]
            inner = ids if len(full) <= most else ids[: room - room // 2] + ids[len(ids) - room // 2 :]
            assert [i for i in row if marks == 0 or i not in tokenizer("")["input_ids"]] == inner
            assert len(row) == min(most, len(full))
            assert row[:1] == full[:1]
            assert row[-1:] == full[-1:]


def test_both_ends_of_both_texts():
    tokenizer = BACKENDS["bert"]()
    pair = ("a b c d e f g h", "i j k l m")
    (row,) = rows(RowTokenizer(tokenizer, 10, BOTH)([pair[0]], [pair[1]]))
    assert tokenizer.decode(row) == "[CLS] a b g h [SEP] i j m [SEP]"
    found = RowTokenizer(tokenizer, 10, BOTH)([pair[0]], [pair[1]])
    assert found.columns["token_type_ids"].tolist() == [0] * 6 + [1] * 4


@pytest.mark.parametrize("name", IN_PYTHON)
def test_a_tokenizer_in_python_is_cut_likewise(name, tmp_path):
    tokenizer = IN_PYTHON[name](tmp_path)
    prepare(tokenizer)
    texts = ["M", "MKTAYMKTAY", "", "MKT<eos>AY</s>MM"]
    for truncation, side in ((HEAD, "right"), (TAIL, "left")):
        tokenizer.truncation_side = side
        expected = tokenizer(texts, truncation=True, max_length=6)["input_ids"]
        assert rows(RowTokenizer(tokenizer, 6, truncation)(texts)) == expected
    (row,) = rows(RowTokenizer(tokenizer, 6, BOTH)(["MKTAY" * 4]))
    assert row == tokenizer("MK" + ("AY" if name == "esm" else "TAY"))["input_ids"]


def test_many_rows_are_what_few_are():
    tokenizer = BACKENDS["bert"]()
    texts = TEXTS * 130
    found = RowTokenizer(tokenizer, 9)(texts)
    assert rows(found) == rows(RowTokenizer(tokenizer, 9)(TEXTS)) * 130
    assert len(found.whole) == len(texts) > 1000


def test_what_was_lost_is_said_and_nothing_where_nothing_was():
    assert Truncation(9, 0, 500, 0).sentence(64, HEAD) == ""
    assert Truncation(1200, 1, 5000, 500).sentence(64, HEAD) == (
        "1 of 1,200 rows is longer than `max_length` = 64 tokens and is cut down to the beginning: 10.0% of all tokens "
        "are lost."
    )
    told = (Truncation(9, 2, 5000, 2) + Truncation(9, 1, 5000, 1)).sentence(64, BOTH)
    assert told == (
        "3 of 18 rows are longer than `max_length` = 64 tokens and are cut down to both ends: less than 0.1% of all "
        "tokens are lost."
    )
