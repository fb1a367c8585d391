"""Scores of short answers: the same text, shared words, the same number, JSON, and a form."""

import json
import time
from decimal import Decimal

import numpy as np
import pytest

import autopeft as api
from autopeft.common.exceptions import SpecError
from autopeft.tasks.text_scores.numeric import number


@pytest.mark.parametrize(
    ("answer", "reference", "exact", "f1", "squad"),
    [
        (" Paris\n", "Paris", 1, 1, 1),
        ("The Paris!", "paris", 0, 1, 1),
        ("in Paris", "Paris", 0, 2 / 3, 0),
        ("東京", "東京 ", 1, 1, 1),
        ("東京都", "東京", 0, 0, 0),
        ("the", "a", 0, 1, 1),
        ("...", "paris", 0, 0, 0),
        ("a b b", "b b c", 0, 4 / 5, 0),
    ],
)
def test_matches_and_shared_words(answer, reference, exact, f1, squad):
    for name, value in (("exact_match", exact), ("token_f1", f1), ("squad_exact_match", squad)):
        assert api.score_text(name, [answer], [[reference]]) == pytest.approx(value)
        assert api.score_text(name, [answer], [["zzz", reference]]) == pytest.approx(value)


NUMBERS = [
    ("She has 5 + 7 = 12 of them.\n#### 12", 12), ("#### 1,234", 1234), ("#### $-5.50 a day", "-5.5"),
    ("#### -$5", -5),
    ("#### 42\n\nQuestion: 7 more\n#### 43", 42), ("#### Step 2\nthat makes 9", 9), ("so 8 ####", 8), ("####7", 7),
    ("It costs $1,000.00.", 1000), ("about 50%", 50), ("the answer is 42.", 42), ("x=-5", -5), ("10-5", 5),
    ("10 - 5", 5),
    ("\u22125 °C", -5), ("3–5", 5), ("+5", 5), (".5", "0.5"), ("-.5", "-0.5"), ("5.", 5), ("3.140", "3.14"),
    ("2, 3", 3),
    ("1,2,3", 3), ("-1,2", 2), ("1,234,567.8", "1234567.8"), ("12,34,567", 1234567), ("1,23,4567", 4567),
    ("0012", 12),
    ("-1,234", -1234), ("1,000,", 1000), ("2e3", 2000), ("6.02E-3", "0.00602"), ("3em", 3), ("1.2.3", 3),
    ("**7**", 7),
    ("٤٢", 42), ("\uff14\uff12", 42), ("答案是42。", 42), ("x² ½", None), ("forty-two", None), ("", None),
    ("####", None), ("$", None),
    ("\\boxed{-7}", -7), ("($3)", 3), ("1" * 5000, Decimal("1" * 5000)), ("7.00 and more,-", 7),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), NUMBERS)
def test_the_number_of_a_text(text, value):
    assert number(text) == (None if value is None else Decimal(value))
    assert api.score_text("numeric_match", [text], [[text]]) == float(value is not None)


@pytest.mark.parametrize("value", np.random.default_rng(0).integers(-(10**9), 10**9, 20).tolist())
def test_a_number_is_found_however_it_is_written(value):
    for text in (
        f"#### {value:,}",
        f"x 1 is {value}.",
        f"so ${value:,}.00!",
        f"{value / 100:.2f}e2",
        f"it is **{value}%**",
    ):
        assert api.score_text("numeric_match", [text], [[f"2 + 2\n#### {value}"]]) == 1.0
        assert api.score_text("numeric_match", [text], [[f"#### {value + 1}"]]) == 0.0
        assert api.score_text("numeric_match", [text], [["#### 7", f"#### {value}"]]) == 1.0


@pytest.mark.parametrize("text", ["12," * 100_000, "1,234" * 50_000, "#" * 200_000, "#### " * 50_000, "-$" * 100_000])
def test_no_text_takes_long_to_look_for_its_number(text):
    start = time.perf_counter()
    number(text)
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ('{"a": [1, 2.5, null]}', True), ("[]", True), ("42", True), ('"text"', True), ("null", True),
        (" [1] \n", True),
        ("```json\n[1]\n```", True), ("```\n[1]\n```", True), ("```[1]```", True), ("```JSON\n[1]```\n", True),
        ("", False), ("{'a': 1}", False), ("[1,]", False), ("NaN", False), ("[Infinity]", False), ("```", False),
        ("``````", False), ("```json\n```", False), ("Here: [1]", False), ("```\n[1]", False),
        ("```\n[1]\n``` so", False),
        ("[" * 100_000, False), ("[" * 100_000 + "]" * 100_000, False), ('{"a": 1', False), ("01", False),
        ("1" * 5000, True),
        ("1e99999999999999999999", True), ('"東京"', True), ("\u00a0[1]", True),
    ],
)  # fmt: skip
def test_what_is_json(text, right):
    assert api.score_text("valid_json", [text], [["whatever"]]) == float(right)
    assert api.score_text("json_match", [text], [[text]]) == float(right)


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ('{"a": 1, "b": [2]}', '{"b": [2], "a": 1}', True), ("[1, 2]", "[2, 1]", False), ("1.0", "1", True),
        ("1e2", "100", True), ("true", "1", False), ("[0]", "[false]", False), ("null", "0", False),
        ('"1"', "1", False),
        ("```json\n{}\n```", "{}", True), ("{}", "[]", False), ("0.1", "0.10", True),
        ("0.1", "0.1000000000000000000001", False),
        ('"\\u6771"', '"東"', True), ('["Decimal", 1]', "[1]", False), ("[1]", "no JSON", False),
        ('{"a": 1, "a": 2}', '{"a": 2}', True),
        ("-0", "0", True), ("1e99999999999999999999", "1e99999999999999999998", False),
    ],
)  # fmt: skip
def test_what_json_has_the_same_values(answer, reference, right):
    assert api.score_text("json_match", [answer], [[reference]]) == float(right)
    assert api.score_text("json_match", [answer], [["{", reference]]) == float(right)


def test_json_that_is_written_in_another_way_is_the_same():
    generator = np.random.default_rng(0)
    for _ in range(50):
        value = {
            f"k{key}": [generator.normal(), bool(generator.random() < 0.5), None, f"é{key}"]
            for key in generator.permutation(5).tolist()
        }
        other = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=bool(generator.random() < 0.5))
        assert api.score_text("json_match", [json.dumps(value)], [[other]]) == 1.0
        value["k3"][1] = not value["k3"][1]
        assert api.score_text("json_match", [json.dumps(value)], [[other]]) == 0.0


@pytest.mark.parametrize(
    ("pattern", "share"),
    [
        ("yes|no", 2 / 4),
        ("(?i)yes|no", 3 / 4),
        ("(?s).*no.*", 2 / 4),
        (r"\w+", 3 / 4),
        ("[A-Z].*", 1 / 4),
        ("a:b", 0.0),
    ],
)
def test_the_share_of_answers_that_match_as_a_whole(pattern, share):
    answers = ["yes", " no\n", "YES", "I do\nnot know"]
    assert api.score_text(f"matches:{pattern}", answers, [["other"]] * 4) == share


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("", "of 1 to 10,000 characters, but got 0"), ("a" * 10_001, "but got 10,001"),
        ("(", r"but got \"\(\": .*unterminated"),
        ("(?R)", "unknown extension"), (r"\p{L}", "bad escape"), ("*", "nothing to repeat"),
        ("(" * 4000 + ")" * 4000, "correct it"),
        ("a{1000000000}", "multiply to 1,000,000 at most"), ("(((a{1000}){1000}){2}){0,9}", "repeat less"),
        ("a{" + "9" * 5000 + "}", "repeat less"),
    ],
)  # fmt: skip
def test_a_bad_pattern_is_told(pattern, told):
    with pytest.raises(SpecError, match=told):
        api.text_score(f"matches:{pattern}")


def test_long_counts_of_repetitions_that_take_no_room_are_allowed():
    uuid = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    assert api.score_text(f"matches:{uuid}", ["123e4567-e89b-12d3-a456-426614174000", "x"], [[], []]) == 0.5
    assert api.score_text("matches:a{0,100000}", ["a" * 5000], [[]]) == 1.0


def test_a_pattern_that_would_take_years_is_stopped(monkeypatch):
    from autopeft.tasks.text_scores import pattern

    monkeypatch.setattr(pattern, "SECONDS", 0.2)
    start = time.perf_counter()
    with pytest.raises(SpecError, match=r"took longer on one of 61 characters; write it without repetitions"):
        api.score_text("matches:(a|aa)+c", ["a" * 60 + "b"], [[]])
    assert time.perf_counter() - start < 5
