"""ROUGE, BLEU and chrF against the libraries that they are of."""

import time

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

import autopeft as api
from autopeft.tasks.text_scores import corpus, subsequence
from autopeft.tasks.text_scores.rouge import LINES, LONGEST, Words
from tests.tasks.text_rows import rows

ROUGE = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL", "rouge_lsum": "rougeLsum"}
ENGLISH = ["running", "runs", "cities", "City", "the", "a", "to", "IN", "well-known", "42", "3.5", "snake_case", "it's"]


def english(generator, most: int) -> str:
    """Random words in random lines, some of them empty."""
    words = generator.choice(ENGLISH, generator.integers(1, most))
    return "".join(word + str(generator.choice([" ", " ", " ", "\n", ".\n\n", ", ", " “", "…"])) for word in words)


@pytest.mark.parametrize("name", ROUGE)
def test_rouge_of_english_is_that_of_the_library(name):
    generator, library = np.random.default_rng(0), RougeScorer([ROUGE[name]], use_stemmer=True)
    score, found = api.text_score(name), set()
    for _ in range(300):
        answer, *references = (english(generator, 30) for _ in range(generator.integers(2, 5)))
        expected = library.score_multi(references, answer)[ROUGE[name]].fmeasure
        if name == "rouge_2" and expected == 0:  # two texts of the same single word have no pairs
            continue
        assert score.of([answer], [references]) == pytest.approx(expected)
        found.add(round(expected, 6))
    assert len(found) > 50


def test_the_words_of_ascii_are_those_of_the_library():
    from rouge_score.tokenizers import DefaultTokenizer

    generator, library = np.random.default_rng(0), DefaultTokenizer(use_stemmer=True)
    for _ in range(200):
        text = "".join(map(chr, generator.integers(0, 128, 60))) + english(generator, 5)
        assert Words().tokenize(text) == library.tokenize(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Größe ÜBER café", ["größe", "über", "café"]),
        ("привет, Мир", ["привет", "мир"]),
        ("東京2020は", ["東", "京", "2020", "は"]),
        ("サーバーabc人々", ["サ", "ー", "バ", "ー", "abc", "人", "々"]),
        ("कि हिन्दी", ["कि", "हिन्दी"]),
        ("ที่นี่", ["ที่", "นี่"]),
        ("한국어 말", ["한국어", "말"]),
        ("x² … ½ – _", ["x"]),
    ],
)
def test_the_words_of_other_scripts(text, words):
    assert Words().tokenize(text) == words
    assert api.score_text("rouge_l", [f"{text} {text}"], [[text]]) == pytest.approx(2 / 3)


def test_rouge_of_texts_without_words_or_pairs_is_whether_they_are_the_same():
    for name in ROUGE:
        assert api.score_text(name, ["…", "…", "Yes.", ""], [["… "], ["!"], ["yes"], ["…"]]) == 0.5


@pytest.mark.parametrize("case", range(40))
def test_the_longest_common_subsequence(case):
    generator = np.random.default_rng(case)
    first, second = (generator.integers(0, 1 + case // 4, generator.integers(0, 90)).tolist() for _ in range(2))
    table = np.zeros((len(first) + 1, len(second) + 1), int)
    for row, one in enumerate(first):
        for place, other in enumerate(second):
            longer = max(table[row, place + 1], table[row + 1, place])
            table[row + 1, place + 1] = table[row, place] + 1 if one == other else longer
    assert subsequence.length(first, second) == table[-1, -1]
    at = sorted(subsequence.places(first, second))
    assert len(at) == table[-1, -1]
    left = iter(second)
    assert all(first[place] in left for place in at)


def test_the_order_of_the_first_words_alone_counts():
    words = [f"w{place}" for place in range(LONGEST)]
    text = " ".join([*words, *["other"] * 50])
    assert api.score_text("rouge_l", [text], [[" ".join(words)]]) == 1.0
    assert api.score_text("rouge_lsum", [text.replace(" w7 ", "\nw7 ")], [[" ".join(words)]]) == 1.0
    assert api.score_text("rouge_1", [text], [[" ".join(words)]]) < 1.0
    assert api.score_text("rouge_lsum", ["\n\n".join(words[: LINES + 9])], [["\n".join(words[:LINES])]]) == 1.0


LISTS = {
    "the same": ["a b"] * 5000,
    "a word each": [f"w{place}" for place in range(10_000)],
    "nearly the same": [f"a w{place}" for place in range(5000)],
    "sentences": [
        " ".join(np.random.default_rng(line).choice([f"w{word}" for word in range(60)], 10)) for line in range(1000)
    ],
}


@pytest.mark.parametrize("lines", LISTS)
def test_no_lines_take_long(lines):
    start = time.perf_counter()
    assert api.score_text("rouge_lsum", ["\n".join(LISTS[lines])], [["\n".join(LISTS[lines][1:900][::-1])]]) > 0.1
    assert time.perf_counter() - start < 20


LIBRARY = {"bleu": BLEU(effective_order=True), "chrf": CHRF()}


@pytest.mark.parametrize("name", LIBRARY)
@pytest.mark.parametrize("seed", range(3))
def test_scores_of_a_corpus_are_those_of_the_library(name, seed):
    answers, references = rows(30, seed=seed)
    most = max(map(len, references))
    assert {*map(len, references)} == {1, 2, 3}
    by_place = [[own[place] if place < len(own) else None for own in references] for place in range(most)]
    expected = LIBRARY[name].corpus_score(answers, by_place).score
    assert api.score_text(name, answers, references) == pytest.approx(expected)
    if name == "bleu":  # as most publish it, with all four orders
        assert BLEU().corpus_score(answers, by_place).score == pytest.approx(expected)
    first = [own[0] for own in references]
    expected = LIBRARY[name].corpus_score(answers, [first]).score
    assert api.score_text(name, answers, [[text] for text in first]) == pytest.approx(expected)


def test_the_signatures_that_the_docstring_tells():
    for name, metric in LIBRARY.items():
        metric.corpus_score(["a b"], [["a b"]])
        told = f"`{name}`"
        assert told in corpus.__doc__
        assert f"`{metric.get_signature()}`" in corpus.__doc__


def test_bleu_of_short_texts_that_are_right_is_the_most():
    assert api.score_text("bleu", ["two words", "one"], [["two words"], ["one"]]) == pytest.approx(100)
    assert BLEU().corpus_score(["two words"], [["two words"]]).score == 0.0


def test_texts_that_end_in_a_space_and_a_full_stop_are_not_warned_of(caplog):
    api.score_text("bleu", ["a b ."] * 200, [["a b ."]] * 200)
    assert not caplog.records
