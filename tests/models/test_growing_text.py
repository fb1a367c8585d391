"""A text is told piece by piece as its tokens come, and never half a character of it."""

import torch

from autopeft.models.growing_text import GrowingText
from tests.tiny_tokenizers import BACKENDS


def pieces_of(text, ends=(), tokenizer=None):
    """What is told of a text, a token after the other, and the tokens."""
    tokenizer = tokenizer or BACKENDS["gpt2"]()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces = []
    growing = GrowingText(tokenizer, ends, pieces.append)
    growing.put(torch.tensor([[5, 6, 7]]))  # the prompt
    for token in ids:
        growing.put(torch.tensor([token]))
    growing.end()
    assert "".join(pieces) == growing.text
    return pieces, ids, growing.text


def test_each_token_is_told_as_it_comes():
    pieces, ids, text = pieces_of("the fox ,  the\n\nend")
    assert text == "the fox ,  the\n\nend"
    assert len(pieces) == len(ids)


def test_characters_of_several_tokens_are_told_whole():
    pieces, ids, text = pieces_of("日本 é")
    assert len(ids) > 6
    assert text == "日本 é"
    assert pieces == ["日", "本", " ", "é"]


def test_what_never_becomes_a_character_is_told_at_the_end():
    tokenizer = BACKENDS["gpt2"]()
    pieces = []
    growing = GrowingText(tokenizer, (), pieces.append)
    for token in tokenizer("the 日")["input_ids"][:-1]:
        growing.put(torch.tensor([token]))
    assert pieces == ["the", " "]
    growing.end()
    growing.end()
    assert "".join(pieces) == growing.text == "the \ufffd"


def test_space_before_the_first_word_is_left_out_and_ends_are_no_text():
    tokenizer = BACKENDS["gpt2"]()
    end = tokenizer("!")["input_ids"][0]
    assert pieces_of("  the!", (end,))[2] == "the"
    assert pieces_of("!", (end,))[0] == []


def test_spaces_of_other_tokenizers_are_those_of_the_whole_text():
    for name in ("llama", "t5"):
        pieces, _, text = pieces_of("the fox the", tokenizer=BACKENDS[name]())
        assert text == "the fox the"
        assert len(pieces) > 2
