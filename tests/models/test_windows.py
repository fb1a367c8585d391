"""A long text is read in windows, each with the whole question before it, and each token tells its characters."""

import numpy as np
import pytest

from autopeft.common.exceptions import ModelError
from autopeft.models.row_tokenizer import RowTokenizer
from autopeft.models.tokenizer import prepare
from tests.tiny_tokenizers import BACKENDS, IN_PYTHON

SOME = np.random.default_rng(0)
QUESTIONS = ["the fox", "a b c", "fox", "b"]
CONTEXTS = [" ".join(SOME.choice(["the", "fox", "runs", "a", "b"], count)) for count in (1, 5, 21, 60)]
LENGTHS = (22, 30, 64)


@pytest.fixture(params=sorted(BACKENDS))
def tokenizer(request):
    made = BACKENDS[request.param]()
    prepare(made)
    return made


def rows(found, name="input_ids") -> list[list[int]]:
    values = found.columns.get(name, getattr(found, name, None))
    return [values[a:b].tolist() for a, b in zip(found.offsets, found.offsets[1:], strict=False)]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("stride", [0, 1, 3])
def test_windows_are_those_of_the_tokenizer(tokenizer, stride, side):
    for most in LENGTHS:
        tokenizer.truncation_side = tokenizer.padding_side = "right"
        expected = tokenizer(
            QUESTIONS, CONTEXTS, truncation="only_second", max_length=most, stride=stride,
            return_overflowing_tokens=True,
        )  # fmt: skip
        tokenizer.truncation_side = tokenizer.padding_side = side
        found = RowTokenizer(tokenizer, most).windows(QUESTIONS, CONTEXTS, stride)
        assert rows(found) == expected["input_ids"]
        assert found.row_of.tolist() == expected["overflow_to_sample_mapping"]
        if "token_type_ids" in expected:
            assert rows(found, "token_type_ids") == expected["token_type_ids"]
        assert found.whole.tolist() == np.diff(found.offsets).tolist()


def test_every_word_is_in_a_window_with_its_place(tokenizer):
    for most in (*LENGTHS, 7):
        found = RowTokenizer(tokenizer, most).windows(QUESTIONS, CONTEXTS, 1000)
        seen = [set() for _ in CONTEXTS]
        for (a, b), row in zip(zip(found.offsets, found.offsets[1:], strict=False), found.row_of, strict=True):
            assert b - a <= most
            for (begin, end), text in zip(found.spans[a:b].tolist(), found.text_of[a:b], strict=True):
                if text == 1 and begin >= 0:
                    seen[row] |= {*range(begin, end)}
        for characters, context in zip(seen, CONTEXTS, strict=True):
            assert characters == {place for place, character in enumerate(context) if character != " "}


def test_a_question_over_half_the_room_keeps_its_beginning(tokenizer):
    question = " ".join(["the fox"] * 30)
    most = 24
    found = RowTokenizer(tokenizer, most).windows([question, "fox"], [CONTEXTS[2]] * 2, 4)
    room = most - tokenizer.num_special_tokens_to_add(pair=True)
    whole = len(tokenizer(question, add_special_tokens=False)["input_ids"])
    for place, row in enumerate(found.row_of):
        of = found.text_of[found.offsets[place] : found.offsets[place + 1]]
        assert len(of) <= most
        lost = found.whole[place] - len(of)
        assert (of == 0).sum() + lost == (whole if row == 0 else (of == 0).sum())
        if row == 0:
            assert (of == 0).sum() == room // 2
            assert lost > 0
    assert [*found.row_of] == sorted(found.row_of)


def test_texts_of_which_nothing_is_left_have_one_window(tokenizer):
    found = RowTokenizer(tokenizer, 20).windows(["", "fox", ""], ["fox", "", ""], 4)
    assert found.row_of.tolist() == [0, 1, 2]
    assert rows(found) == tokenizer(["", "fox", ""], ["fox", "", ""])["input_ids"]


def test_many_rows_are_what_few_are():
    tokenizer = BACKENDS["bert"]()
    many = RowTokenizer(tokenizer, 22).windows(QUESTIONS * 60, CONTEXTS * 60, 3)
    few = RowTokenizer(tokenizer, 22).windows(QUESTIONS, CONTEXTS, 3)
    assert rows(many) == rows(few) * 60
    assert many.row_of.tolist() == [row + 4 * part for part in range(60) for row in few.row_of]


@pytest.mark.parametrize("name", IN_PYTHON)
def test_a_tokenizer_that_tells_no_places_is_refused(name, tmp_path):
    tokenizer = IN_PYTHON[name](tmp_path)
    with pytest.raises(ModelError, match=r"needs a tokenizer that knows which characters"):
        RowTokenizer(tokenizer, 20).windows(["a"], ["b"], 0)
