"""Cells with a text in several languages, and the codes of languages that tokenizers know."""

import pandas as pd
import pytest
from autopeft_seq2seq import forms, languages
from autopeft_seq2seq.translations import Translations
from transformers import NllbTokenizer

from autopeft.common.exceptions import SpecError
from autopeft.data.cells import CellError
from tests import tiny_tokenizers

BOTH = {"en": "a fox", "de": "ein Fuchs"}
THREE = {**BOTH, "fr": "un renard"}


@pytest.mark.parametrize(
    ("cell", "asked", "wanted"),
    [
        (BOTH, ("", ""), ("a fox", "ein Fuchs")),
        ('{"en": "a fox", "de": "ein Fuchs"}', ("", ""), ("a fox", "ein Fuchs")),
        (BOTH, ("de", ""), ("ein Fuchs", "a fox")),
        (BOTH, ("", "en"), ("ein Fuchs", "a fox")),
        (THREE, ("fr", "en"), ("un renard", "a fox")),
        (THREE, ("fr_XX", "en_XX"), ("un renard", "a fox")),
        ({"en": "a fox", "es": "un zorro"}, ("spa_Latn", "eng_Latn"), ("un zorro", "a fox")),
        ({"eng_Latn": "a fox", "eng": "A FOX"}, ("eng", "eng_Latn"), ("A FOX", "a fox")),
    ],
)
def test_the_texts_of_both_languages_are_found(cell, asked, wanted):
    reader = Translations(*asked)
    assert (reader.source(cell), reader.target(cell)) == wanted


def test_the_first_cell_settles_which_language_is_read():
    reader = Translations()
    cells = [BOTH, {"de": "der Hund", "en": "the dog"}]
    assert [reader.target(cell) for cell in cells] == ["ein Fuchs", "der Hund"]
    assert reader.keys == ("en", "de")


@pytest.mark.parametrize(
    ("cell", "asked", "told"),
    [
        ("a fox", ("", ""), "not JSON"),
        ("[1]", ("", ""), "not a mapping"),
        (3, ("", ""), "not a mapping"),
        ({}, ("", ""), "has no language"),
        ({"en": "a fox"}, ("", ""), 'has the languages "en"'),
        (THREE, ("", ""), 'has the languages "en", "de", "fr"'),
        (THREE, ("fr", ""), 'has the languages "en", "de", "fr"'),
        (BOTH, ("fr", "en"), 'has the languages "en", "de"'),
        (BOTH, ("fr_XX", "it_IT"), 'has the languages "en", "de"'),
        (BOTH, ("en", "en"), 'has the languages "en", "de"'),
        ({"en": None, "de": "ein Fuchs"}, ("", ""), 'has none in "en"'),
        ({"en": ["a"], "de": "ein Fuchs"}, ("", ""), "is a list"),
    ],
)
def test_a_cell_that_will_not_do_is_told(cell, asked, told):
    with pytest.raises(CellError, match=told):
        Translations(*asked).source(cell)


def test_what_is_missing_is_named():
    with pytest.raises(CellError) as told:
        Translations("fr", "it").source(BOTH)
    assert told.value.rule == 'hold a text in "fr" and "it", as [task] says'
    reader = Translations()
    reader.source(BOTH)
    with pytest.raises(CellError, match='has none in "de"'):
        reader.target({"en": "the dog", "fr": "le chien"})


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["id", "source", "target"], {"source": "source", "target": "target"}),
        (["document", "summary", "id"], {"source": "document", "target": "summary"}),
        (["id", "article", "highlights"], {"source": "article", "target": "highlights"}),
        (["summary", "text"], {"source": "text", "target": "summary"}),
        (["question", "answer"], {"source": "question", "target": "answer"}),
        (["translation", "source", "target"], {"translation": "translation"}),
        (["text", "label"], {}),
    ],
)
def test_columns_are_recognised(names, wanted):
    found, told = forms.recognised(names)
    assert found == wanted
    assert all(f"`{name}`" in told for name in wanted.values())


@pytest.fixture
def nllb():
    marks = ["<s>", "<pad>", "</s>", "<unk>"]
    return NllbTokenizer(vocab={piece: place for place, piece in enumerate([*marks, *"▁abc"])}, merges=[])


def test_codes_that_a_tokenizer_knows_are_put_beside_texts(nllb):
    assert {"eng_Latn", "fra_Latn"} <= {*languages.codes_of(nllb)}
    languages.check(nllb, "deu_Latn", "fra_Latn", choosing=False)
    languages.speak(nllb, "deu_Latn", "fra_Latn")
    read, written = nllb("a")["input_ids"], nllb(text_target="a")["input_ids"]
    assert nllb.convert_ids_to_tokens([read[0], written[0]]) == ["deu_Latn", "fra_Latn"]
    languages.check(nllb, "", "", choosing=False)  # it was told by now


@pytest.mark.parametrize(
    ("source", "target", "told"),
    [
        ("", "fra_Latn", "`source_language` in \\[task\\] must name a language, since NllbTokenizer"),
        ("eng_Latn", "", "`target_language` in \\[task\\] must name a language, since NllbTokenizer"),
        (
            "eng_Latn",
            "fra_latn",
            'must be a code that NllbTokenizer knows, but got "fra_latn"; did you mean "fra_Latn"',
        ),
        ("en", "fra_Latn", 'must be a code that NllbTokenizer knows, but got "en"'),
    ],
)
def test_codes_that_it_does_not_know_or_needs_are_told(nllb, source, target, told):
    with pytest.raises(SpecError, match=told):
        languages.check(nllb, source, target, choosing=True)


def test_a_tokenizer_without_codes_needs_none():
    tokenizer = tiny_tokenizers.t5()
    assert languages.codes_of(tokenizer) == ()
    languages.check(tokenizer, "", "", choosing=False)
    languages.check(tokenizer, "en", "de", choosing=True)
    with pytest.raises(SpecError, match="use `prefix` if the model needs an instruction"):
        languages.check(tokenizer, "en", "", choosing=False)


def test_rows_in_memory_with_translations_are_kept_whole(tmp_path):
    from autopeft.data.in_memory import as_table, keep

    reader = Translations()
    columns = forms.translated(reader)
    rows = [{"id": 1, "translation": BOTH}, {"id": 2, "translation": {"de": "der Hund", "en": "the dog"}}]
    names = {"source": "translation", "target": "translation"}
    path = keep(as_table(rows, [], "`data`"), names, tmp_path, columns)
    kept = pd.read_parquet(path)["translation"]
    again = Translations()
    assert [(again.source(cell), again.target(cell)) for cell in kept] == [
        ("a fox", "ein Fuchs"),
        ("the dog", "der Hund"),
    ]
