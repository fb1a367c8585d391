"""What a person types is text, whatever it looks like; the tokenizer's own marks are where it puts them."""

import copy

import numpy as np
import pytest
from transformers import AutoTokenizer

from autopeft.models.control_tokens import read_as_text
from autopeft.models.tokenizer import prepare, save
from autopeft.winner import winner as artifact
from tests.conftest import trained_winner
from tests.tiny_tokenizers import BACKENDS, IN_PYTHON

PLAIN = ("the fox runs", "the the", "a  b", "MKTAY", "fox! [a] <b>", "")
CONTEXTS = ("{}", "the {} fox", "the{}fox", "{0}{0}", "the fox {0} {0}")


@pytest.fixture(params=[*BACKENDS, *IN_PYTHON])
def tokenizer(request, tmp_path):
    name = request.param
    return BACKENDS[name]() if name in BACKENDS else IN_PYTHON[name](tmp_path)


def typed(tokenizer) -> list[str]:
    """Texts with control tokens in them."""
    return [context.format(control) for control in tokenizer.all_special_tokens[:8] for context in CONTEXTS]


def controls_in(tokenizer, *texts: str) -> list[str]:
    """Control tokens that a row has besides the tokenizer's own marks; the unknown token is what unknown text is."""
    row = tokenizer(*texts, return_special_tokens_mask=True)
    marked = zip(row["input_ids"], row["special_tokens_mask"], strict=False)  # ByT5 marks one more than it adds
    inner = [i for i, mark in marked if not mark]
    named = tokenizer.special_tokens_map
    others = {str(token) for name, token in named.items() if name not in ("unk_token", "extra_special_tokens")}
    special = {i for i in tokenizer.all_special_ids if i != tokenizer.unk_token_id or tokenizer.unk_token in others}
    return tokenizer.convert_ids_to_tokens([i for i in inner if i in special])


def test_control_tokens_in_a_text_are_text_and_nothing_else_changes(tokenizer):
    before = copy.deepcopy(tokenizer)
    assert any(controls_in(before, text) for text in typed(tokenizer))
    read_as_text(tokenizer)
    for text in typed(tokenizer):
        assert controls_in(tokenizer, text) == [], text
        assert controls_in(tokenizer, "the fox", text) == [], text
    for text in PLAIN:
        assert tokenizer(text)["input_ids"] == before(text)["input_ids"]
        assert tokenizer(text, "the fox")["input_ids"] == before(text, "the fox")["input_ids"]


@pytest.mark.parametrize("name", BACKENDS)
def test_a_saved_tokenizer_reads_them_as_text_too(tmp_path, name):
    tokenizer = BACKENDS[name]()
    prepare(tokenizer)
    save(tokenizer, tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for text in (*typed(tokenizer), *PLAIN):
        assert dict(again(text)) == dict(tokenizer(text))
    texts = ("the fox", "a </s> [SEP] b")
    assert dict(again(*texts)) == dict(tokenizer(*texts))
    prepare(again)  # as a base model of its own: nothing is cut twice
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_added_tokens_that_stand_for_text_stay():
    tokenizer = BACKENDS["modernbert"]()
    read_as_text(tokenizer)
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("the  |||EMAIL_ADDRESS|||[MASK]")["input_ids"])
    assert tokens[:4] == ["[CLS]", "the", "  ", "|||EMAIL_ADDRESS|||"]
    assert "[MASK]" not in tokens


def test_a_control_token_that_was_added_as_text_is_one_all_the_same():
    tokenizer = BACKENDS["gpt2"]()
    tokenizer.backend_tokenizer.add_tokens(["<|pad|>"])
    tokenizer.pad_token = "<|pad|>"
    assert tokenizer.pad_token_id in tokenizer("the <|pad|>")["input_ids"]
    read_as_text(tokenizer)
    assert tokenizer.pad_token_id not in tokenizer("the <|pad|>")["input_ids"]


def test_what_a_normaliser_makes_of_a_text_is_text_too():
    tokenizer = BACKENDS["t5"]()
    from tokenizers import normalizers

    tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
    wide = "the ＜/s＞ fox"  # noqa: RUF001  # full-width letters, which become `</s>`
    assert controls_in(tokenizer, wide) == ["</s>"]
    read_as_text(tokenizer)
    assert controls_in(tokenizer, wide) == []


def test_a_winner_predicts_of_typed_marks_what_it_predicts_of_their_letters(tiny_study):
    winner = trained_winner(tiny_study, "lora")
    typed_marks, letters = winner.predict_proba(["w1 [SEP] w2 [PAD]", "w1 [ SEP ] w2 [ PAD ]"])
    assert (typed_marks == letters).all()
    other = winner.predict_proba(["w1 w2"])[0]
    assert (typed_marks != other).any()
    again = artifact.load(tiny_study.parent / "lora")
    np.testing.assert_allclose(again.predict_proba(["w1 [SEP] w2 [PAD]"])[0], typed_marks, atol=1e-6)
