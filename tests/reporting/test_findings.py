"""The three main sentences of a study."""

import pytest

from autopeft.reporting import gather, main_sentences
from autopeft.study.archive import open_archive
from tests.reporting.test_report import ANSWERS, SCORES, WINNER, crowned, record, store

LONGEST = 150
"""Characters of a sentence that a phone, 40 to a line, still shows in four lines."""

LORA = record(0, folds=(0.700, 0.710, 0.705))
CROWNED = {"number": 1, "scores": {"winner": 0.7, "baseline": 0.4, "defaults": {"lora": 0.75}, "notes": {}}}


@pytest.mark.parametrize(
    ("folds", "told"),
    [
        ((0.801, 0.809, 0.806), "Its lead of 0.1003 over lora is significant."),
        ((0.74, 0.69, 0.70), "Its lead of 0.0050 over lora is inconclusive: it may be chance."),
        ((0.710, 0.705, 0.700), "It is tied with lora (trial 0)."),
    ],
)
def test_a_lead_is_significant_or_inconclusive_and_a_tie_is_called_a_tie(tmp_path, folds, told):
    output = store(tmp_path, [LORA, record(1, "adapter", folds=folds, size=9)], test_scores=CROWNED)
    who, how_sure, held_out = main_sentences(open_archive(output))
    assert who.startswith("adapter won: mean accuracy 0.")
    assert how_sure == told
    assert held_out == "On held-out rows it scores 0.7000. lora's untuned default does better: 0.7500."
    assert gather(output).main == [who, how_sure, held_out]
    assert max(map(len, (who, how_sure, held_out))) <= LONGEST


def test_a_better_default_says_whether_that_is_sure(tmp_path):
    worse = {**ANSWERS, "default_adapter": ["yes"] * 50 + ["no"] * 50 + WINNER[100:]}
    scores = {**SCORES, "defaults": {"adapter": 110 / 120}}
    (*_, told) = crowned(tmp_path, worse, scores).main
    assert told == "On 120 held-out rows it scores 0.7500. adapter's untuned default does better: 0.9167 (significant)."


def test_the_best_default_and_the_baseline_stand_beside_a_winner_that_is_better(tmp_path):
    scores = {**SCORES, "defaults": {"adapter": 60 / 120}}
    (*_, told) = crowned(tmp_path, ANSWERS, scores).main
    assert told == (
        "On 120 held-out rows it scores 0.7500; "
        "the best untuned default (adapter) scores 0.5000, the majority class 0.4167."
    )


def test_a_default_that_scores_as_much_is_no_worse(tmp_path):
    (*_, told) = crowned(tmp_path, ANSWERS).main
    assert told == (
        "On 120 held-out rows it scores 0.7500, and so does lora's untuned default; the majority class scores 0.4167."
    )


def test_a_winner_that_is_a_default_is_not_compared_with_itself(tmp_path):
    scores = {"number": 0, "scores": {**CROWNED["scores"], "winner": 0.7}}
    found = main_sentences(open_archive(store(tmp_path, [LORA], defaults=(0,), test_scores=scores)))
    assert found[0] == "lora's untuned default won: mean accuracy 0.7050 in cross-validation (trial 0)."
    assert found[1:] == [
        "There is no other candidate to compare it with.",
        "On held-out rows it scores 0.7000; the majority class scores 0.4000.",
    ]


def test_beside_a_default_that_won_stands_the_best_other_one(tmp_path):
    scores = {"winner": 0.7, "defaults": {"lora": 0.7, "adapter": 0.5}}
    crown = {"number": 0, "scores": {**CROWNED["scores"], **scores}}
    both = [LORA, record(1, "adapter", folds=(0.6, 0.6, 0.6))]
    *_, told = main_sentences(open_archive(store(tmp_path, both, defaults=(0, 1), test_scores=crown)))
    assert told == (
        "On held-out rows it scores 0.7000; the best other untuned default (adapter) scores 0.5000, the majority class "
        "0.4000."
    )


def test_a_study_that_was_interrupted_or_has_no_winner_says_so(tmp_path):
    (only,) = main_sentences(open_archive(store(tmp_path, [record(0, state="PRUNED")])))
    assert only == "There is no winner yet: 1 of 6 trials have ended, and none is complete."
    first, _ = main_sentences(open_archive(store(tmp_path, [record(1)])))
    assert first.startswith("lora leads after 2 of 6 trials, interrupted: mean accuracy 0.71")
