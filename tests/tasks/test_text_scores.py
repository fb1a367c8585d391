"""Scores of written texts: their values, what they need, and how they are drawn anew."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest

import autopeft as api
from autopeft.common.exceptions import SpecError
from autopeft.reporting.bootstrap import interval_of
from tests.tasks.text_rows import ALL, OWN, SCRIPTS, rows


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("text", ['{"a": 42}', "42", "7 apples and 42 pears, and no more.", *SCRIPTS])
def test_identical_texts_get_the_most(name, text):
    if name in ("valid_json", "json_match") and not text.startswith(("{", "42")):
        text = json.dumps(text, ensure_ascii=False)
    text = f"{text} 42" if name == "numeric_match" or name.startswith("matches:") else text
    score = api.text_score(name)
    assert score.of([text], [[text]]) == pytest.approx(score.most)
    assert score.of([text, text], [["1", text, "2"], [text]]) == pytest.approx(score.most)


@pytest.mark.parametrize("name", OWN)
def test_what_is_not_written_scores_nothing_and_nothing_is_right_where_nothing_should_be(name):
    score = api.text_score(name)
    assert score.of([""], [["one 1"]]) == 0.0
    assert score.of([" \n"], [["one 1", "two 2"]]) == 0.0
    no_text = name in ("bleu", "chrf", "numeric_match", "valid_json", "json_match")  # nothing is not a number, nor JSON
    assert score.of([""], [[""]]) == (0.0 if no_text else score.most)
    assert score.of([""], [[]]) == (0.0 if no_text else score.most)
    assert score.of(["one 1"], [[]]) == score.of(["one 1"], [[""]]) == 0.0


def test_no_score_is_of_no_rows_or_of_other_references():
    for answers, references in ([], []), (["a"], []), (["a"], [["a"], ["b"]]):
        with pytest.raises(ValueError, match="needs at least one answer"):
            api.score_text("exact_match", answers, references)
    with pytest.raises(TypeError, match="a list of texts"):
        api.score_text("exact_match", ["a"], ["a"])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("rouge_3", 'the score of texts "rouge_3" is not known; did you mean "rouge_'),
        ("exactmatch", 'did you mean "exact_match"'),
        ("x", "known: bleu, chrf, exact_match, json_match, matches:<regular expression>, numeric_match"),
    ],
)
def test_an_unknown_name_gets_the_nearest_ones(name, told):
    with pytest.raises(SpecError, match=told):
        api.score_text(name, ["a"], [["a"]])


@pytest.mark.parametrize(("name", "package"), [("rouge_l", "rouge_score"), ("bleu", "sacrebleu")])
def test_a_library_that_is_not_there_is_named_and_the_others_work(name, package):
    code = f"""
import sys
sys.modules["{package}"] = None  # Python takes it for one that is not installed
import autopeft
assert autopeft.score_text("token_f1", ["a b"], [["b"]]) > 0
assert "{name}" in autopeft.text_scores()
for ask in (lambda: autopeft.text_score("{name}"), lambda: autopeft.text_scores()["{name}"].of(["a"], [["a"]])):
    try:
        ask()
    except autopeft.SpecError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    told = f'the score "{name}" needs {package.replace("_", "-")}, which is not installed; run pip install'
    assert done.stdout.splitlines() == [f'{told} "autopeft[writing]".'] * 2


def test_no_library_is_imported_before_a_score_is_worked_out():
    code = """
import sys
import autopeft
autopeft.text_scores(), autopeft.text_score("rouge_l"), autopeft.text_score("bleu"), autopeft.text_score("matches:a")
assert not {"torch", "nltk", "rouge_score", "sacrebleu", "sklearn"} & {*sys.modules}
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ALL)
def test_draws_are_scored_as_their_rows_are(name):
    answers, references = rows(40)
    score = api.text_score(name)
    drawn = np.random.default_rng(1).multinomial(40, np.full(40, 1 / 40), 20).astype(float)
    found = score.of_draws(answers, references, drawn)
    for counts, value in zip(drawn, found, strict=True):
        some = np.repeat(np.arange(40), counts.astype(int))
        assert value == pytest.approx(score.of([answers[row] for row in some], [references[row] for row in some]))
    assert 0 < score.of(answers, references) < score.most
    assert len({*found.round(9)}) > 1


@pytest.mark.parametrize("name", ALL)
def test_a_row_has_its_own_and_the_score_is_their_mean_but_for_those_of_a_corpus(name):
    answers, references = rows(40)
    score = api.text_score(name)
    if name == "bleu":
        assert score.of_row is None
        return
    own = [score.of_row(answer, texts) for answer, texts in zip(answers, references, strict=True)]
    assert [score.of([answer], [texts]) for answer, texts in zip(answers, references, strict=True)] == own
    if name != "chrf":
        assert np.mean(own) == pytest.approx(score.of(answers, references))


@pytest.mark.parametrize("name", ALL)
def test_a_metric_is_told_from_what_is_written(name):
    answers, references = rows(40)
    score = api.text_score(name)
    metric = api.metric_of(score)
    written = [api.written_texts([answer]) for answer in answers], [*map(api.written_texts, references)]
    assert metric.written
    assert np.isnan(metric.score(np.zeros(40), np.zeros(40)))
    assert metric.of_written(*written) == pytest.approx(score.of(answers, references))
    assert metric.of_written(written[1], written[1]) >= metric.of_written(*written)
    if name not in ("numeric_match", "valid_json", "json_match") and name in OWN:
        assert metric.of_written(written[1], written[1]) == pytest.approx(score.most)
    low, high = interval_of(metric, written[1], written[0])
    assert low < metric.of_written(*written) < high


def test_an_answer_of_nothing_is_written_as_an_empty_list_or_text():
    metric = api.metric_of(api.text_score("exact_match"))
    for answer in api.written_texts([]), api.written_texts([""]):
        assert metric.of_written([answer], [api.written_texts([])]) == 1.0
        assert metric.of_written([answer], [api.written_texts(["a"])]) == 0.0


@pytest.mark.parametrize("name", ["bleu", "chrf", "rouge_lsum"])
def test_a_thousand_draws_of_three_hundred_rows_take_seconds(name):
    answers, references = rows(300, words=40)
    score = api.text_score(name)
    score.of(answers, references)  # imports the library
    drawn = np.random.default_rng(0).multinomial(300, np.full(300, 1 / 300), 1000).astype(float)
    start = time.perf_counter()
    assert score.of_draws(answers, references, drawn).std() > 0
    assert time.perf_counter() - start < 5


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ALL)
def test_a_text_of_a_hundred_thousand_words_takes_seconds(name):
    words = [*np.random.default_rng(0).choice([f"w{place}" for place in range(2000)], 100_000), "42"]
    text, other = " ".join(words), " ".join([*words[5000:], *words[:5000]]).replace(" w1 ", "\nw1 ")
    score = api.text_score(name)
    start = time.perf_counter()
    if name in OWN:
        assert score.of([other], [["the short one"]]) < score.most / 10
    assert 0 <= score.of([other], [[text]]) <= score.most
    assert time.perf_counter() - start < 30
    if name not in ("valid_json", "json_match"):
        assert score.of([text], [[text]]) == pytest.approx(score.most)
